"""Mixtures of Gaussians in the plane, whose modes are known: the test bed of mode collapse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.data.dataset import Labels, LoadOptions, Points
from gensdk_training.data.point_set import PointDataset, check_options, point_dataset, points_info

_SEED = 2018


@dataclass(frozen=True)
class Mixture:
    """Equally heavy Gaussians of one `sigma` around `places`; `count` points of each for training."""

    places: tuple[tuple[float, float], ...]
    sigma: float
    count: int

    @cached_property
    def centers(self) -> NDArray[np.float64]:
        """float64 [K, 2]."""
        return np.array(self.places, np.float64)

    def draw(self, count: int, seed: int) -> tuple[Points, Labels]:
        """`count` points of each mode, float32 [K count, 2], and the mode of each."""
        random = np.random.Generator(np.random.Philox(seed))
        labels = np.repeat(np.arange(len(self.places), dtype=np.int64), count)
        points = self.centers[labels] + self.sigma * random.standard_normal((len(labels), 2))
        return points.astype(np.float32), labels


def _ring(modes: int, radius: float) -> tuple[tuple[float, float], ...]:
    angles = 2 * np.pi * np.arange(modes) / modes
    return tuple((float(radius * np.cos(angle)), float(radius * np.sin(angle))) for angle in angles)


_GRID = (-4.0, -2.0, 0.0, 2.0, 4.0)

MIXTURES = {
    "25gaussians": Mixture(tuple((x, y) for x in _GRID for y in _GRID), sigma=0.05, count=4000),
    "8gaussians": Mixture(_ring(8, radius=2.0), sigma=0.02, count=6250),
}
"""A grid (Srivastava et al. 2017, VEEGAN; Lin et al. 2018, PacGAN), and a ring (Metz et al. 2017)."""


def load_mixture(name: str, options: LoadOptions) -> PointDataset:
    """A fixed set of points from the mixture called `name`, its modes as classes; a fifth as many for the test."""
    check_options(options)
    if options.holdout > 0:
        raise InputError(f"{name} has its own test split; leave holdout at 0")
    if options.labels not in ("auto", "none"):
        raise InputError(f"{name} has no labels {options.labels!r}; expected auto or none")
    mixture = MIXTURES[name]
    known_as = f"gaussians{len(mixture.places)}"  # models have their names from it, which start with a letter
    points, labels = mixture.draw(mixture.count, _SEED)
    statistics = points_info(points, name)
    if options.split == "test":
        points, labels = mixture.draw(mixture.count // 5, _SEED + 1)
    if options.labels == "none":
        return point_dataset(known_as, points, None, None, statistics)
    modes = tuple(str(mode) for mode in range(len(mixture.places)))
    return point_dataset(known_as, points, labels, modes, statistics)
