"""Inputs of a third-party graph that are neither image nor noise: constants, and what a class chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gensdk_export.importers.onnx.reading import Port
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import InputError

MAX_CLASSES = 100_000
MAX_ONE_HOT = 4096
"""Classes of a one-hot vector, whose table becomes part of the graph: 64 MiB."""


@dataclass(frozen=True)
class Label:
    """An input that a class chooses: itself the number of a class, or a row of `table` [classes, ...]."""

    port: Port
    classes: int
    table: Array | None

    @property
    def batched(self) -> bool:
        """True if each image of a batch has a class of its own."""
        return self.table is None or self.port.shape is None or len(self.port.shape) == self.table.ndim


def label_of(port: Port, given: Array | None, classes: int | None) -> Label:
    """A number of a class, a one-hot vector, or a row of the table that was given."""
    shape = port.shape or (None,)
    if given is not None:
        table = _finite(port, given).astype(port.dtype)
        rest = shape[1:] if len(shape) == table.ndim else shape
        fits = len(rest) == table.ndim - 1
        fits = fits and all(
            size == axis or not isinstance(size, int) for size, axis in zip(rest, table.shape[1:], strict=True)
        )
        if table.ndim < 2 or not fits or not 1 <= len(table) <= MAX_CLASSES:
            raise InputError(f"expected a table with a row for each class of {port.text()}, got {table.shape}")
        return Label(port, len(table), table)
    if np.dtype(port.dtype).kind in "iu":
        if classes is None or not 1 <= classes <= MAX_CLASSES:
            raise InputError(f"label {port.text()} is the number of a class; give how many there are, --classes N")
        return Label(port, classes, None)
    width = shape[-1]
    if not isinstance(width, int) or len(shape) > 2 or width > MAX_ONE_HOT:
        raise InputError(f"label {port.text()} is no vector with a place for each class; give --constant a table")
    return Label(port, width, np.eye(width, dtype=port.dtype))


def constant_of(port: Port, given: Array) -> Array:
    """In the type and shape of the input; other shapes with the same number of elements will do."""
    array = _finite(port, given).astype(port.dtype)
    shape = port.shape or array.shape
    known = zip(shape, array.shape, strict=False)
    if array.ndim == len(shape) and all(want == have or not isinstance(want, int) for want, have in known):
        return array
    fixed = tuple(axis if isinstance(axis, int) else 1 for axis in shape)
    if array.size != math.prod(fixed):
        raise InputError(f"expected a constant for {port.text()}, got one of shape {list(array.shape)}")
    return array.reshape(fixed)


def _finite(port: Port, given: Array) -> Array:
    array = np.asarray(given)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise InputError(f"expected a constant of finite numbers for {port.text()}, got {array.dtype}")
    return array
