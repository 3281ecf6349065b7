"""Translation models of one small graph each, by what they do to places: what tiles leave alone, and the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import HEIGHT, RESULT_HEIGHT, RESULT_WIDTH, WIDTH, GraphSpec, TensorSpec

GRAPH = "translator"


class Drawing:
    """Nodes and weights of a graph from ``source`` [batch, 3, H, W] to ``image``."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._generator = np.random.default_rng(0)

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0]

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def random(self, *shape: int) -> str:
        return self.constant(self._generator.standard_normal(shape) / max(1.0, np.sqrt(np.prod(shape[1:]))))

    def conv(self, x: str, channels: int = 3, outputs: int = 3, kernel: int = 3, **attributes: Any) -> str:
        given = {"pads": [kernel // 2] * 4, **attributes}
        return self.add("Conv", x, self.random(outputs, channels, kernel, kernel), **given)


Draw = Callable[[Drawing, str], str]


def _strided(d: Drawing, x: str) -> str:
    x = d.conv(x, 3, 4, strides=[2, 2])
    return d.add("ConvTranspose", d.add("Relu", x), d.random(4, 3, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1])


def _sizes_of_a_skip(d: Drawing, x: str) -> str:
    small = d.add("MaxPool", d.conv(x), kernel_shape=[2, 2], strides=[2, 2])
    sizes = d.add("Concat", d.ints(1, 3), d.add("Slice", d.add("Shape", x), d.ints(2), d.ints(4)), axis=0)
    grown = d.add("Resize", d.conv(small), "", "", sizes, mode="nearest")
    return d.add("Add", grown, d.conv(x))


def _pooled_and_linear(d: Drawing, x: str) -> str:
    small = d.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return d.add("Resize", d.conv(small), "", d.constant([1, 1, 2, 2]), mode="linear")


def _pixel_shuffle(d: Drawing, x: str) -> str:
    """As PyTorch writes it out: reshape, transpose, reshape."""
    shape = d.add("Shape", x)
    side = [d.add("Gather", shape, d.ints(axis)) for axis in (2, 3)]
    wide = d.conv(d.add("SpaceToDepth", x, blocksize=2), 12, 12)
    half = [d.add("Div", each, d.ints(2)) for each in side]
    parted = d.add("Concat", d.ints(1, 3, 2, 2), *half, axis=0)
    turned = d.add("Transpose", d.add("Reshape", wide, parted), perm=[0, 1, 4, 2, 5, 3])
    return d.add("Reshape", turned, d.add("Concat", d.ints(1, 3), *side, axis=0))


def _per_pixel(d: Drawing, x: str) -> str:
    """Channels last, flattened to a list of pixels, as exports of TensorFlow and of transformers have it."""
    shape = d.add("Shape", x)
    flat = d.add("Reshape", d.add("Transpose", x, perm=[0, 2, 3, 1]), d.ints(1, -1, 3))
    hidden = d.add("Softmax", d.add("MatMul", flat, d.random(3, 3)), axis=-1)
    back = d.add("Transpose", hidden, perm=[0, 2, 1])
    return d.conv(d.add("Reshape", back, shape))


def _windows(d: Drawing, x: str) -> str:
    """A softmax within windows of 4 x 4 pixels, as windowed attention has it."""
    sides = [d.add("Div", d.add("Gather", d.add("Shape", x), d.ints(axis)), d.ints(4)) for axis in (2, 3)]
    parted = d.add("Concat", d.ints(1, 3), sides[0], d.ints(4), sides[1], d.ints(4), axis=0)
    windows = d.add("Transpose", d.add("Reshape", x, parted), perm=[0, 1, 2, 4, 3, 5])
    flat = d.add("Reshape", windows, d.add("Concat", d.ints(1, 3), *sides, d.ints(16), axis=0))
    weighed = d.add("Softmax", flat, axis=-1)
    again = d.add("Reshape", weighed, d.add("Concat", d.ints(1, 3), *sides, d.ints(4, 4), axis=0))
    return d.add("Reshape", d.add("Transpose", again, perm=[0, 1, 2, 4, 3, 5]), d.add("Shape", x))


def _mirrored(d: Drawing, x: str) -> str:
    padded = d.add("Pad", x, d.ints(0, 0, 3, 3, 0, 0, 3, 3), mode="reflect")
    return d.add("Conv", padded, d.random(3, 3, 7, 7))


def padded_to_eight(d: Drawing, x: str) -> str:
    """Mirrored up to a multiple of 8 pixels, although one stride of 2 is all that follows; then cut back."""
    sides = d.add("Slice", d.add("Shape", x), d.ints(2), d.ints(4))
    missing = d.add("Mod", d.add("Sub", d.ints(8), d.add("Mod", sides, d.ints(8))), d.ints(8))
    padded = d.add("Pad", x, d.add("Concat", d.ints(0, 0, 0, 0, 0, 0), missing, axis=0), mode="reflect")
    return d.add("Slice", _strided(d, padded), d.ints(0, 0), sides, d.ints(2, 3))


def padded_to_a_square(d: Drawing, x: str) -> str:
    """Zeros below or on the right, until height and width are the same; then cut back."""
    sides = d.add("Slice", d.add("Shape", x), d.ints(2), d.ints(4))
    missing = d.add("Sub", d.add("ReduceMax", sides, keepdims=1), sides)
    padded = d.add("Pad", x, d.add("Concat", d.ints(0, 0, 0, 0, 0, 0), missing, axis=0))
    return d.add("Slice", d.conv(padded), d.ints(0, 0), sides, d.ints(2, 3))


def _norm_of_a_batch(d: Drawing, x: str) -> str:
    ones, zeros = d.constant([1, 1, 1]), d.constant([0, 0.1, 0])
    return d.add("BatchNormalization", d.conv(x), ones, zeros, zeros, ones)


LOCAL: dict[str, tuple[Draw, int]] = {
    "convolution": (lambda d, x: d.conv(x), 1),
    "dilated": (lambda d, x: d.conv(x, dilations=[3, 3], pads=[3, 3, 3, 3]), 1),
    "same_upper": (lambda d, x: d.add("Conv", x, d.random(3, 3, 4, 4), auto_pad="SAME_UPPER"), 1),
    "strided": (_strided, 2),
    "sizes_of_a_skip": (_sizes_of_a_skip, 2),
    "pooled_and_linear": (_pooled_and_linear, 2),
    "pixel_shuffle": (_pixel_shuffle, 2),
    "per_pixel": (_per_pixel, 1),
    "windows": (_windows, 4),
    "mirrored": (_mirrored, 1),
    "batch_norm": (_norm_of_a_batch, 1),
    "cropped": (
        lambda d, x: d.add("Slice", d.conv(x, pads=[2] * 4), d.ints(1, 1), d.ints(-1, -1), d.ints(2, 3)),
        1,
    ),
    "channels": (lambda d, x: d.add("ReduceMean", x, d.ints(1), keepdims=1), 1),
}
"""What sees a bounded surrounding, with the multiple that its sizes need."""


def _instance(d: Drawing, x: str) -> str:
    return d.add("InstanceNormalization", d.conv(x), d.constant([1, 1, 1]), d.constant([0, 0, 0]))


def _group(d: Drawing, x: str) -> str:
    flat = d.add("Reshape", x, d.ints(1, 1, -1))
    normal = d.add("InstanceNormalization", flat, d.constant([1]), d.constant([0]))
    return d.add("Reshape", normal, d.add("Shape", x))


def _squeeze_excite(d: Drawing, x: str) -> str:
    weight = d.add("Sigmoid", d.conv(d.add("GlobalAveragePool", x), kernel=1))
    return d.add("Mul", x, d.add("Mul", weight, d.constant(3.0)))


def _mean_subtracted(d: Drawing, x: str) -> str:
    return d.add("Sub", x, d.add("ReduceMean", x, d.ints(2, 3), keepdims=1))


def _attention(d: Drawing, x: str) -> str:
    flat = d.add("Reshape", d.add("AveragePool", x, kernel_shape=[8, 8], strides=[8, 8]), d.ints(1, 3, -1))
    scores = d.add("Softmax", d.add("MatMul", d.add("Transpose", flat, perm=[0, 2, 1]), flat), axis=-1)
    mixed = d.add("MatMul", flat, scores)
    small = d.add("AveragePool", x, kernel_shape=[8, 8], strides=[8, 8])
    shaped = d.add("Reshape", mixed, d.add("Shape", small))
    return d.add("Add", x, d.add("Resize", shaped, "", d.constant([1, 1, 8, 8]), mode="nearest"))


def _einsum(d: Drawing, x: str) -> str:
    power = d.add("Mul", d.add("Einsum", x, x, equation="bchw,bchw->bc"), d.constant(1e-5))
    return d.add("Add", x, d.add("Unsqueeze", power, d.ints(2, 3)))


def _coordinates(d: Drawing, x: str) -> str:
    width = d.add("Squeeze", d.add("Gather", d.add("Shape", x), d.ints(3)))
    row = d.add("Range", d.constant(0, np.int64), width, d.constant(1, np.int64))
    return d.add("Add", x, d.add("Mul", d.add("Cast", row, to=TensorProto.FLOAT), d.constant(0.001)))


def _scaled_by_size(d: Drawing, x: str) -> str:
    width = d.add("Cast", d.add("Gather", d.add("Shape", x), d.ints(3)), to=TensorProto.FLOAT)
    return d.add("Mul", x, d.add("Div", width, d.constant(300.0)))


def _fixed_resize(d: Drawing, x: str) -> str:
    small = d.add("Resize", x, "", "", d.ints(1, 3, 32, 32), mode="linear")
    return d.add("Resize", small, "", "", d.add("Shape", x), mode="linear")


def _corners(d: Drawing, x: str) -> str:
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    small = d.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return d.add("Resize", small, "", d.constant([1, 1, 2, 2]), **how)


def _train_mode(d: Drawing, x: str) -> str:
    ones, zeros = d.constant([1, 1, 1]), d.constant([0, 0, 0])
    return d.add("BatchNormalization", x, ones, zeros, zeros, ones, training_mode=1, outputs=3)


def _turned(d: Drawing, x: str) -> str:
    return d.add("Slice", x, d.ints(-1), d.ints(-(2**31)), d.ints(3), d.ints(-1))


def _cumulative(d: Drawing, x: str) -> str:
    return d.add("Mul", d.add("CumSum", x, d.constant(3, np.int64)), d.constant(0.01))


def _largest(d: Drawing, x: str) -> str:
    return d.add("Div", x, d.add("Add", d.add("ReduceMax", x, d.ints(1, 2, 3)), d.constant(1.0)))


def _wrapped(d: Drawing, x: str) -> str:
    return d.add("Conv", d.add("Pad", x, d.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="wrap"), d.random(3, 3, 3, 3))


GLOBAL: dict[str, tuple[Draw, str]] = {
    "instance_norm": (_instance, "instance normalization over height and width"),
    "group_norm": (_group, "instance normalization"),
    "squeeze_excite": (_squeeze_excite, "global pooling"),
    "mean_subtracted": (_mean_subtracted, "ReduceMean over height and width"),
    "largest": (_largest, "ReduceMax"),
    "attention": (_attention, "over height and width|attention"),
    "einsum": (_einsum, "attention"),
    "coordinates": (_coordinates, "numbers that depend on the place|image's size"),
    "scaled_by_size": (_scaled_by_size, "image's size"),
    "fixed_resize": (_fixed_resize, "resizing that depends on the image's size"),
    "align_corners": (_corners, "align_corners"),
    "train_mode": (_train_mode, "training mode"),
    "turned": (_turned, "turning"),
    "cumulative": (_cumulative, "CumSum over width"),
    "wrapped": (_wrapped, "other end"),
    "layer_norm": (
        lambda d, x: d.add("MeanVarianceNormalization", x),
        "MeanVarianceNormalization over height and width",
    ),
    "unknown": (lambda d, x: d.add("Add", x, d.add("LpNormalization", x, axis=2)), "LpNormalization over height"),
    "loop_like": (lambda d, x: d.add("Trilu", x), "Trilu is not known"),
}
"""What sees all of an image, with the reason that is told (a pattern)."""


def translation_model(multiple: int, *, size: int | None = None, scale: int = 1) -> ModelSpec:
    """`size`: pixels a side that the graph takes alone; None: any."""
    height, width = (HEIGHT, WIDTH) if size is None else (size, size)
    out = (height, width) if scale == 1 else (RESULT_HEIGHT, RESULT_WIDTH)
    side = size or 16 * multiple
    source = TensorSpec(name="source", dtype="float32", shape=("batch", 3, height, width), role="image")
    image = TensorSpec(name="image", dtype="float32", shape=("batch", 3, *out), role="image", value_range=(-1, 1))
    return ModelSpec(
        name="places",
        family="test",
        program=FeedforwardSpec(graph=GRAPH),
        graphs=(GraphSpec(name=GRAPH, inputs=(source,), outputs=(image,)),),
        output=ImageSpec(channels=3, height=side * scale, width=side * scale),
        conditions=(SourceSpec(channels=3, height=side, width=side, multiple=multiple, scale=scale, margin=1),),
    )


def translation_onnx(model: ModelSpec, draw: Draw) -> bytes:
    drawing = Drawing()
    drawn = draw(drawing, "source")
    drawing.nodes.append(helper.make_node("Tanh", [drawn], ["shown"]))
    drawing.nodes.append(helper.make_node("Add", ["shown", drawing.constant(np.zeros((1, 3, 1, 1)))], ["image"]))
    spec = model.graphs[0]
    ends = [
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, list(t.shape)) for t in tensors]
        for tensors in (spec.inputs, spec.outputs)
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in drawing.weights.items()]
    graph = helper.make_graph(drawing.nodes, GRAPH, *ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
