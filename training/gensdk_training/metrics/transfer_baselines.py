"""What a transfer of style has to be better than: a text of the other style that is like the source, and the
source with its marking words exchanged.

Both are of Li, Jia, He & Liang (2018), "Delete, Retrieve, Generate": "retrieve only", and a "template" that takes
the words that mark the source's style out, and puts those of the most similar text of the other style in their
places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gensdk_training.data.dataset import Labels
from gensdk_training.metrics.bleu import References, corpus_matches
from gensdk_training.metrics.ngrams import Words
from gensdk_training.metrics.text_judge import WordFeatures
from gensdk_training.networks.style_markers import StyleMarkers

NEAREST = 50
"""Texts, the likest by TF-IDF, of which BLEU chooses one: the baseline is meant to be strong."""
ORDER = 4
"""Of BLEU, where it measures content."""
THRESHOLD, LEAST = 0.8, 4
"""Of the words that mark a style, see :class:`StyleMarkers`."""


class TransferBaselines:
    """Learnt from training `texts` and their styles, `labels` int64 [N] below `styles`."""

    def __init__(self, texts: Sequence[Words], labels: Labels, styles: int) -> None:
        self.texts, self.labels = texts, labels
        self._features = WordFeatures(texts)
        known = sorted({word for words in texts for word in words})
        self._numbers = {word: number for number, word in enumerate(known, 1)}
        self._markers = StyleMarkers(styles, len(known) + 1, threshold=THRESHOLD, least=LEAST)
        self._markers.learn(self._tokens(texts), torch.from_numpy(labels), silent=(0,))
        self._marks = self._markers.weights > 0

    def retrieved(self, sources: Sequence[Words], asked: Labels) -> list[Words]:
        """For each of `sources` the training text of the style `asked` int64 [n] that keeps most of it."""
        likeness = self._features.likeness(sources)
        found = []
        for words, style, row in zip(sources, asked, likeness, strict=True):
            near = np.argsort(np.where(self.labels == style, -row, 2.0), kind="stable")[:NEAREST]
            own = References([words], ORDER)
            kept = [
                corpus_matches([(self.texts[at], own)], ORDER).bleu(ORDER, "exp") if self.texts[at] else 0.0
                for at in near
            ]
            found.append(self.texts[int(near[int(np.argmax(kept))])])
        return found

    def exchanged(self, sources: Sequence[Words], styles: Labels, asked: Labels) -> list[Words]:
        """`sources` of `styles` int64 [n] with the marking words of a text of the style `asked` in place of their
        own, those that are left over at the end. The text is the one that is most like the source where neither
        has its marking words."""
        bare = [self._bare(words, style) for words, style in zip(self.texts, self.labels, strict=True)]
        marked = np.array([len(one) < len(other) for one, other in zip(bare, self.texts, strict=True)])
        rows = WordFeatures([words or ("",) for words in bare]).likeness(
            [self._bare(words, style) for words, style in zip(sources, styles, strict=True)]
        )
        found: list[Words] = []
        for words, style, target, row in zip(sources, styles, asked, rows, strict=True):
            at = int(np.argmax(np.where((self.labels == target) & marked, row, -1.0)))
            given = [word for word in self.texts[at] if self._is_mark(word, target)]
            made = []
            for word in words:
                if not self._is_mark(word, style):
                    made.append(word)
                elif given:
                    made.append(given.pop(0))
            found.append([*made, *given])
        return found

    def _tokens(self, texts: Sequence[Words]) -> Tensor:
        tokens = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
        for row, words in zip(tokens, texts, strict=True):
            row[: len(words)] = torch.tensor([self._numbers[word] for word in words], dtype=torch.int64)
        return tokens

    def _is_mark(self, word: str, style: int) -> bool:
        return bool(self._marks[style, self._numbers.get(word, 0)])

    def _bare(self, words: Words, style: int) -> Words:
        return [word for word in words if not self._is_mark(word, style)]
