"""Features of sentences for a Fréchet distance, learnt from training texts in seconds and the same on each
machine.

Latent semantic analysis (Deerwester et al. 1990) over runs of one to three words: each falls by its CRC-32 into
one of 2048 bins, whose counts' square roots are brought to unit length; the features are the 64 principal
directions of the training texts. Runs of words make them feel the order of words, as far as three words tell it;
they know nothing of meaning. ScratchGAN (de Masson d'Autume et al. 2019) takes a pretrained encoder in their
place: such distances are smaller or larger throughout, and only values of one set of features can be compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import Float64
from gensdk_training.metrics.ngrams import Words, ngrams

BINS = 2048
FEATURES = 64
LONGEST = 3
LEARNT_FROM = 10_000
"""Training texts at most, the first ones."""
NAME = f"latent semantic analysis of runs of 1 to {LONGEST} words, {FEATURES} directions of the training texts"


@dataclass(frozen=True)
class SentenceFeatures:
    """`directions` [BINS, F], orthonormal, the strongest first."""

    directions: Float64

    @classmethod
    def learn(cls, texts: Sequence[Words]) -> SentenceFeatures:
        """Of the first 10,000 training texts. :class:`InputError` for fewer than two."""
        if len(texts) < 2:
            raise InputError(f"expected two training texts or more to learn features from, got {len(texts)}")
        rows = _bins(texts[:LEARNT_FROM])
        rows -= rows.mean(axis=0)
        _, vectors = np.linalg.eigh(rows.T @ rows)
        count = min(FEATURES, len(rows) - 1)
        return cls(vectors[:, ::-1][:, :count])

    def read(self, texts: Sequence[Words]) -> Float64:
        """float64 [n, F]."""
        return np.asarray(_bins(texts) @ self.directions)


def _bins(texts: Sequence[Words]) -> Float64:
    rows = np.zeros((len(texts), BINS))
    for row, words in zip(rows, texts, strict=True):
        for order in range(1, LONGEST + 1):
            for ngram, count in ngrams(words, order).items():
                row[zlib.crc32("\0".join(ngram).encode()) % BINS] += count
    roots = np.sqrt(rows)
    return np.asarray(roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-12))
