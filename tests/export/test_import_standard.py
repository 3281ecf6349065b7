"""Imported graphs give what the ONNX standard says, where converters and optimizers do not.

The expected values come from ONNX's own reference, or from the formula, never from ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from gensdk_export.importers.import_report import ImportReport
from gensdk_export.importers.onnx.import_onnx import import_onnx
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_runtime.errors import ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from support.onnx_models import FLOAT, conv, convolution, write_onnx

SIDE = 16
node = helper.make_node


def chain(path: Path, nodes: list[Any], weights: dict[str, np.ndarray], *, opset: int, free: bool = True) -> Path:
    """`nodes` from ``x`` to ``z``, and a sigmoid at the end."""
    sides = ["h", "w"] if free else [SIDE, SIDE]
    return write_onnx(
        path,
        [*nodes, node("Sigmoid", ["z"], ["y"])],
        [("x", FLOAT, ["n" if free else 1, 3, *sides])],
        [("y", FLOAT, ["n" if free else 1, 3, *(["H", "W"] if free else [None, None])])],
        weights,
        opset=opset,
    )


def imported(path: Path) -> tuple[ImportReport, np.ndarray, np.ndarray]:
    """The report; images [2, 3, H, W] in [0, 1] of different brightness, and what the bundle makes of them."""
    report = import_onnx(path, path.parent / "out.gsdk", OnnxOptions(size=(SIDE, SIDE)))
    assert verify_bundle(path.parent / "out.gsdk", backend="onnxruntime").ok
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    pixels[1] //= 3
    with Generator.load(path.parent / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        result = generator.sample(image=pixels).array
    return report, pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255), result


def by_standard(path: Path, images: np.ndarray) -> np.ndarray:
    reference = ReferenceEvaluator(onnx.load(str(path)))
    return np.concatenate([reference.run(None, {"x": image[None]})[0] for image in images])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


STATISTICS = {
    "s": np.array([1.0, 0.7, 1.3], np.float32),
    "b": np.array([0.1, 0.0, -0.2], np.float32),
    "m": np.full(3, 5, np.float32),
    "v": np.ones(3, np.float32),
}


@pytest.mark.parametrize("opset", [9, 15])
def test_a_normalization_that_trains_takes_the_statistics_of_its_image(opset: int, tmp_path: Path) -> None:
    """ONNX Runtime's fusion of it with the convolution takes the stored ones: 0.15 off, once allowed."""
    more: dict[str, Any] = {"training_mode": 1} if opset >= 14 else {}
    outputs = ["z", "rm", "rv"] if opset >= 14 else ["z", "rm", "rv", "sm", "sv"]
    nodes = [conv("x", "a"), node("BatchNormalization", ["a", "s", "b", "m", "v"], outputs, epsilon=1e-3, **more)]
    path = chain(tmp_path / "trains.onnx", nodes, {**convolution(), **STATISTICS}, opset=opset)
    report, images, result = imported(path)
    np.testing.assert_allclose(result, np.concatenate([of_one_image(image) for image in images]), atol=1e-5)
    told = {guess.what: guess for guess in report.guesses}
    assert "training mode" in told["normalization"].reason
    assert told["largest batch"].value == "1"
    assert "allowed drift" not in told


def of_one_image(image: np.ndarray) -> np.ndarray:
    """(a - mean) / sqrt(variance + epsilon) over the image, by hand."""
    weights = convolution()
    session = ReferenceEvaluator(
        helper.make_model(
            helper.make_graph(
                [conv("x", "a")],
                "g",
                [helper.make_tensor_value_info("x", FLOAT, None)],
                [helper.make_tensor_value_info("a", FLOAT, None)],
                [numpy_helper.from_array(value, name) for name, value in weights.items()],
            )
        )
    )
    a = session.run(None, {"x": image[None]})[0]
    mean, variance = a.mean(axis=(0, 2, 3), keepdims=True), a.var(axis=(0, 2, 3), keepdims=True)
    scale, shift = (STATISTICS[name][None, :, None, None] for name in "sb")
    return np.asarray(sigmoid((a - mean) / np.sqrt(variance + 1e-3) * scale + shift), np.float32)


def test_dropout_that_trains_is_random(tmp_path: Path) -> None:
    weights = {**convolution(), "r": np.asarray(0.5, np.float32), "t": np.asarray(True)}
    nodes = [conv("x", "a"), node("Dropout", ["a", "r", "t"], ["z"])]
    with pytest.raises(ExportError, match="random"):
        import_onnx(chain(tmp_path / "m.onnx", nodes, weights, opset=13), tmp_path / "out.gsdk")
    chain(tmp_path / "m.onnx", nodes, {**weights, "t": np.asarray(False)}, opset=13)
    import_onnx(tmp_path / "m.onnx", tmp_path / "out.gsdk", OnnxOptions(size=(SIDE, SIDE)))


