"""A classifier of texts that no family trains against: linear, over words and pairs of words.

Wang & Manning (2012), "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification": on short texts
linear classifiers of pairs of words are hard to beat. Features are the counts, damped by a logarithm and weighted
by how rare they are (TF-IDF); the classifier is a logistic regression in which all classes weigh the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.data.dataset import Labels
from gensdk_training.metrics.ngrams import Words, ngrams

NAME = "a logistic regression of words and pairs of words"
PENALTY = 8.0
"""scikit-learn's C: one over the weight of the squared coefficients. Chosen on a validation part."""
ROUNDS = 500


class WordFeatures:
    """TF-IDF of words and pairs of words, learnt from `texts`; rows of length 1, or 0 where nothing is known."""

    def __init__(self, texts: Sequence[Words]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not any(texts):
            raise InputError("expected texts with words in them, got none")
        self._vectorizer = TfidfVectorizer(analyzer=_pieces, sublinear_tf=True)
        self.learnt = self._vectorizer.fit_transform(texts)

    def read(self, texts: Sequence[Words]) -> object:
        """A sparse matrix [n, features]."""
        return self._vectorizer.transform(texts)

    def likeness(self, texts: Sequence[Words]) -> NDArray[np.float64]:
        """The cosine of each of `texts` with each that was learnt from, [n, learnt]."""
        found: NDArray[np.float64] = (self._vectorizer.transform(texts) @ self.learnt.T).toarray()
        return found


class TextJudge:
    """Tells the class of texts, having learnt it from `texts` with `labels` int64 [N]."""

    def __init__(self, texts: Sequence[Words], labels: Labels) -> None:
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(labels)) < 2:
            raise InputError("expected texts of two classes or more, to tell them apart")
        self.features = WordFeatures(texts)
        self._model = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=ROUNDS)
        self._model.fit(self.features.learnt, labels)

    def classes(self, texts: Sequence[Words]) -> Labels:
        """The likeliest class of each, int64 [n]."""
        return np.asarray(self._model.predict(self.features.read(texts)), np.int64)


def _pieces(words: Words) -> list[tuple[str, ...]]:
    return [piece for order in (1, 2) for piece, count in ngrams(words, order).items() for _ in range(count)]
