"""Classifier-free guidance: the denoiser's passes over a batch, and how their predictions are mixed.

Ho & Salimans (2022), eq. 6: eps = w eps(asked) + (1 - w) eps(none), with w counted as diffusers counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Int64


@dataclass(frozen=True)
class Passes:
    """The denoiser's passes over B samples: int64 `labels` [G, B], and `weights` [G, B], or [G] for all.

    `contexts`: by name float32 [K, ...], what K texts became, of which pass and sample take number `texts`, int64
    [G, B]. `labels` and `texts` are zeros where the model has none.
    """

    labels: Int64
    weights: Float32
    texts: Int64
    contexts: Mapping[str, Float32] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Int64, none: int, scale: float, *, each: bool) -> Passes:
        """For `labels` [B], where the label `none` means "no class"; two passes only where both halves count.

        `each` gives every sample weights of its own. Then one without a class takes the first pass alone, and is
        exactly what it is in a batch of one pass.
        """
        both = np.stack([labels, np.full_like(labels, none)])
        return cls._mixed(both, np.zeros_like(both), {}, scale, each=each)

    @classmethod
    def of_texts(cls, labels: Int64, texts: Int64, contexts: Mapping[str, Float32], scale: float) -> Passes:
        """For `labels` and `texts` [2, B]: what each sample is asked for, and what guidance leads away from."""
        return cls._mixed(labels, texts, contexts, scale, each=True)

    @classmethod
    def _mixed(
        cls, labels: Int64, texts: Int64, contexts: Mapping[str, Float32], scale: float, *, each: bool
    ) -> Passes:
        unguided = (labels[0] == labels[1]) & (texts[0] == texts[1])
        count = labels.shape[1]
        if scale == 1.0 or bool(unguided.all()):
            return cls(labels[:1], np.ones((1, count) if each else 1, np.float32), texts[:1], contexts)
        weights = np.array([scale, 1.0 - scale], np.float32)
        if each:
            weights = np.where(unguided, np.array([[1.0], [0.0]], np.float32), weights[:, None])
        return cls(labels, weights, texts, contexts)

    def __len__(self) -> int:
        return len(self.labels)

    def padded(self, count: int) -> Passes:
        """The same in `count` passes: those that are added repeat the first one, and weigh nothing.

        They repeat it, since a prediction that is infinite would not vanish even where it weighs nothing.
        """
        more = count - len(self)
        if more <= 0:
            return self
        labels, texts = (np.concatenate([a, np.repeat(a[:1], more, axis=0)]) for a in (self.labels, self.texts))
        nothing = np.zeros_like(self.weights[:1])
        weights = np.concatenate([self.weights, np.repeat(nothing, more, axis=0)])
        return Passes(labels, weights, texts, self.contexts)

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

    def fixed(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """What is the same in all steps, by the names of inputs, each [G, B, ...]; the weights as they are."""
        yield "guidance_weights", self.weights
        yield "label", self.labels
        for name, values in self.contexts.items():
            yield name, values[self.texts]
