"""Group norms written with operators that every runtime has a kernel for.

ONNX Runtime has none for GroupNormalization: it runs the operator's definition, about 40 small nodes with several
passes over the data. An InstanceNormalization over the groups, then scaled and shifted, gives the same values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir
from onnx_ir import tape

from gensdk_runtime.errors import ExportError


def expand_group_norms(model: onnx_ir.Model) -> None:
    """Replaces each GroupNormalization of `model`, in place. Scale and shift may be computed by the graph.

    Inputs may have any number of axes, as those of attention have three; where it is unknown the node stays.
    """
    for node in list(model.graph):
        if node.op_type == "GroupNormalization":
            _expand(model.graph, node)


def _expand(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """Reshapes to [N, groups, rest], normalizes, reshapes back, scales and shifts."""
    x, scale, shift = node.inputs
    if x is None:
        raise ExportError(f"malformed ONNX: node {node.name!r} normalizes nothing")
    if x.shape is None:
        return
    groups = node.attributes["num_groups"].as_int()
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    write = tape.Tape()

    def constant(values: Sequence[int | float]) -> onnx_ir.Value:
        array = np.array(values, np.float32 if isinstance(values[0], float) else np.int64)
        return write.op("Constant", [], {"value": onnx_ir.tensor(array)})

    grouped = write.op("Reshape", [x, constant([0, groups, -1])])
    unscaled = [grouped, constant([1.0] * groups), constant([0.0] * groups)]
    result = write.op("InstanceNormalization", unscaled, {"epsilon": epsilon})
    known = x.shape[1:]
    sizes = [size for size in known if isinstance(size, int)]
    fixed = bool(sizes) and len(sizes) == len(known)
    back = constant([0, *sizes]) if fixed else write.op("Shape", [x])
    result = write.op("Reshape", [result, back])
    places = range(1, len(x.shape) - 1)  # behind the channels
    axes = constant(list(places)) if places else None
    for operator, values, neutral in (("Mul", scale, 1.0), ("Add", shift, 0.0)):
        if not _all(values, neutral):
            spread = values if axes is None else write.op("Unsqueeze", [values, axes])
            result = write.op(operator, [result, spread])
    onnx_ir.convenience.replace_nodes_and_values(graph, node, [node], list(write.nodes), node.outputs, [result])


def _all(value: onnx_ir.Value | None, number: float) -> bool:
    """True if `value` is a constant full of `number`."""
    if value is None:
        return False
    known = value.const_value
    source = value.producer()
    if known is None and source is not None and source.op_type == "ConstantOfShape":
        known = source.attributes["value"].as_tensor() if "value" in source.attributes else None
    return known is not None and bool((known.numpy() == number).all())
