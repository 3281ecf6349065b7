"""Operators of classifiers in PyTorch, one graph each, against ONNX Runtime; and graphs that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from gensdk_export.importers.classifier import network as onnx_network
from gensdk_export.importers.classifier.dream_plan import DreamOptions, classifier_plan
from gensdk_export.importers.classifier.network import read_graph
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_runtime.errors import ExportError, GensdkError
from support.classifiers import classifier, write_classifier
from support.onnx_models import FLOAT, conv, convolution, write_onnx

SHAPE = (2, 4, 9, 12)
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((6, 4, 3, 3)).astype(np.float32)
INT = np.int64
Case = tuple[str, dict[str, np.ndarray], dict[str, Any], int]


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, INT)


def floats(*shape: int) -> np.ndarray:
    return (RANDOM.random(shape) + 0.5).astype(np.float32)


CASES: list[Case] = [
    ("Conv", {"w": WEIGHT}, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, 17),
    ("Conv", {"w": WEIGHT}, {"auto_pad": "SAME_LOWER", "strides": [2, 3]}, 17),
    ("Conv", {"w": WEIGHT}, {"auto_pad": "VALID", "strides": [2, 3]}, 17),
    ("Conv", {"w": WEIGHT[:, :2], "b": floats(6)}, {"group": 2, "pads": [0, 1, 2, 1], "dilations": [1, 2]}, 17),
    ("Conv", {"w": WEIGHT[:4, :1]}, {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]}, 11),
    ("BatchNormalization", {k: floats(4) for k in "sbmv"}, {"epsilon": 1e-3}, 15),
    ("MaxPool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 12),
    ("MaxPool", {}, {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, 12),
    ("MaxPool", {}, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 12),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 0]}, 11),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 11),
    ("AveragePool", {}, {"kernel_shape": [2, 2], "pads": [0, 0, 1, 0], "count_include_pad": 1}, 11),
    ("AveragePool", {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 11),
    ("AveragePool", {}, {"kernel_shape": [9, 12]}, 11),
    ("GlobalMaxPool", {}, {}, 13),
    ("LRN", {}, {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}, 13),
    ("PRelu", {"slope": floats(4, 1, 1)}, {}, 16),
    ("Elu", {}, {"alpha": 0.7}, 13),
    ("Clip", {"low": np.float32(-0.5), "high": np.float32(0.3)}, {}, 13),
    ("Clip", {"low": np.float32(-0.5)}, {}, 13),
    ("Clip", {}, {"min": -0.1, "max": 0.9}, 6),
    ("HardSigmoid", {}, {"alpha": 0.3}, 13),
    ("Gelu", {}, {"approximate": "tanh"}, 20),
    ("Softplus", {}, {}, 13),
    ("Softmax", {}, {"axis": 1}, 11),
    ("LogSoftmax", {}, {"axis": 1}, 13),
    ("Pow", {"two": np.float32(2)}, {}, 13),
    ("ReduceMean", {}, {"axes": [2, 3], "keepdims": 0}, 13),
    ("ReduceMean", {"axes": ints(-1, -2)}, {}, 18),
    ("ReduceSum", {"axes": ints(2)}, {"keepdims": 0}, 13),
    ("Reshape", {"to": ints(0, 2, -1, 12)}, {}, 13),
    ("Flatten", {}, {"axis": 1}, 13),
    ("Unsqueeze", {"axes": ints(1, -1)}, {}, 13),
    ("Unsqueeze", {}, {"axes": [1]}, 11),
    ("Transpose", {}, {"perm": [0, 2, 3, 1]}, 13),
    ("Slice", {"from": ints(1, 2), "to": ints(3, 100), "axes": ints(1, 3), "by": ints(1, 2)}, {}, 13),
    ("Gather", {"places": ints(2, 1, 0)}, {"axis": 1}, 13),
    ("Gather", {"places": np.array(-1, INT)}, {"axis": 1}, 13),
    ("Pad", {"by": ints(0, 0, 1, 2, 0, 1, 0, 3), "with": np.float32(0.5)}, {}, 13),
    ("MatMul", {"m": floats(12, 5)}, {}, 13),
    ("Sub", {"c": floats(1, 4, 1, 1)}, {}, 13),
    ("Cast", {}, {"to": 1}, 13),
]  # fmt: skip


def file_of(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], opset: int, shape: Any = SHAPE
) -> OnnxFile:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return OnnxFile(Path("one.onnx"), model.SerializeToString(), model, (), (), ())


def both(file: OnnxFile) -> tuple[np.ndarray, np.ndarray]:
    """What PyTorch makes of it, and ONNX Runtime."""
    images = RANDOM.standard_normal(SHAPE).astype(np.float32)
    network = read_graph(file, "x", SHAPE, ["y"]).below("y")
    session = onnxruntime.InferenceSession(file.data, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        return network(torch.from_numpy(images)).numpy(), session.run(["y"], {"x": images})[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[2].values()))}"[:50])
def test_an_operator_is_that_of_onnx_runtime(case: Case) -> None:
    op, weights, attributes, opset = case
    inputs = ["x", *weights]
    if op == "Clip" and list(weights) == ["high"]:
        inputs = ["x", "", "high"]
    found, expected = both(file_of([helper.make_node(op, inputs, ["y"], **attributes)], weights, opset))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_channels_are_shuffled_with_sizes_that_are_computed() -> None:
    """As PyTorch exports a view of half as many channels: Shape, Gather, Concat, Reshape; and parts of Split."""
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["s"]),
        make("Gather", ["s", "zero"], ["n"], axis=0),
        make("Gather", ["s", "three"], ["w"], axis=0),
        make("Unsqueeze", ["n", "axes"], ["n1"]),
        make("Unsqueeze", ["w", "axes"], ["w1"]),
        make("Mul", ["w1", "nine"], ["hw"]),
        make("Concat", ["n1", "two", "two", "hw"], ["to"], axis=0),
        make("Reshape", ["x", "to"], ["grouped"]),
        make("Transpose", ["grouped"], ["swapped"], perm=[0, 2, 1, 3]),
        make("Split", ["swapped", "parts"], ["a", "b"], axis=1),
        make("Concat", ["b", "a"], ["y"], axis=1),
    ]
    weights = {"zero": np.array(0, INT), "three": np.array(3, INT), "axes": ints(0), "nine": ints(9)}
    found, expected = both(file_of(nodes, {**weights, "two": ints(2), "parts": ints(1, 1)}, 13))
    np.testing.assert_array_equal(found, expected)


def test_constants_fold() -> None:
    """Weights that are computed from constants alone, as converters leave them behind."""
    make = helper.make_node
    nodes = [
        make("Constant", [], ["c"], value_float=2.0),
        make("Transpose", ["m"], ["t"], perm=[1, 0]),
        make("Mul", ["t", "c"], ["m2"]),
        make("GlobalAveragePool", ["x"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "m2", "b"], ["y"], alpha=0.5, beta=2.0),
    ]
    found, expected = both(file_of(nodes, {"m": floats(5, 4), "b": floats(5)}, 13))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def refused(file: OnnxFile) -> str:
    with pytest.raises(ExportError) as caught:
        read_graph(file, "x", SHAPE, ["y"])
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    make = helper.make_node
    for node, weights, message in (
        (make("Resize", ["x"], ["y"], name="up"), {}, "operator Resize ('up') is not known"),
        (make("Conv", ["x", "x"], ["y"]), {}, "computed from the image"),
        (make("Conv", ["x", "w"], ["y"]), {"w": np.full_like(WEIGHT, np.nan)}, "weight 'w' is NaN"),
        (make("Conv", ["x", "w"], ["y"]), {"w": WEIGHT[:, :3]}, "don't fit"),
        (make("Conv", ["x", "w"], ["y"], pads=[10**9] * 4), {"w": WEIGHT}, "four pads of 0 to"),
        (make("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]), {}, "dilation"),
        (make("MaxPool", ["x"], ["y"], kernel_shape=[40, 40]), {}, "a window of at most"),
        (make("Pad", ["x", "by"], ["y"], mode="reflect"), {"by": ints(*[0] * 8)}, "expected mode constant"),
        (make("Flatten", ["x"], ["y"], axis=2), {}, "mix the images"),
        (make("Reshape", ["x", "to"], ["y"]), {"to": ints(0, 5, -1)}, "operator Reshape"),
        (make("Cast", ["x"], ["y"], to=helper.TensorProto.INT64), {}, "no gradient"),
        (make("Add", ["x", "z"], ["y"]), {}, "it needs 'z' too"),
        (make("Sqrt", ["w"], ["y"]), {"w": floats(2)}, "does not depend on the image"),
        (make("Add", ["x", "w"], ["y"]), {"w": floats(400_000, 1, 1, 1, 1)}, "elements"),
    ):  # fmt: skip
        assert message in refused(file_of([node], weights, 13))
    monkeypatch.setattr(onnx_network, "MAX_NODES", 0)
    assert "at most 0 nodes" in refused(file_of([make("Relu", ["x"], ["y"])], {}, 13))


def test_models_of_another_kind_are_refused(tmp_path: Path) -> None:
    axes = ["n", 3, 16, 16]
    translation = write_onnx(
        tmp_path / "image.onnx", [conv("x", "y")], [("x", FLOAT, axes)], [("y", FLOAT, axes)], convolution()
    )
    noise = write_onnx(
        tmp_path / "noise.onnx",
        [helper.make_node("Relu", ["z"], ["y"])],
        [("z", FLOAT, ["n", 8])],
        [("y", FLOAT, ["n", 8])],
    )
    grey = write_classifier(
        tmp_path / "grey.onnx", torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), 16, channels=1
    )
    vgg = write_classifier(tmp_path / "vgg.onnx", classifier("vgg"), 32)
    for path, options, dream, message in (
        (translation, None, None, "is an image; leave --dream out"),
        (noise, None, None, "leave --dream out"),
        (grey, None, DreamOptions(bgr=True), "order of three channels"),
        (vgg, OnnxOptions(output="other"), None, "no output 'other'"),
        (vgg, None, DreamOptions(layers=("head_Gemm",)), "no layer 'head_Gemm'"),
        (vgg, None, DreamOptions(mean=(float("nan"),)), "--mean"),
    ):
        with pytest.raises(GensdkError) as caught:
            classifier_plan(path, options, dream)
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
