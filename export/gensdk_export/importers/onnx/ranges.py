"""The range of values that a graph takes or gives, as far as its operators show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from gensdk_export.importers.onnx.reading import Port
from gensdk_runtime.backends.bound import Array

Range = tuple[float, float]
USUAL: tuple[Range, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
SHAPING = frozenset(("Transpose", "Identity", "Cast", "Reshape", "DepthToSpace", "Squeeze", "Unsqueeze", "Slice"))
"""Operators that move values about and leave them as they are."""
NEAR = 0.02
"""A quantized range is taken for a usual one where its ends are so near, in parts of the width."""
MAX_STEPS = 64
WIDEST = 1e6


@dataclass(frozen=True)
class Found:
    """A range and what told it; `exact` where no value can lie outside."""

    range: Range
    reason: str
    exact: bool = True


def bounded_by(model: onnx.ModelProto, port: Port) -> Found | None:
    """What the last operators bound the output `port` to; None where nothing does."""
    if port.dtype == "uint8":
        return Found((0.0, 255.0), "it is bytes")
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = _constants(model)
    name = port.name
    quantized: Range | None = None
    factor, offset = 1.0, 0.0
    for _ in range(MAX_STEPS):
        node = makers.get(name)
        if node is None:
            return None
        straight = _straight(node, constants)
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            quantized = _quantized(node, constants) or quantized
        elif node.op_type == "Sigmoid":
            return _moved(Found((0.0, 1.0), "it ends in a sigmoid"), factor, offset)
        elif node.op_type == "Tanh":
            return _moved(Found((-1.0, 1.0), "it ends in tanh"), factor, offset)
        elif node.op_type == "Clip":
            clipped = _clipped(node, constants)
            return None if clipped is None else _moved(clipped, factor, offset)
        elif straight is not None and quantized is None:
            name, times, plus = straight
            factor, offset = factor * times, offset + factor * plus
            continue
        elif node.op_type not in SHAPING:
            return None if quantized is None else Found(quantized, "its quantization covers it", exact=False)
        name = node.input[0]
    return None


def _straight(node: onnx.NodeProto, constants: Mapping[str, Array]) -> tuple[str, float, float] | None:
    """(tensor, factor, offset) of a node that gives ``factor * tensor + offset``; None for others."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div", "Neg"):
        return None
    if node.op_type == "Neg":
        return node.input[0], -1.0, 0.0
    right, left = _scalar(node, 1, constants), _scalar(node, 0, constants)
    if right is not None and left is None:
        value, name = right, node.input[0]
    elif left is not None and right is None:
        value, name = left, node.input[1]
    else:
        return None
    if node.op_type == "Add":
        return name, 1.0, value
    if node.op_type == "Mul":
        return (name, value, 0.0) if value else None
    if node.op_type == "Sub":
        return (name, 1.0, -value) if left is None else (name, -1.0, value)
    return (name, 1 / value, 0.0) if left is None and value else None


def _moved(found: Found, factor: float, offset: float) -> Found | None:
    """The range after ``factor * x + offset``; rounding may then leave it by a hair."""
    if (factor, offset) == (1.0, 0.0):
        return found
    ends = [factor * end + offset for end in found.range]
    low, high = (
        next((usual for usual in (-1.0, 0.0, 1.0, 255.0) if abs(end - usual) < 1e-4), end) for end in ends
    )
    low, high = min(low, high), max(low, high)
    if not 0 < high - low < WIDEST:  # NaN fails too
        return None
    return Found((low, high), f"{found.reason}, times {factor:g} plus {offset:g}", exact=False)


def taken_by(model: onnx.ModelProto, port: Port) -> Found | None:
    """What the first operators on the input `port` are made for: a quantization, or pixels brought to 0 to 1 or
    -1 to 1; None where neither comes first."""
    if port.dtype == "uint8":
        return Found((0.0, 255.0), "it takes bytes")
    constants = _constants(model)
    name = port.name
    factor, offset = 1.0, 0.0
    for _ in range(MAX_STEPS):
        users = [node for node in model.graph.node if name in node.input]
        straight = _straight(users[0], constants) if len(users) == 1 else None
        if straight is not None:
            factor, offset = factor * straight[1], offset * straight[1] + straight[2]
        elif len(users) == 1 and users[0].op_type == "QuantizeLinear" and (factor, offset) == (1.0, 0.0):
            found = _quantized(users[0], constants)
            return None if found is None else Found(found, "its quantization covers it", exact=False)
        elif len(users) != 1 or users[0].op_type not in SHAPING:
            return _brought(factor, offset)
        name = users[0].output[0]
    return None


def _brought(factor: float, offset: float) -> Found | None:
    """The usual range that ``factor * x + offset`` brings to another one; bytes may be divided by 256, too."""
    for low, high in ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)):
        to = (factor * low + offset, factor * high + offset)
        for aim in ((0.0, 1.0), (-1.0, 1.0)):
            if aim != (low, high) and max(abs(a - b) for a, b in zip(to, aim, strict=True)) <= NEAR:
                return Found((low, high), f"it begins with times {factor:.4g} plus {offset:.4g}", exact=False)
    return None


def _clipped(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Found | None:
    low, high = (_scalar(node, position, constants) for position in (1, 2))
    for attribute in node.attribute:  # as it was before opset 11
        low = attribute.f if attribute.name == "min" else low
        high = attribute.f if attribute.name == "max" else high
    if low is None or high is None or not low < high or not high - low < WIDEST:
        return None
    return Found((low, high), "it is clipped at the end")


def _quantized(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Range | None:
    """The values that 8 bits can stand for, rounded to a usual range where it is near one."""
    scale = _scalar(node, 1, constants)
    zero = constants.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or zero.size != 1 or zero.dtype not in (np.uint8, np.int8):
        return None
    limits = np.iinfo(zero.dtype)
    low, high = (scale * (edge - int(zero.item())) for edge in (limits.min, limits.max))
    for usual in USUAL:
        width = usual[1] - usual[0]
        if abs(low - usual[0]) <= NEAR * width and abs(high - usual[1]) <= NEAR * width:
            return usual
    return low, high


def _scalar(node: onnx.NodeProto, position: int, constants: Mapping[str, Array]) -> float | None:
    value = constants.get(node.input[position]) if len(node.input) > position else None
    return None if value is None or value.size != 1 or value.dtype.kind not in "fiub" else float(value.item())


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    """Small constants by name: weights, and the values of Constant nodes."""
    found = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) <= 1
    }
    for node in (node for node in model.graph.node if node.op_type == "Constant"):
        for attribute in node.attribute:
            if attribute.name == "value" and len(attribute.t.dims) <= 1:
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
