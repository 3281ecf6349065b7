"""Reads how an input holds images off the first convolution behind it, for files whose axes do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import helper

POINTWISE = frozenset(
    ("Identity", "Cast", "Add", "Sub", "Mul", "Div", "Pad", "Clip", "QuantizeLinear", "DequantizeLinear", "Resize")
)
"""Operators that leave the axes where they are."""
MAX_STEPS = 32


@dataclass(frozen=True)
class Looks:
    """The order of the axes, and how many channels there are."""

    layout: Literal["nchw", "nhwc"]
    channels: int


def looks_of(model: onnx.ModelProto, name: str) -> Looks | None:
    """What the first convolution takes of the tensor `name`; None where none stands right behind it."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    layout: Literal["nchw", "nhwc"] = "nchw"
    for _ in range(MAX_STEPS):
        users = [node for node in model.graph.node if name in node.input and node.op_type != "Shape"]
        convolutions = [node for node in users if node.op_type == "Conv" and node.input[0] == name]
        if convolutions:
            node = convolutions[0]
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            shape = weights.get(node.input[1], ())
            return Looks(layout, shape[1] * groups) if len(shape) == 4 else None
        if not users or users[0].input[0] != name:
            return None
        if users[0].op_type == "Transpose" and layout == "nchw":
            order = next((list(helper.get_attribute_value(each)) for each in users[0].attribute), [])
            if order != [0, 3, 1, 2]:
                return None
            layout = "nhwc"
        elif users[0].op_type not in POINTWISE:
            return None
        name = users[0].output[0]
    return None
