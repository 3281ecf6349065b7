"""How different samples are from each other, against the data: a collapse shows in one batch.

Two ratios, each about 1 for the data itself: of the mean distance of all pairs, which a collapse onto one picture
makes 0, and of the typical distance to the nearest other sample, which a collapse onto several pictures makes 0
too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import Float64, distance_blocks


@dataclass(frozen=True)
class Diversity:
    """`pairs`: the mean distance of two samples, over that of the data. `nearest`: the median distance to the
    nearest other sample, over that of the data. 0 where all samples are the same."""

    pairs: float
    nearest: float


def diversity(samples: NDArray[Any], data: NDArray[Any]) -> Diversity:
    """Compares `samples` [n, ...] with as many of `data` [m, ...] (the larger set is cut), by Euclidean distance.

    Raises :class:`InputError` for fewer than two of either, other shapes, and NaN. Data that is all the same gives
    1, since it has no diversity to lose.
    """
    if samples.shape[1:] != data.shape[1:] or min(len(samples), len(data)) < 2:
        raise InputError(f"expected 2 samples or more of one shape, got {list(samples.shape)}, {list(data.shape)}")
    count = min(len(samples), len(data))
    flat = [np.asarray(part[:count], np.float64).reshape(count, -1) for part in (samples, data)]
    if not all(np.isfinite(part).all() for part in flat):
        raise InputError("samples or data hold NaN or infinity")
    own, real = (_distances(part) for part in flat)
    return Diversity(*(s / r if r > 0 else 1.0 for s, r in zip(own, real, strict=True)))


def _distances(points: Float64) -> tuple[float, float]:
    """The mean distance of two different points, and the median one to the nearest other."""
    total, nearest = 0.0, np.empty(len(points))
    for rows, squared in distance_blocks(points, points):
        distances = np.sqrt(squared)
        total += float(distances.sum())
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        nearest[rows] = distances.min(axis=1)
    return total / (len(points) * (len(points) - 1)), float(np.median(nearest))
