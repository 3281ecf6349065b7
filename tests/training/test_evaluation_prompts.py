"""Models that are made from texts are drawn from captions of the test part, and ranked with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk.cli.main import run as run_cli
from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.data.load import load_data
from gensdk_training.evaluation import evaluate as evaluate_module
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.evaluation.labels import LabelDraw
from gensdk_training.evaluation.prompts import PromptDraw
from gensdk_training.evaluation.subject import open_reference
from gensdk_training.metrics.classifier import ClassifierSettings
from gensdk_training.metrics.matcher import MatcherSettings
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig
from support.captions import HOLDOUT, captioned_digits_file
from support.tiny import tiny_run


@pytest.fixture(autouse=True)
def _quick_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "CLASSIFIER", ClassifierSettings(steps=100))
    monkeypatch.setattr(evaluate_module, "MATCHER", MatcherSettings(steps=60))


def data(**changes: Any) -> DataConfig:
    given = {"source": str(captioned_digits_file()), "captions": "captions", "holdout": HOLDOUT, **changes}
    return DataConfig.from_dict(given, what="data")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    asked = tiny_run("text2image", steps=5).model_copy(update={"data": data()})
    train(asked, folder / "run", progress=False, tensorboard=False)
    export_run(folder / "run", folder / "told.gsdk", ExportOptions())
    return folder / "told.gsdk"


def test_samples_are_ranked_beside_real_images_and_wrong_captions(bundle: Path) -> None:
    found = evaluate(
        str(bundle), str(captioned_digits_file()), count=90, metrics=("r_precision", "labels"), progress=False
    ).report
    first, rank = found.measure("r_precision"), found.measure("r_rank")
    assert found.measure("labels").value < 0.6
    assert first.floor is not None
    assert rank.floor is not None
    assert first.baseline == pytest.approx(1 / 32, abs=0.03)
    assert rank.baseline == pytest.approx(16.5, abs=2.5)
    assert first.floor > 0.06
    assert rank.floor < 13
    assert 0 <= first.value <= 1
    assert 1 <= rank.value <= 32
    assert (first.better, rank.better) == ("higher", "lower")
    assert "of 32 captions of test images" in first.detail
    assert found.labels.startswith("those of the 80 test images, whose captions")


def test_samples_are_made_from_captions_of_the_test_part(bundle: Path) -> None:
    test = load_data(str(captioned_digits_file()), captions="captions", holdout=HOLDOUT, split="test")
    assert test.captions is not None
    assert test.labels is not None
    with Generator.load(bundle) as generator:
        reference = open_reference(generator.model, data())
    asked = reference.asked(200, 3)
    assert asked["label"] is None
    assert sorted(asked["prompt"][:80]) == sorted(test.captions.texts)
    assert asked["prompt"][80:160] == asked["prompt"][:80]
    labels = reference.asked_labels(80, 3)
    assert labels is not None
    pairs = sorted(zip(asked["prompt"], labels.tolist(), strict=False))
    assert pairs == sorted(zip(test.captions.texts, test.labels.tolist(), strict=True))


def test_a_draw_goes_through_all_texts_in_turn() -> None:
    draw = PromptDraw(("b", "a", "b"), np.array([4, 5, 6]))
    assert draw.different == ("a", "b")
    assert sorted(draw.places(3, 0).tolist()) == [0, 1, 2]
    places = draw.places(7, 1)
    assert draw.prompts(7, 1) == [draw.texts[place] for place in places]
    np.testing.assert_array_equal(draw.classes(7, 1), np.array([4, 5, 6])[places])
    assert PromptDraw(("a",), None).classes(2, 0) is None


def test_a_model_of_classes_is_asked_for_those_of_the_images_whose_captions_it_gets() -> None:
    labels = np.array([0, 1, 1])
    named = LabelDraw(np.array([0, 1]), np.array([2, 0]), 3, "")
    assert named.in_model(labels) == [2, 0, 0]
    assert LabelDraw(None, np.array([0, 1]), 2, "").in_model(labels) == [0, 1, 0]
    assert LabelDraw(None, np.array([0, 1]), None, "").in_model(labels) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": None}, "can't measure r_precision: the data have no captions; give --captions"),
        ({"holdout": 0.05}, "it ranks 32 different captions, and the test images have 1"),
    ],
)
def test_what_can_not_be_ranked_is_refused_in_one_line(bundle: Path, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        evaluate(str(bundle), "x", data=data(**changes), count=10, metrics=("r_precision",), progress=False)
    assert "\n" not in str(failure.value)


def test_a_model_that_is_told_no_text_has_no_r_precision() -> None:
    with pytest.raises(InputError, match=r"can't measure r_precision: .* is made from no texts"):
        evaluate("digits-dcgan", "digits", count=10, metrics=("r_precision",), progress=False)


def test_a_command_line_takes_captions_as_in_training_or_none(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "evaluate",
        str(bundle),
        "--data",
        str(captioned_digits_file()),
        "-n",
        "40",
        "--metrics",
        "memorization",
    ]
    assert run_cli([*asked, "--captions", "none", "--no-progress"]) == 0
    assert "every sample is made from the empty text" in capsys.readouterr().out
    assert run_cli([*asked[:-1], "r_precision", "--captions", "none", "--no-progress"]) == 5
    assert "the data have no captions; give --captions" in capsys.readouterr().err
