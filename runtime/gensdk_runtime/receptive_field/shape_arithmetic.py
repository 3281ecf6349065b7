"""Numbers that are known before any image comes: the arithmetic of shapes, with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gensdk_runtime.onnx_files.nodes import MAX_VALUES, OnnxNode, OnnxTensor, Values

_DTYPES: Mapping[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}


def evaluated(node: OnnxNode, inputs: Sequence[Values | None]) -> Values | None:
    """The one output of a node whose inputs are known; None for operators and sizes that are not worked out."""
    function = _FUNCTIONS.get(node.operator)
    given = [value for value in inputs if value is not None]
    if function is None or len(given) != len(inputs) or any(value.size > MAX_VALUES for value in given):
        return None
    try:
        with np.errstate(all="ignore"):
            made = np.asarray(function(node, *given))
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError):
        return None
    return made if made.size <= MAX_VALUES else None


def _div(_: OnnxNode, a: Values, b: Values) -> Values:
    if np.asarray(a).dtype.kind in "iu":  # towards zero, as C divides
        quotient: Values = (np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1))).astype(a.dtype)
        return quotient
    return np.asarray(a / b)


def _range(_: OnnxNode, start: Values, limit: Values, delta: Values) -> Values:
    count = int(np.ceil((limit.item() - start.item()) / delta.item()))
    if count > MAX_VALUES:
        raise ValueError("too long")
    return np.asarray(start.item() + np.arange(max(0, count)) * delta.item(), start.dtype)


def _constant_of_shape(node: OnnxNode, shape: Values) -> Values:
    filler = node.attributes.get("value")
    value = (
        filler.value if isinstance(filler, OnnxTensor) and filler.value is not None else np.zeros(1, np.float32)
    )
    if np.prod([int(size) for size in shape], dtype=object) > MAX_VALUES:
        raise ValueError("too large")
    return np.full([int(size) for size in shape], value.ravel()[0])


def _expand(_: OnnxNode, value: Values, shape: Values) -> Values:
    wanted = np.broadcast_shapes(value.shape, tuple(int(size) for size in shape))
    if np.prod(wanted, dtype=object) > MAX_VALUES:
        raise ValueError("too large")
    return np.broadcast_to(value, wanted)


def _axes_of(node: OnnxNode, axes: Values | None) -> tuple[int, ...] | None:
    given = node.attributes.get("axes") if axes is None else [int(axis) for axis in np.ravel(axes)]
    return None if given is None else tuple(int(axis) for axis in given)


def _reduced(function: Callable[..., Values]) -> Callable[..., Values]:
    def reduce(node: OnnxNode, value: Values, axes: Values | None = None) -> Values:
        over, keep = _axes_of(node, axes), bool(node.attributes.get("keepdims", 1))
        return np.asarray(function(value, axis=over, keepdims=keep))

    return reduce


def _plain(function: Callable[..., Any]) -> Callable[..., Values]:
    return lambda _, *values: np.asarray(function(*values))


def _cast(node: OnnxNode, value: Values) -> Values:
    return value.astype(_DTYPES[node.attributes["to"]])


def _concat(node: OnnxNode, *values: Values) -> Values:
    return np.concatenate(values, axis=node.attributes["axis"])


def _reshape(_: OnnxNode, value: Values, shape: Values) -> Values:
    return value.reshape([value.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape)])


def _slice(node: OnnxNode, value: Values, *numbers: Values) -> Values:
    given: list[Any] = [*numbers] or [node.attributes.get(name) for name in ("starts", "ends", "axes")]
    starts, ends, axes, steps = (*given, None, None)[:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    places = [slice(None)] * value.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        last = None if step < 0 and end < -value.shape[int(axis)] else int(end)
        places[int(axis)] = slice(int(start), last, int(step))
    return value[tuple(places)]


def _squeeze(node: OnnxNode, value: Values, axes: Values | None = None) -> Values:
    return np.squeeze(value, axis=_axes_of(node, axes))


def _unsqueeze(node: OnnxNode, value: Values, axes: Values | None = None) -> Values:
    return np.expand_dims(value, _axes_of(node, axes) or ())


_FUNCTIONS: Mapping[str, Callable[..., Values]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _plain(np.cos),
    "Div": _div,
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Expand": _expand,
    "Floor": _plain(np.floor),
    "Gather": lambda node, value, places: np.take(value, places, axis=node.attributes.get("axis", 0)),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(np.asarray),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "Max": _plain(lambda *values: np.maximum.reduce(np.broadcast_arrays(*values))),
    "Min": _plain(lambda *values: np.minimum.reduce(np.broadcast_arrays(*values))),
    "Mod": _plain(np.mod),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _plain(np.power),
    "Range": _range,
    "Reciprocal": _plain(lambda value: 1 / value),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "Round": _plain(np.rint),
    "Sin": _plain(np.sin),
    "Slice": _slice,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Transpose": lambda node, value: value.transpose(node.attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
