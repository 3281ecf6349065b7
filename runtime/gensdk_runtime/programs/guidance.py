"""Classifier-free guidance: the denoiser's passes over a batch, and how their predictions are mixed.

Ho & Salimans (2022), eq. 6: eps = w eps(label) + (1 - w) eps(none), with w counted as diffusers counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Int64


@dataclass(frozen=True)
class Passes:
    """The denoiser's passes over B samples: int64 `labels` [G, B], and `weights` [G, B], or [G] for all."""

    labels: Int64
    weights: Float32

    @classmethod
    def of(cls, labels: Int64, none: int, scale: float, *, each: bool) -> Passes:
        """For `labels` [B], where the label `none` means "no class"; two passes only where both halves count.

        `each` gives every sample weights of its own. Then one without a class takes the first pass alone, and is
        exactly what it is in a batch of one pass.
        """
        unguided = labels == none
        if scale == 1.0 or bool(unguided.all()):
            return cls(labels[None], np.ones((1, len(labels)) if each else 1, np.float32))
        both = np.stack([labels, np.full_like(labels, none)])
        weights = np.array([scale, 1.0 - scale], np.float32)
        if each:
            weights = np.where(unguided, np.array([[1.0], [0.0]], np.float32), weights[:, None])
        return cls(both, weights)

    def __len__(self) -> int:
        return len(self.labels)

    def padded(self, count: int) -> Passes:
        """The same in `count` passes: those that are added repeat the first one, and weigh nothing.

        They repeat it, since a prediction that is infinite would not vanish even where it weighs nothing.
        """
        more = count - len(self)
        if more <= 0:
            return self
        again, nothing = np.repeat(self.labels[:1], more, axis=0), np.zeros_like(self.weights[:1])
        weights = np.concatenate([self.weights, np.repeat(nothing, more, axis=0)])
        return Passes(np.concatenate([self.labels, again]), weights)

    @cached_property
    def distinct(self) -> tuple[int, ...]:
        """Each label once, rising."""
        first = self.labels.flat[0]
        return (int(first),) if (self.labels == first).all() else tuple(np.unique(self.labels).tolist())

    @cached_property
    def places(self) -> Int64:
        """Where in :attr:`distinct` each label stands, [G, B]."""
        return np.searchsorted(self.distinct, self.labels)

    def spread(self, rows: Float32, out: Float32) -> None:
        """Writes to each place of `out` [G, B, F] the row of `rows` [L, F] that belongs to its label."""
        if len(rows) == 1:
            out[...] = rows[0]
        else:
            np.take(rows, self.places, axis=0, out=out, mode="clip")
