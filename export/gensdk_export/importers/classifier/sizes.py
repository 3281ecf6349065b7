"""What a graph computes with the sizes of its tensors, between Shape and Reshape: NumPy arrays of whole numbers,
which may be symbols while a graph is traced."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from gensdk_export.importers.classifier.node import Apply, ApplySizes, Builder, Node
from gensdk_runtime.backends.bound import Array


def shape_of(node: Node) -> nn.Module:
    """Shape, or a part of it."""
    start, end = int(node.get("start", 0)), node.get("end")

    def shape(x: Tensor) -> Array:
        sizes: Array = np.empty(x.dim(), object)
        sizes[:] = list(x.shape)
        return sizes[start:end]

    return Apply(shape, node)


def _sizes_squeeze(node: Node) -> nn.Module:
    axes = tuple(node.sizes("axes", 1) or [0])
    return ApplySizes(lambda sizes, *_: np.squeeze(sizes, axes), node)


def _sizes_unsqueeze(node: Node) -> nn.Module:
    axes = tuple(node.sizes("axes", 1) or [0])
    return ApplySizes(lambda sizes, *_: np.expand_dims(sizes, axes), node)


def _sizes_gather(node: Node) -> nn.Module:
    return ApplySizes(lambda sizes, places: np.asarray(sizes[np.asarray(places, np.int64)], object), node)


def _sizes_slice(node: Node) -> nn.Module:
    (start,), (end,) = node.sizes("starts", 1) or [0], node.sizes("ends", 2) or [sys.maxsize]
    return ApplySizes(lambda sizes, *_: sizes[start:end], node)


def _sizes_concat(node: Node) -> nn.Module:
    return ApplySizes(lambda *parts: np.concatenate([np.asarray(part, object) for part in parts]), node)


def _sizes_arithmetic(function: Callable[[Any, Any], Any]) -> Builder:
    return lambda node: ApplySizes(lambda a, b: np.asarray(function(a, b), object), node)


SIZE_OPERATORS: dict[str, Builder] = {
    "Gather": _sizes_gather,
    "Slice": _sizes_slice,
    "Concat": _sizes_concat,
    "Squeeze": _sizes_squeeze,
    "Unsqueeze": _sizes_unsqueeze,
    "Cast": lambda node: ApplySizes(lambda sizes: sizes, node),
    "Identity": lambda node: ApplySizes(lambda sizes: sizes, node),
    "Add": _sizes_arithmetic(operator.add),
    "Sub": _sizes_arithmetic(operator.sub),
    "Mul": _sizes_arithmetic(operator.mul),
    "Div": _sizes_arithmetic(operator.floordiv),
}
"""Those that are met between Shape and Reshape."""
