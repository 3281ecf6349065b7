"""An extractor from an ONNX file is the network it came from, in every layout and range."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.data.dataset import Images
from gensdk_training.metrics.classifier import (
    ClassifierSettings,
    ImageClassifier,
    LabelledImages,
    train_classifier,
)
from gensdk_training.metrics.extractor import ClassifierExtractor, ExtractorOptions, OnnxExtractor


@cache
def classifier() -> ImageClassifier:
    return train_classifier(LabelledImages.of(load_data("digits")), ClassifierSettings(steps=20))


def images(count: int = 70, side: int = 8, channels: int = 1) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def exported(folder: Path, **options: Any) -> Path:
    path = folder / "classifier.onnx"
    torch.onnx.export(
        classifier().network.eval(),
        (torch.zeros(2, 1, 8, 8),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["images"],
        output_names=["features", "logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        **options,
    )
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return exported(tmp_path_factory.mktemp("extractor"))


def flattening(path: Path, shape: tuple[Any, ...], *, value: float | None = None) -> Path:
    """A file that gives its input back, or a constant added to it."""
    weights = [numpy_helper.from_array(np.array(value or 0.0, np.float32), "w")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_an_onnx_file_equals_the_classifier_that_it_was_exported_from(file: Path) -> None:
    own = ClassifierExtractor(classifier())
    theirs = OnnxExtractor(
        file, (8, 8, 1), ExtractorOptions(value_range=(-1.0, 1.0), output="features", logits="logits")
    )
    expected, got = own.read(images()), theirs.read(images())
    np.testing.assert_allclose(got.features, expected.features, atol=1e-4)
    assert expected.logits is not None
    assert got.logits is not None
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-4)
    assert theirs.feature_count == own.feature_count == 64
    assert (theirs.resizing, own.resizing) == ("none", "none")
    assert "classifier.onnx (ONNX, sha256 " in theirs.name
    assert "sha256 " in own.name


def test_layouts_ranges_and_normalization(tmp_path: Path) -> None:
    pixels = images(5, channels=3)
    first = OnnxExtractor(flattening(tmp_path / "a.onnx", ("n", 3, 8, 8)), (8, 8, 3))
    last = OnnxExtractor(flattening(tmp_path / "b.onnx", ("n", 8, 8, 3)), (8, 8, 3))
    scaled = pixels / 255.0
    np.testing.assert_allclose(last.read(pixels).features, scaled.reshape(5, -1), atol=1e-6)
    np.testing.assert_allclose(first.read(pixels).features, scaled.transpose(0, 3, 1, 2).reshape(5, -1), atol=1e-6)
    options = ExtractorOptions(value_range=(0.0, 255.0), mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 4.0), layout="nhwc")
    normal = OnnxExtractor(tmp_path / "b.onnx", (8, 8, 3), options)
    expected = (pixels.astype(float) - [1.0, 2.0, 3.0]) / [2.0, 2.0, 4.0]
    np.testing.assert_allclose(normal.read(pixels).features, expected.reshape(5, -1), rtol=1e-5, atol=1e-4)


def test_a_fixed_batch_size_and_channels_are_met(tmp_path: Path) -> None:
    extractor = OnnxExtractor(flattening(tmp_path / "a.onnx", (4, 3, 6, 6)), (8, 8, 1))
    assert extractor.resizing == "8x8 to 6x6, area"
    features = extractor.read(images(7)).features
    assert features.shape == (7, 108)
    grey = features.reshape(7, 3, 36)
    np.testing.assert_array_equal(grey[:, 0], grey[:, 2])
    one = np.concatenate([extractor.read(images(7)[i : i + 1]).features for i in range(7)])
    np.testing.assert_array_equal(features, one)


def test_a_size_is_made_where_the_file_leaves_it_open(tmp_path: Path) -> None:
    path = flattening(tmp_path / "a.onnx", ("n", 1, "h", "w"))
    assert OnnxExtractor(path, (8, 8, 1)).feature_count == 64
    larger = OnnxExtractor(path, (8, 8, 1), ExtractorOptions(size=(12, 10)))
    assert (larger.feature_count, larger.resizing) == (120, "8x8 to 12x10, bicubic")


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (("n", 64), {}, "4 axes"),
        ((1, 5, 6, 7), {}, "1, 3 or 4 channels"),
        (("n", 1, 8, 8), {"size": (9, 9)}, "leave the size out"),
        (("n", 1, "h", "w"), {"size": (9000, 9)}, "4096"),
        (("n", 1, "h", "w"), {"size": (128, 128)}, "features"),
        (("n", 1, 8, 8), {"std": (0.0,)}, "std"),
        (("n", 1, 8, 8), {"mean": (0.0, 1.0)}, "mean"),
        (("n", 1, 8, 8), {"mean": (float("nan"),)}, "mean"),
        (("n", 1, 8, 8), {"value_range": (1.0, 0.0)}, "range"),
        (("n", 1, 8, 8), {"output": "yy"}, "did you mean 'y'"),
        (("n", 1, 8, 8), {"logits": "z"}, "no output 'z'"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[Any, ...], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        OnnxExtractor(flattening(tmp_path / "a.onnx", shape), (8, 8, 1), ExtractorOptions(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08" * 64, None])
def test_files_that_are_no_model_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError):
        OnnxExtractor(path, (8, 8, 1))


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    path = flattening(tmp_path / "a.onnx", ("n", 1, 8, 8))
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="one file"):
        OnnxExtractor(path, (8, 8, 1))


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        OnnxExtractor(flattening(tmp_path / "a.onnx", ("n", 1, 8, 8), value=float("inf")), (8, 8, 1))
