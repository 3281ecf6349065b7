"""An evaluation finds classes by name, compares with what the model learned, and says where it knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gensdk.cli.main import run
from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_training.data import ArrayDataset, load_data
from gensdk_training.evaluation import evaluate as evaluate_module
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.evaluation.evaluation_report import EvaluationReport
from gensdk_training.evaluation.labels import chosen_of, label_draw
from gensdk_training.evaluation.subject import open_reference
from gensdk_training.evaluation.telling import why_it_cant_tell
from gensdk_training.metrics.classifier import ClassifierSettings, LabelledImages, train_classifier
from gensdk_training.metrics.extractor import ClassifierExtractor, Extractor, Reading
from gensdk_training.run import DataConfig, train
from support.models import feedforward_model
from support.tiny import tiny_run


@pytest.fixture(autouse=True)
def _a_quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "CLASSIFIER", ClassifierSettings(steps=200))


@cache
def digits(split: Any) -> ArrayDataset:
    data = load_data("digits", split=split)
    assert isinstance(data, ArrayDataset)
    return data


def write_digits(root: Path, names: dict[int, str], *, lacking: tuple[int, ...] = (), each: int = 30) -> Path:
    """Digits as folders of pictures in train/ and test/, each class called as `names` say."""
    for split in ("train", "test"):
        data = digits(split)
        assert data.labels is not None
        for digit, name in names.items():
            if split == "test" and digit in lacking:
                continue
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for place in np.flatnonzero(data.labels == digit)[:each]:
                Image.fromarray(data.images[place, ..., 0]).save(folder / f"{place}.png")
    return root


def model_of(names: tuple[str, ...] | None, side: int = 4) -> ModelSpec:
    """A model of grey pictures, with classes of these names."""
    image = ImageSpec(channels=1, height=side, width=side)
    conditions = label_conditions(len(names) if names else None, names)
    return feedforward_model().model_copy(update={"conditions": conditions, "output": image})


def measured(bundle: str, source: Path | str, count: int = 300, **data: Any) -> EvaluationReport:
    config = DataConfig(source=str(source), **data) if data else None
    quick = ["fid", "labels"]
    found = evaluate(
        bundle, str(source), count=count, backend="onnxruntime", progress=False, metrics=quick, data=config
    )
    return found.report


ALL = {digit: str(digit) for digit in range(10)}


@pytest.mark.parametrize("lacking", [(0,), (4, 9)])
def test_a_test_part_that_lacks_a_class_shifts_no_labels(lacking: tuple[int, ...], tmp_path: Path) -> None:
    report = measured("digits-dcgan", write_digits(tmp_path / "set", ALL, lacking=lacking))
    assert report.extractor is not None
    assert report.extractor.accuracy is not None
    assert report.extractor.accuracy > 0.8
    assert report.measure("labels").value > 0.8
    assert any(f"no test image of {', '.join(map(str, lacking))}" in note for note in report.notes)


def test_classes_are_found_in_the_model_by_name_whatever_their_order(tmp_path: Path) -> None:
    some = {digit: str(digit) for digit in (7, 3, 5)}
    report = measured("digits-dcgan", write_digits(tmp_path / "set", some))
    assert report.measure("labels").value > 0.8
    assert any("are not drawn: 0, 1, 2, 4, 6, 8, 9" in note for note in report.notes)
    with pytest.raises(InputError, match="no image of the classes 0, 1, 2"):
        measured("digits-dcgan", write_digits(tmp_path / "named", {3: "three", 5: "five"}))
    report = measured("digits-dcgan", write_digits(tmp_path / "partly", {3: "3", 5: "5", 7: "seven"}))
    assert any("left out, of classes that the model does not have: seven" in note for note in report.notes)


def test_strange_classes_of_the_test_part_are_left_out(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "set", {1: "1", 2: "2"})
    write_digits(tmp_path / "more", {0: "0"})
    (tmp_path / "more" / "test" / "0").rename(root / "test" / "0")
    reference = open_reference(model_of(None, 8), DataConfig(source=str(root)))
    assert reference.test_labels is not None
    assert reference.train.info.class_names == reference.test.info.class_names == ("1", "2")
    assert set(reference.test_labels.tolist()) == {0, 1}
    assert any("classes that training images don't have: 0" in note for note in reference.notes)
    reference.close()


def test_a_model_of_some_classes_is_compared_with_those(tmp_path: Path) -> None:
    config = tiny_run("vae", steps=3)
    config = config.model_copy(update={"data": DataConfig(source="digits", only=("3", "8"))})
    train(config, tmp_path / "run", progress=False, tensorboard=False)
    assert run(["export", str(tmp_path / "run"), "-o", str(tmp_path / "some.gsdk")]) == 0
    report = measured(str(tmp_path / "some.gsdk"), "digits", 50)
    labels = digits("train").labels
    assert labels is not None
    assert report.train_count == int(np.isin(labels, [3, 8]).sum())
    assert report.test_count < 100


def test_samples_get_their_classes_as_the_floor_has_them() -> None:
    train_part = digits("train")
    drawn = label_draw(model_of(tuple("9876543210")), train_part)
    labels = drawn.of_data(200, 5)
    assert labels is not None
    assert train_part.labels is not None
    np.testing.assert_array_equal(labels, train_part.labels[chosen_of(train_part, 200, 5)])
    assert drawn.for_model(200, 5) == [9 - label for label in labels]
    many = drawn.of_data(3 * len(train_part), 0)
    assert many is not None
    np.testing.assert_array_equal(np.bincount(many), 3 * np.bincount(train_part.labels))
    assert "in the shares of the training images" in measured("digits-dcgan", "digits", 60).labels


@pytest.mark.parametrize(("names", "why"), [({4: "4"}, "a single class"), ({4: "."}, "no labels")])
def test_data_that_teach_a_classifier_nothing_give_no_distance(
    names: dict[int, str], why: str, tmp_path: Path
) -> None:
    root = write_digits(tmp_path / "set", names)
    with pytest.raises(InputError, match=rf"{why}.*--extractor"):
        measured("digits-vae", root, 40)


def test_a_classifier_of_meaningless_labels_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = np.concatenate([digits("train").images, digits("test").images])[..., 0]
    np.savez(tmp_path / "some.npz", images=images, labels=random.integers(0, 4, len(images)))
    with pytest.raises(InputError, match=r"does not know the classes.*--extractor"):
        measured("digits-vae", tmp_path / "some.npz", 60, holdout=0.2)


class Mean(Extractor):
    """Tells pictures apart by `what` of their pixels alone."""

    name, resizing, feature_count = "mean", "none", 1

    def __init__(self, what: Callable[[np.ndarray], np.ndarray]) -> None:
        self.what = what

    def read(self, images: np.ndarray) -> Reading:
        return Reading(self.what(images.reshape(len(images), -1).astype(np.float64))[:, None], None)


def test_noise_is_never_as_good_as_the_data() -> None:
    """A classifier of the digits tells noise from them; features that noise has alike are found out."""
    train_part, test = digits("train"), digits("test")
    probe = train_part.images[:256]
    data = LabelledImages.of(train_part)
    good = ClassifierExtractor(train_classifier(data, ClassifierSettings(steps=200)))
    assert not why_it_cant_tell(good, test.images, probe, test.labels)
    assert "the same features" in why_it_cant_tell(Mean(lambda x: 0 * x[:, 0] + 3), test.images, probe, None)
    assert "noise from the data" in why_it_cant_tell(Mean(lambda x: x[:, 5] % 2), test.images, probe, None)
