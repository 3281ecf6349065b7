"""Sets of features: the checks that every measure makes, and distances between them in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

Float64 = NDArray[np.float64]

BLOCK = 2**22
"""Distances that are held at once: 32 MiB in float64."""

ROUNDING = 1e-12
"""Squared distances below this share of both squared lengths are rounding: the points are the same."""


@dataclass(frozen=True)
class Estimate:
    """A measured value, and one standard `error` of it."""

    value: float
    error: float


def check_features(features: NDArray[np.floating], *, at_least: int = 2) -> Float64:
    """`features` [n, F] in float64.

    Raises :class:`InputError` for fewer than `at_least` samples, another number of axes, or values not finite.
    """
    if features.ndim != 2 or len(features) < at_least or features.shape[1] < 1:
        raise InputError(
            f"expected features [n, F] of at least {at_least} samples, got shape {list(features.shape)}"
        )
    values = np.asarray(features, np.float64)
    if not np.isfinite(values).all():
        raise InputError("features hold NaN or infinity; the images or the extractor are broken")
    return values


def check_pair(a: NDArray[np.floating], b: NDArray[np.floating], *, at_least: int = 2) -> tuple[Float64, Float64]:
    """Two sets of features of one extractor, in float64; :class:`InputError` otherwise."""
    first, second = check_features(a, at_least=at_least), check_features(b, at_least=at_least)
    if first.shape[1] != second.shape[1]:
        raise InputError(f"features of two extractors: {first.shape[1]} and {second.shape[1]} values")
    return first, second


def distance_blocks(a: Float64, b: Float64) -> Iterator[tuple[slice, Float64]]:
    """Squared distances from `a` [n, F] to `b` [m, F]: some rows at a time, as (rows of `a`, float64 [rows, m]).

    The same point gives exactly 0, whatever the rounding.
    """
    center = b.mean(axis=0)  # lengths that are all alike would cost digits
    a, b = a - center, b - center
    squares = np.square(b).sum(axis=1)
    rows = max(1, BLOCK // len(b))
    for first in range(0, len(a), rows):
        part = a[first : first + rows]
        lengths = np.square(part).sum(axis=1)[:, None] + squares
        distances = lengths - 2.0 * part @ b.T
        distances[distances < ROUNDING * lengths] = 0.0
        yield slice(first, first + len(part)), distances
