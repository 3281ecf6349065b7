"""Measures of a model of points in a mixture whose modes are known: no extractor stands between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gensdk_training.evaluation.report import Measure
from gensdk_training.metrics.modes import WITHIN, mixture_modes


def mixture_measures(
    points: NDArray[np.floating],
    training: NDArray[np.floating],
    centers: NDArray[np.floating],
    sigma: float,
    shares: Sequence[float] | None = None,
) -> list[Measure]:
    """Modes covered, good samples and the divergence over modes, of `points` [n, D], and of `training` [m, D] as
    floor.

    `centers` [K, D], one `sigma` and the modes' `shares` (None: equal) are the mixture's. Raises
    :class:`InputError` for other shapes and NaN.
    """
    own, base = mixture_modes(points, centers, sigma, shares), mixture_modes(training, centers, sigma, shares)
    dropped = f"dropped: {', '.join(map(str, own.dropped[:20]))}" if own.dropped else "none dropped"
    return [
        Measure(
            name="modes_covered",
            title=f"modes covered of {own.modes}",
            value=own.covered,
            floor=base.covered,
            better="higher",
            detail=f"{own.samples} samples; {dropped}",
        ),
        Measure(
            name="high_quality",
            title="share of good samples",
            value=own.high_quality,
            floor=base.high_quality,
            better="higher",
            detail=f"within {WITHIN:g} sigma of a mode",
        ),
        Measure(
            name="modes",
            title="mode divergence",
            value=own.reverse_kl,
            floor=base.reverse_kl,
            better="lower",
            detail="KL(model || data) in nats over the modes",
        ),
    ]