def placed(a: np.ndarray, scale: int, mode: str) -> np.ndarray:
    """[C, H, W] enlarged as before opset 11: pixel i lies at i / scale; the nearest is the one before."""
    for axis in (1, 2):
        at = np.arange(a.shape[axis] * scale) / scale
        low = at.astype(int)
        high = np.minimum(low + 1, a.shape[axis] - 1)
        part = (at - low) if mode == "linear" else np.zeros_like(at)
        part = part.reshape([-1 if each == axis else 1 for each in range(3)])
        a = np.take(a, low, axis) * (1 - part) + np.take(a, high, axis) * part
    return a


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(
    ("operator", "opset", "scale"), [("Upsample", 7, 2), ("Upsample", 9, 3), ("Resize", 10, 2)]
)
def test_pixels_lie_where_they_lay_before_opset_11(
    operator: str, opset: int, scale: int, mode: str, tmp_path: Path
) -> None:
    """onnx's converter forgets where they lay: 0.14 off for linear, as the file was refused."""
    scales = [1.0, 1.0, float(scale), float(scale)]
    if opset < 9:
        nodes, weights = [node(operator, ["x"], ["z"], mode=mode, scales=scales)], {}
    else:
        nodes = [node(operator, ["x", "scales"], ["z"], mode=mode)]
        weights = {"scales": np.array(scales, np.float32)}
    report, images, result = imported(chain(tmp_path / "old.onnx", nodes, weights, opset=opset))
    assert {guess.what: guess.value for guess in report.guesses}["operators"] == "opset 13"
    expected = sigmoid(np.stack([placed(image.astype(np.float64), scale, mode) for image in images]))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_smaller_image_keeps_the_pixels_that_onnx_runtime_took(tmp_path: Path) -> None:
    weights = {"down": np.array([1, 1, 0.5, 0.5], np.float32), "up": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        node("Conv", ["x", "weight", "bias"], ["a"], pads=[1] * 4),
        node("Resize", ["a", "down"], ["small"], mode="nearest"),
        node("Resize", ["small", "up"], ["z"], mode="linear"),
    ]
    path = chain(tmp_path / "old.onnx", nodes, {**convolution(), **weights}, opset=10)
    report, _, _ = imported(path)
    assert {guess.what: guess.value for guess in report.guesses}["operators"] == "opset 13"
    assert report.export.rows[0].drift.scaled < 1e-6


RESIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "cubic": (11, {"mode": "cubic", "coordinate_transformation_mode": "align_corners"}),
    "excluding": (13, {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}),
    "nearest": (11, {"mode": "nearest", "nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"}),
    "antialias": (18, {"mode": "linear", "antialias": 1}),
}


@pytest.mark.parametrize("name", RESIZES)
def test_resizes_of_all_kinds(name: str, tmp_path: Path) -> None:
    opset, attributes = RESIZES[name]
    scales = {"down": np.array([1, 1, 0.5, 0.5], np.float32), "up": np.array([1, 1, 2, 2], np.float32)}
    scales["roi"] = np.zeros(0, np.float32)
    nodes = [
        conv("x", "a"),
        node("Resize", ["a", "roi", "down"], ["small"], **attributes),
        node("Resize", ["small", "roi", "up"], ["z"], mode="linear"),
    ]
    path = chain(tmp_path / "m.onnx", nodes, {**convolution(), **scales}, opset=opset)
    _, images, result = imported(path)
    np.testing.assert_allclose(result, by_standard(path, images), atol=2e-6)


def test_old_operators_keep_their_meaning(tmp_path: Path) -> None:
    """All of them in one file of opset 9, whose attributes became inputs, or changed their meaning."""
    weights = {**convolution(), "slope": np.array([0.1], np.float32), "s": STATISTICS["s"], "b": STATISTICS["b"]}
    nodes = [
        node("Pad", ["x"], ["p"], mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        node("Conv", ["p", "weight", "bias"], ["c"]),
        node("InstanceNormalization", ["c", "s", "b"], ["i"], epsilon=0.1),
        node("PRelu", ["i", "slope"], ["r"]),
        node("AveragePool", ["r"], ["v"], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0),
        node("Dropout", ["v"], ["d"], ratio=0.5),
        node("Clip", ["d"], ["z"], min=-0.2, max=0.3),
    ]
    path = chain(tmp_path / "old.onnx", nodes, weights, opset=9)
    _, images, result = imported(path)
    np.testing.assert_allclose(result, by_standard(path, images), atol=2e-6)


def test_softmax_before_opset_13_is_over_all_axes_from_its_own_on(tmp_path: Path) -> None:
    path = chain(tmp_path / "old.onnx", [node("Softmax", ["x"], ["z"], axis=1)], {}, opset=9)
    _, images, result = imported(path)
    flat = np.exp(images.reshape(2, -1).astype(np.float64))
    expected = sigmoid((flat / flat.sum(axis=1, keepdims=True)).reshape(images.shape))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_statistics_of_each_place_stay_as_they_are(tmp_path: Path) -> None:
    """``spatial=0`` is gone since opset 9, so such a file can't be converted, and runs as it is."""
    generator = np.random.default_rng(3)
    shape = (3, SIDE, SIDE)
    weights = {name: generator.uniform(0.5, 1.5, shape).astype(np.float32) for name in "sbmv"}
    nodes = [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["z"], spatial=0)]
    _, images, result = imported(chain(tmp_path / "old.onnx", nodes, weights, opset=7, free=False))
    expected = (images - weights["m"]) / np.sqrt(weights["v"] + 1e-5) * weights["s"] + weights["b"]
    np.testing.assert_allclose(result, sigmoid(expected), atol=1e-5)


def test_a_group_normalization_of_the_withdrawn_form(tmp_path: Path) -> None:
    weights = {"s": np.array([0.8], np.float32), "b": np.array([0.1], np.float32)}
    nodes = [node("GroupNormalization", ["x", "s", "b"], ["z"], num_groups=1)]
    path = chain(tmp_path / "m.onnx", nodes, weights, opset=18)
    report, images, result = imported(path)
    mean, variance = (getattr(images, of)(axis=(1, 2, 3), keepdims=True) for of in ("mean", "var"))
    np.testing.assert_allclose(result, sigmoid((images - mean) / np.sqrt(variance + 1e-5) * 0.8 + 0.1), atol=1e-5)
    assert {guess.what: guess.value for guess in report.guesses}["operators"] == "opset 21"
