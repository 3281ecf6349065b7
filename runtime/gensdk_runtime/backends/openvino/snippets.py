"""Keeps OpenVINO's CPU compiler from crashing on graphs that its fusion of small operations can't take.

The plugin fuses element-wise operations into "snippets", and closes some of those to further fusion: group
normalization, attention, and chains of fully connected layers. Where an element-wise operation reads a closed
snippet *and* an open one, the compiler (``tokenize_node`` in
src/common/snippets/src/utils/tokenization_utils.cpp) merges them without looking whether one is closed, and
reads through a null pointer: the process dies. ``group_norm(x) * (1 + scale)``, as in diffusion U-Nets, is such
a graph. Switching snippets off altogether makes such a U-Net's step take up to 2.7 times as long.

So an operation that changes nothing, an average over windows of one element, is put in between, on the smaller
of the two tensors: what it gives is no snippet, and nothing is left to merge.

What it does not do: it looks at the graph before the plugin's own transformations, so it can't know what they
make of it. It takes whatever *may* become a closed or an open snippet for one, and sets a barrier too many
rather than one too few.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

FIRST_SOUND: tuple[int, int] | None = None
"""Year and number of the first release of OpenVINO without the fault; None as long as there is none.

All eleven that were tried have it: each of 2025.0 to 2025.4, 2026.0 to 2026.3, 2026.4.0 and 2026.4.1. A later one,
which nobody tried, is taken for faulty too: a barrier costs little, a crash costs the process.
The test of this module fails with the first release that is sound, and says what to write here.
"""

ELEMENTWISE = frozenset(
    (
        *("Add", "Divide", "Equal", "FloorMod", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd"),
        *("LogicalOr", "LogicalXor", "Maximum", "Minimum", "Mod", "Multiply", "NotEqual", "PRelu", "Power"),
        *("Select", "SquaredDifference", "Subtract", "Swish"),
    )
)
"""Operations on several tensors that become snippets."""
_TAKEN_AS_THEY_ARE = frozenset(("Add", "Multiply", "Maximum", "Swish"))
"""The others may first become several: ``a - b`` is made ``a + (-1) * b``, and the product is a snippet."""
_VIEWS = frozenset(
    (
        *("Broadcast", "Convert", "ConvertLike", "Identity", "Pad", "Reshape", "Slice", "Squeeze"),
        *("StridedSlice", "Tile", "Transpose", "Unsqueeze"),
    )
)
"""What may vanish from a graph, or be drawn into a snippet."""
_NEVER_SNIPPETS = frozenset(
    (
        *("AvgPool", "Concat", "Constant", "Convolution", "ConvolutionBackpropData", "Gather", "GroupConvolution"),
        *("GroupConvolutionBackpropData", "GRUSequence", "Interpolate", "LSTMSequence", "Loop", "MaxPool"),
        *("Parameter", "RNNSequence", "ReadValue", "Split", "TensorIterator", "VariadicSplit"),
    )
)
_CLOSED = frozenset(("GroupNormalization", "MVN", "ScaledDotProductAttention"))
_X86 = platform.machine().lower() in ("x86_64", "amd64")  # elsewhere a single fully connected layer is closed too
_MAX_POOLED_RANK = 5


def has_fault(version: str) -> bool:
    """False only for releases known to be sound; `version` as ``openvino.__version__`` has it."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if FIRST_SOUND is None or found is None:
        return True
    return (int(found[1]), int(found[2])) < FIRST_SOUND


def snippet_settings(model: Any, version: str) -> dict[str, str]:
    """Makes `model`, of static shapes, safe to compile with this `version`; the setting that goes with it.

    Snippets are switched off where barriers don't help: one can't be set, as between booleans, or a loop has a
    group normalization in it, which the plugin can't run there with snippets.
    """
    off = {"SNIPPETS_MODE": "DISABLE"}
    bodies = [body for node in model.get_ops() for body in _bodies(node)]
    if any(node.get_type_name() == "GroupNormalization" for body in bodies for node in body.get_ops()):
        return off
    if has_fault(version):
        try:
            separate_snippets(model)
        except ValueError:
            return off
    return {}


def separate_snippets(model: Any) -> int:
    """Sets barriers in `model`, an ``ov.Model`` of static shapes; how many there are.

    Raises ValueError where one can't be set.
    """
    kinds: dict[str, _Kind] = {}
    barriers = 0
    for node in model.get_ordered_ops():
        inputs = [kinds[value.get_node().get_name()] for value in node.input_values()]
        kinds[node.get_name()] = _kind(node, inputs)
        if node.get_type_name() in ELEMENTWISE and not _is_swish(node):
            ports = _to_separate([*zip(node.inputs(), inputs, strict=True)], node.get_type_name())
            for port in ports:
                _set_barrier(port)
            barriers += len(ports)
    return barriers


