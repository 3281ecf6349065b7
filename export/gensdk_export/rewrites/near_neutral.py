"""Constants that are nearly 0 or 1, kept from an optimizer that takes them for exactly that.

onnxscript drops ``x + c`` where c is within 1e-8 of 0, and ``x * c`` where c is within 1e-5 of 1. So an epsilon
that keeps a quotient finite would be lost, and 0 / 0 be left. It looks at scalars alone; as a vector of one
number, which is spread over x all the same, a constant stays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
"""What changes nothing, by operator."""
NEAR = 1e-4
"""From the neutral number; wider than what is dropped."""


def keep_near_neutral(model: onnx_ir.Model) -> None:
    """Makes vectors of such scalars in `model`, in place, where the other operand has an axis to spread over."""
    for node in list(model.graph):
        neutral = NEUTRAL.get(node.op_type)
        if neutral is None or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            continue
        for place, (value, other) in enumerate((node.inputs, node.inputs[::-1])):
            found = _scalar(value)
            if found is None or other is None or not other.shape:
                continue
            if found != neutral and abs(float(found) - neutral) < NEAR:
                tensor = onnx_ir.tensor(found.reshape(1))
                constant = onnx_ir.node("Constant", [], {"value": tensor}, num_outputs=1)
                model.graph.insert_before(node, constant)
                node.replace_input_with(place, constant.outputs[0])


def _scalar(value: onnx_ir.Value | None) -> np.ndarray[tuple[()], np.dtype[np.floating]] | None:
    """The number that `value` always is, if it is one and no whole one."""
    if value is None:
        return None
    known, source = value.const_value, value.producer()
    if known is None and source is not None and source.op_type == "Constant" and "value" in source.attributes:
        known = source.attributes["value"].as_tensor()
    if known is None or len(known.shape) or not known.dtype.is_floating_point():
        return None
    number: np.ndarray[tuple[()], np.dtype[np.floating]] = known.numpy()
    return number
