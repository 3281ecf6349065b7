"""Markov chains over codes: what a model of sequences has to beat, in bits a code.

A chain of order k predicts a code from the k codes before it. Counts of rare contexts say little, so each order is
drawn towards the one below it, and order 0 towards all codes alike (MacKay & Peto 1995, a hierarchical Dirichlet
language model)::

    p_k(x | c) = (n(c, x) + a_k p_{k-1}(x | c')) / (n(c) + a_k)        c' is c without its oldest code

The strengths ``a_k`` are chosen on a part of the data that is not trained on, the lowest order first; then both
parts are counted. Before a sequence begins stands its first context, k times the code `start`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

Codes = NDArray[np.int64]

STRENGTHS = tuple(float(2.0**power) for power in range(-6, 15))
"""From which those of each order are chosen."""
MAX_CELLS = 1 << 27
"""Contexts times codes of the highest order; 1 GiB of counts."""


@dataclass(frozen=True)
class MarkovChain:
    """A chain of order ``len(counts) - 1``.

    `counts`: of each order, from 0 on, int64 [levels ** (order + 1)], the newest code last; `strengths`: of each;
    `start`: the code before a sequence begins.
    """

    levels: int
    start: int
    counts: tuple[NDArray[np.int64], ...]
    strengths: tuple[float, ...]

    @property
    def order(self) -> int:
        """How many codes are looked back on."""
        return len(self.counts) - 1

    def bits(self, sequences: Sequence[Codes]) -> float:
        """Mean of -log2 p over all codes of `sequences`, each int64 [n] in 0 .. levels - 1."""
        places = _places(sequences, self.order, self.levels, self.start)
        probability = np.full(len(places), 1.0 / self.levels)
        for order, strength in enumerate(self.strengths):
            probability = _drawn(self.counts[order], places, probability, strength, (order, self.levels))
        return float(-np.log2(probability).mean())


def fit_markov_chain(
    train: Sequence[Codes], validation: Sequence[Codes], *, order: int, levels: int, start: int
) -> MarkovChain:
    """The chain of `order` from sequences of codes, int64 [n] each, in 0 .. `levels` - 1.

    Raises :class:`InputError` for other codes, for none, and for an order whose counts would not fit in memory.
    """
    if order < 0 or levels < 1 or levels ** (order + 1) > MAX_CELLS or not 0 <= start < levels:
        raise InputError(
            f"expected an order from 0 with {levels} ** (order + 1) <= {MAX_CELLS}, got order {order}"
        )
    seen, unseen = (_places(part, order, levels, start) for part in (train, validation))
    probability, strengths, counts = np.full(len(unseen), 1.0 / levels), [], []
    for each in range(order + 1):
        cells = levels ** (each + 1)
        counted = np.bincount(seen % cells, minlength=cells)
        tried = {a: _drawn(counted, unseen, probability, a, (each, levels)) for a in STRENGTHS}
        best = min(tried, key=lambda a: float(-np.log2(tried[a]).mean()))
        probability = tried[best]
        strengths.append(best)
        counts.append(counted + np.bincount(unseen % cells, minlength=cells))
    return MarkovChain(levels, start, tuple(counts), tuple(strengths))


def _drawn(
    counts: NDArray[np.int64],
    places: Codes,
    below: NDArray[np.float64],
    strength: float,
    of: tuple[int, int],
) -> NDArray[np.float64]:
    """The probability of each code under one order, `below` being that of the order below it."""
    order, levels = of
    cells = places % levels ** (order + 1)
    contexts = counts.reshape(-1, levels).sum(axis=1)
    return np.asarray((counts[cells] + strength * below) / (contexts[cells // levels] + strength), np.float64)


def _places(sequences: Sequence[Codes], order: int, levels: int, start: int) -> Codes:
    """For each code the number that it and the `order` codes before it make, int64 [all codes]."""
    parts = []
    for codes in sequences:
        if codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise InputError(f"expected codes as whole numbers [n], got {codes.dtype} {list(codes.shape)}")
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < levels:
            raise InputError(
                f"expected codes from 0 to {levels - 1}, got {int(codes.min())} to {int(codes.max())}"
            )
        padded = np.concatenate([np.full(order, start, np.int64), codes.astype(np.int64)])
        place = np.zeros(len(codes), np.int64)
        for back in range(order + 1):
            place = place * levels + padded[back : back + len(codes)]
        parts.append(place)
    joined = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if not len(joined):
        raise InputError("expected sequences with codes in them, got none")
    return joined
