"""From distance in the latent space to distance between outputs: smooth, jumping, or flat where a model collapsed.

Each of some latents z_0 is turned towards an independent z_1: ``z_t = cos(t pi/2) z_0 + sin(t pi/2) z_1``, which
stays N(0, 1) all the way. A model that uses its latent moves steadily away from G(z_0) and ends as far from it as
two independent samples lie apart; one that knows a few pictures jumps between them; one that ignores its latent
stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

PAIRS = 32
STEPS = 10

Draw = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Samples [n, ...] of latents float32 [n, ...]; the i-th pair's label, if any, is the same at every call."""


@dataclass(frozen=True)
class PathCurve:
    """Mean distances from the start, roots of mean squared differences: `latent` [steps + 1] between the latents
    (0 to about 1.41), `output` [steps + 1] between the outputs, in the output's units."""

    latent: tuple[float, ...]
    output: tuple[float, ...]

    @property
    def reach(self) -> float:
        """The output's distance at the end: about that of two independent samples."""
        return self.output[-1]

    @property
    def steepest(self) -> float:
        """The largest share of the whole way in one step: 1 / steps on a straight way, near 1 where it jumps.

        0 where there is no way at all.
        """
        return max(0.0, float(np.diff(self.output).max()) / self.reach) if self.reach > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "latent": list(self.latent),
            "output": list(self.output),
            "reach": self.reach,
            "steepest": self.steepest,
        }


def path_curve(
    draw: Draw, latent_shape: tuple[int, ...], *, pairs: int = PAIRS, steps: int = STEPS, seed: int = 0
) -> PathCurve:
    """The curve over `pairs` ways of `steps` steps each.

    Raises :class:`InputError` for fewer than one pair or step, and for outputs that are not finite.
    """
    if pairs < 1 or steps < 1:
        raise InputError(f"expected at least 1 pair and 1 step, got {pairs} and {steps}")
    random = np.random.Generator(np.random.Philox(seed))
    start, end = random.standard_normal((2, pairs, *latent_shape), dtype=np.float32)
    angles = np.linspace(0.0, np.pi / 2, steps + 1)
    latents = [(np.cos(angle) * start + np.sin(angle) * end).astype(np.float32) for angle in angles]
    outputs = [np.asarray(draw(latent), np.float64) for latent in latents]
    if not all(np.isfinite(output).all() for output in outputs):
        raise InputError("the outputs hold NaN or infinity; gensdk verify tells whether the model is whole")
    return PathCurve(
        latent=tuple(mean_distance(latent, start) for latent in latents),
        output=tuple(mean_distance(output, outputs[0]) for output in outputs),
    )


def mean_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The mean over [n, ...] of the root of the mean squared difference of each pair."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return float(np.sqrt(np.square(difference).reshape(len(difference), -1).mean(axis=1)).mean())
