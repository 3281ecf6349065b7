"""R-precision: is an image nearer to the text that it was made from than to other texts?

Xu et al. 2018, "AttnGAN" (arXiv 1711.10485, section 4.1): an image is the query, and R = 1 of the candidate texts,
the one that it was made from, is right. They are ranked by cosine similarity in the space of a matcher.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import BLOCK, Estimate, Float64, check_pair

CANDIDATES = 32
"""Texts that are ranked, the right one among them."""
TIE = 1e-9
"""Cosines that differ by no more are equal but for rounding."""


@dataclass(frozen=True)
class RPrecision:
    """`first`: the share of images whose right text is ranked first, in [0, 1]; `rank`: the mean rank of the right
    text, from 1. By chance they are 1 / `candidates` and (`candidates` + 1) / 2. Their standard errors take the
    images of one text for one observation."""

    first: Estimate
    rank: Estimate
    candidates: int


def r_precision(
    images: NDArray[np.floating],
    asked: NDArray[np.int64],
    texts: NDArray[np.floating],
    *,
    candidates: int = CANDIDATES,
) -> RPrecision:
    """R-precision of `images` [n, F], image i made from text ``asked[i]`` of `texts` [T, F], T different ones.

    The other candidates are any ``candidates - 1`` of the other texts. None are drawn: both values are the exact
    means over all such choices, so they hang on no seed and no order. Texts that are equally near are in random
    order, so an encoder that gives the same for all gets chance, exactly.

    Raises :class:`InputError` for fewer texts than candidates, and for numbers of texts that are not there.
    """
    vectors, against = check_pair(images, texts, at_least=1)
    count = len(against)
    if not 2 <= candidates <= count:
        raise InputError(f"expected at least {candidates} different captions to rank, got {count}; take more data")
    if asked.shape != vectors.shape[:1] or (len(asked) and not 0 <= asked.min() <= asked.max() < count):
        raise InputError(f"expected for each of {len(vectors)} images the number of one of {count} captions")
    vectors, against = _directions(vectors), _directions(against)
    better, tied = np.empty(len(asked), np.int64), np.empty(len(asked), np.int64)
    rows = max(1, BLOCK // count)
    for start in range(0, len(asked), rows):
        part = slice(start, start + rows)
        scores = vectors[part] @ against.T
        right = np.take_along_axis(scores, asked[part, None], axis=1)
        better[part] = (scores > right + TIE).sum(axis=1)
        tied[part] = (np.abs(scores - right) <= TIE).sum(axis=1) - 1
    first = _first(better, tied, count, candidates)
    rank = 1 + (candidates - 1) * (better + tied / 2) / (count - 1)
    return RPrecision(_estimate(first, asked), _estimate(rank, asked), candidates)


def _first(better: NDArray[np.int64], tied: NDArray[np.int64], count: int, candidates: int) -> Float64:
    """The chance that none of ``candidates - 1`` others is ahead, of ``count - 1``, `better` of which are, and of
    the `tied` ones as many as a random order puts there: a mean of ``C(count - 1 - b, k) / C(count - 1, k)``."""
    ahead, drawn = np.arange(count), np.arange(candidates - 1)
    chances = np.clip((count - 1 - ahead[:, None] - drawn) / (count - 1 - drawn), 0.0, 1.0).prod(axis=1)
    upto = np.concatenate(([0.0], np.cumsum(chances)))
    return np.asarray((upto[better + tied + 1] - upto[better]) / (tied + 1))


def _directions(vectors: Float64) -> Float64:
    """At length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-30))


def _estimate(values: Float64, groups: NDArray[np.int64]) -> Estimate:
    """The mean of `values`, and the standard error of a mean over `groups`."""
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    means = sums[counts > 0] / counts[counts > 0]
    error = float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0
    return Estimate(float(values.mean()), error)