def _bodies(node: Any) -> list[Any]:
    """The graphs inside `node`, at any depth."""
    kind = node.get_type_name()
    bodies = [node.get_function()] if kind in ("Loop", "TensorIterator") else []
    bodies += [node.get_then_body(), node.get_else_body()] if kind == "If" else []
    return bodies + [inner for body in bodies for each in body.get_ops() for inner in _bodies(each)]


@dataclass(frozen=True)
class _Kind:
    """What may become of a node: nothing, for it is constant; an open snippet, a closed one, or either.

    `product`: it is a matrix product, or was made of one by element-wise operations alone. `normalized`: it may be
    a normalization to which a scale and a shift still belong.
    """

    constant: bool = False
    open: bool = False
    closed: bool = False
    product: bool = False
    normalized: bool = False


def _kind(node: Any, inputs: Sequence[_Kind]) -> _Kind:
    """What may become of `node`, whose inputs are of these kinds."""
    name = node.get_type_name()
    if name == "Constant" or (inputs and all(each.constant for each in inputs)):
        return _Kind(constant=True)
    if name in _VIEWS:
        return replace(inputs[0], constant=False)
    if name in _CLOSED:
        return _Kind(closed=True, normalized=name == "MVN")
    product = any(each.product for each in inputs)
    if name == "MatMul":  # attention, and layers in a row, have one before
        return _Kind(closed=product or not _X86, product=True)
    if name in _NEVER_SNIPPETS:
        return _Kind()
    flat = product and (node.get_output_size() == 0 or _rank(node.output(0)) <= 2)  # a row of layers goes on
    normalized = any(each.normalized for each in inputs) and sum(not each.constant for each in inputs) == 1
    closed = (flat and any(each.closed for each in inputs)) or normalized
    return _Kind(open=True, closed=closed, product=product, normalized=normalized)


def _to_separate(inputs: Sequence[tuple[Any, _Kind]], operation: str) -> Sequence[Any]:
    """The ports of one element-wise operation to set barriers at, so that no open and closed snippet meet."""
    closed = [port for port, kind in inputs if kind.closed]
    varying = sum(not kind.constant for _, kind in inputs)
    if not closed or varying < 2:
        return ()
    if operation not in _TAKEN_AS_THEY_ARE:
        return closed
    open_only = [port for port, kind in inputs if kind.open and not kind.closed]
    if len(closed) == 1:
        return min(closed, open_only, key=lambda ports: sum(map(_elements, ports))) if open_only else ()
    either = any(kind.open and kind.closed for _, kind in inputs)
    return [*open_only, *sorted(closed, key=_elements)[:-1]] if open_only or either else ()


def _is_swish(node: Any) -> bool:
    """x * sigmoid(x), which the plugin makes one operation of one input."""
    if node.get_type_name() != "Multiply":
        return False
    for one, other in ((0, 1), (1, 0)):
        gate = node.input_value(one).get_node()
        if gate.get_type_name() == "Sigmoid" and gate.input_value(0) == node.input_value(other):
            return True
    return False


def _rank(output: Any) -> int:
    rank = output.get_partial_shape().rank
    return rank.get_length() if rank.is_static else 0


def _elements(port: Any) -> float:
    shape = port.get_source_output().get_partial_shape()
    return prod(shape.to_shape()) if shape.is_static else float("inf")


def _set_barrier(port: Any) -> None:
    from openvino import opset8 as operations

    source = port.get_source_output()
    kind, known = source.get_element_type(), source.get_partial_shape()
    if not kind.is_real() or known.is_dynamic or len(known) > _MAX_POOLED_RANK:
        raise ValueError(f"no barrier for {kind} {known}")
    shape = list(known.to_shape())
    value = source
    if len(shape) < 4:
        value = operations.reshape(value, np.array([1] * (4 - len(shape)) + shape), special_zero=False)
    ones, zeros = [1] * (max(len(shape), 4) - 2), [0] * (max(len(shape), 4) - 2)
    value = operations.avg_pool(value, ones, zeros, zeros, ones, exclude_pad=False)
    if len(shape) < 4:
        value = operations.reshape(value, np.array(shape, np.int64), special_zero=False)
    port.replace_source_output(value.output(0))
