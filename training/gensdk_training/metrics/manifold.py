"""Fidelity and diversity, measured apart: the share of realistic samples, and the share of the data that is
sampled.

A set's manifold is taken as the union of balls around its samples, each reaching to its k-th nearest neighbour.
Kynkaanniemi et al. (2019), "Improved Precision and Recall Metric for Assessing Generative Models", eq. 1 and 2:
precision is the share of generated samples in the real manifold, recall that of real ones in the generated.
Naeem et al. (2020), "Reliable Fidelity and Diversity Metrics", eq. 3 and 4: density counts how many real balls
hold a generated sample (over k, so it may pass 1), coverage the share of real balls that hold one; outliers matter
less.

Recall grows with the number of samples: compare sets of equal size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_training.metrics.features import Float64, check_features, check_pair, distance_blocks

NEIGHBOURS = 3
"""k of precision and recall (the paper's section 3)."""

DENSITY_NEIGHBOURS = 5
"""k of density and coverage (their paper's section 4)."""


@dataclass(frozen=True)
class ManifoldReport:
    """Each in [0, 1], but `density`, which is about 1 for the data itself and has no bound above."""

    precision: float
    recall: float
    density: float
    coverage: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def measure_manifolds(
    real: NDArray[np.floating],
    generated: NDArray[np.floating],
    *,
    neighbours: int = NEIGHBOURS,
    density_neighbours: int = DENSITY_NEIGHBOURS,
) -> ManifoldReport:
    """The four measures of features `real` [n, F] and `generated` [m, F], in memory that does not grow with n m.

    Raises :class:`InputError` for sets of different extractors, with NaN, or of no more samples than neighbours.
    """
    most = max(neighbours, density_neighbours)
    real, generated = check_pair(real, generated, at_least=most + 1)
    radii = _radii(real, (neighbours, density_neighbours))
    (own,) = _radii(generated, (neighbours,))
    inside = np.zeros(len(generated), bool)
    held = np.zeros(len(generated))
    reached = np.empty(len(real), bool)
    covered = np.empty(len(real), bool)
    for rows, distances in distance_blocks(real, generated):
        inside |= (distances <= radii[0][rows, None]).any(axis=0)
        balls = distances <= radii[1][rows, None]
        held += balls.sum(axis=0)
        covered[rows] = balls.any(axis=1)
        reached[rows] = (distances <= own).any(axis=1)
    return ManifoldReport(
        precision=float(inside.mean()),
        recall=float(reached.mean()),
        density=float(held.mean() / density_neighbours),
        coverage=float(covered.mean()),
    )


def realism(
    real: NDArray[np.floating], generated: NDArray[np.floating], *, neighbours: int = NEIGHBOURS
) -> Float64:
    """How well each generated sample lies inside the real manifold, float64 [m] (Kynkaanniemi et al., eq. 3).

    The largest radius over distance among the real samples: at least 1 inside a ball, smaller the further outside.
    As in the paper, only the half of the balls with the smaller radii counts: a lone sample has too large a one.
    """
    real, generated = check_pair(check_features(real, at_least=neighbours + 1), generated, at_least=1)
    (radii,) = _radii(real, (neighbours,))
    kept = radii <= np.median(radii)
    reals, kept_radii = real[kept], radii[kept]
    result = np.empty(len(generated))
    smallest = np.finfo(np.float64).tiny
    for rows, distances in distance_blocks(generated, reals):
        result[rows] = np.sqrt((kept_radii / np.maximum(distances, smallest)).max(axis=1))
    return np.minimum(result, 1e6)  # on a real sample it would be infinite, which JSON has not


def _radii(points: Float64, neighbours: tuple[int, ...]) -> list[Float64]:
    """The squared distance of each point to its k-th nearest other one, for each k."""
    result = [np.empty(len(points)) for _ in neighbours]
    for rows, distances in distance_blocks(points, points):
        nearest = np.partition(distances, sorted(set(neighbours)), axis=1)
        for radii, k in zip(result, neighbours, strict=True):
            radii[rows] = nearest[:, k]  # the point itself, at 0, stands first
    return result
