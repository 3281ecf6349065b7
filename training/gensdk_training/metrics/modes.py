"""Which modes of a known mixture a model covers, and how evenly; of points, and of labelled images.

Measures of Srivastava et al. (2017, VEEGAN) and Lin et al. (2018, PacGAN, section 4): a sample is of high quality
where it lies within three standard deviations of a mode; a mode is covered where it has such a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

WITHIN = 3.0
"""Standard deviations from a mode's centre within which a sample is of high quality."""

COLLAPSED = 3.0
"""A mode is collapsed on that has this many times its share of the samples."""


@dataclass(frozen=True)
class ModeReport:
    """`counts`: good samples of each of the `modes`, of `samples` in all, and what was expected: `shares`.

    `reverse_kl`: ``KL(q || p)`` in nats between the model's shares q over the modes, by each sample's nearest one
    or its class, and the real ones p; 0 where they are equal, large where few modes take all.
    """

    counts: tuple[int, ...]
    shares: tuple[float, ...]
    samples: int
    reverse_kl: float

    @property
    def modes(self) -> int:
        """How many there are."""
        return len(self.counts)

    @property
    def covered(self) -> int:
        """Modes with at least one good sample."""
        return sum(count > 0 for count in self.counts)

    @property
    def high_quality(self) -> float:
        """The share of good samples, in [0, 1]."""
        return sum(self.counts) / self.samples

    @property
    def dropped(self) -> tuple[int, ...]:
        """Modes without a good sample, by index."""
        return tuple(i for i, count in enumerate(self.counts) if count == 0)

    @property
    def collapsed(self) -> tuple[int, ...]:
        """Modes that take over :data:`COLLAPSED` times their share of the good samples, by index."""
        total = max(1, sum(self.counts))
        pairs = zip(self.counts, self.shares, strict=True)
        return tuple(i for i, (count, share) in enumerate(pairs) if count / total > COLLAPSED * share)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        names = ("modes", "covered", "high_quality", "dropped", "collapsed")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


def mixture_modes(
    points: NDArray[np.floating],
    centers: NDArray[np.floating],
    sigma: float,
    shares: Sequence[float] | None = None,
) -> ModeReport:
    """Modes of a mixture of Gaussians with `centers` [K, D] and one `sigma`, in samples `points` [n, D].

    `shares`: the weights of the mixture; None: equal. Raises :class:`InputError` for other shapes, no points, NaN.
    """
    if points.ndim != 2 or centers.ndim != 2 or points.shape[1] != centers.shape[1] or not len(points):
        raise InputError(
            f"expected points [n, D] and centers [K, D], got {list(points.shape)} and {list(centers.shape)}"
        )
    if not (np.isfinite(points).all() and sigma > 0):
        raise InputError("expected finite points and a sigma over 0; the model gives NaN or infinity")
    distance = np.linalg.norm(points[:, None, :].astype(np.float64) - centers[None], axis=2)
    nearest = distance.argmin(axis=1)
    good = distance.min(axis=1) <= WITHIN * sigma
    return _report(nearest, good, _shares(shares, len(centers)))


def class_modes(
    classes: NDArray[np.integer], shares: Sequence[float], good: NDArray[np.bool_] | None = None
) -> ModeReport:
    """Modes of labelled data: `classes` [n] that a classifier gave to samples, against the data's `shares` [K].

    `good` [n]: which samples count as of high quality, such as those that the classifier is sure of; None: all.
    """
    if classes.ndim != 1 or not len(classes) or classes.min() < 0 or classes.max() >= len(shares):
        raise InputError(f"expected classes [n] of 0 .. {len(shares) - 1}, got shape {list(classes.shape)}")
    return _report(classes, np.ones(len(classes), bool) if good is None else good, _shares(shares, len(shares)))


def _shares(shares: Sequence[float] | None, modes: int) -> NDArray[np.float64]:
    values = np.full(modes, 1.0) if shares is None else np.asarray(shares, np.float64)
    if values.shape != (modes,) or not (values > 0).all():
        raise InputError(f"expected {modes} shares over 0, got {list(values)[:8]}")
    return np.asarray(values / values.sum())


def _report(modes: NDArray[np.integer], good: NDArray[np.bool_], shares: NDArray[np.float64]) -> ModeReport:
    q = np.bincount(modes, minlength=len(shares)) / len(modes)
    there = q > 0
    divergence = float((q[there] * np.log(q[there] / shares[there])).sum())
    counts = np.bincount(modes[good], minlength=len(shares))
    return ModeReport(tuple(counts.tolist()), tuple(shares.tolist()), len(modes), max(0.0, divergence))
