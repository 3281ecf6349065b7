"""Words that tell styles apart, counted in the training texts, and texts in which they are exchanged.

Li, Jia, He & Liang (2018), "Delete, Retrieve, Generate: A Simple Approach to Sentiment and Style Transfer", eq. 1:
a word marks the style k where it stands so much more often in texts of k than in others,

    (count(w, k) + a) / (n_k + 2 a)  over  (count(w, others) + a) / (n_others + 2 a),

count(w, k) of the n_k texts of k that have the word w. Here the logarithm of it is compared with a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMOOTHING = 0.5
"""a."""


class StyleMarkers(nn.Module):
    """`counts` [K, V]: in how many texts of each style each token stands; `texts` [K] of them.

    `threshold`: of the logarithm of the ratio, in nats. `least`: texts that a word must stand in.
    """

    counts: Tensor
    texts: Tensor

    def __init__(self, styles: int, vocabulary: int, *, threshold: float, least: int) -> None:
        super().__init__()
        self.threshold, self.least = threshold, least
        self.register_buffer("counts", torch.zeros(styles, vocabulary))
        self.register_buffer("texts", torch.zeros(styles))

    def learn(self, tokens: Tensor, styles: Tensor, silent: Sequence[int] = ()) -> None:
        """Counts `tokens` int64 [N, S] of the `styles` int64 [N], in place of what was counted; those that are
        `silent` mark nothing."""
        self.counts.zero_()
        self.texts.copy_(torch.bincount(styles, minlength=len(self.texts)))
        ordered = tokens.sort(dim=1).values
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]  # a word counts once a text
        rows = styles.unsqueeze(1).expand_as(ordered)
        self.counts.index_put_((rows[first], ordered[first]), torch.ones(()), accumulate=True)
        self.counts[:, list(silent)] = 0.0

    @property
    def ratios(self) -> Tensor:
        """[K, V]: the logarithm of eq. 1, in nats; 0 for what stands in no text."""
        total, count = self.texts.sum(), self.counts.sum(dim=0)
        own = (self.counts + SMOOTHING) / (self.texts + 2 * SMOOTHING).unsqueeze(1)
        rest = (count - self.counts + SMOOTHING) / (total - self.texts + 2 * SMOOTHING).unsqueeze(1)
        return torch.where(count > 0, torch.log(own / rest), 0.0)

    @property
    def weights(self) -> Tensor:
        """[K, V]: of the words that mark each style, how many texts of it they stand in; 0 for others."""
        marks = (self.ratios > self.threshold) & (self.counts.sum(dim=0) >= self.least)
        return torch.where(marks, self.counts, 0.0)

    def marked(self, tokens: Tensor, styles: Tensor) -> Tensor:
        """Which of `tokens` int64 [B, S] mark the style of their text, `styles` int64 [B]: bool [B, S]."""
        return self.weights[styles].gather(1, tokens) > 0

    def exchanged(self, tokens: Tensor, styles: Tensor, others: Tensor, share: float) -> Tensor:
        """`tokens` int64 [B, S] in which a `share` of the words that mark `styles` int64 [B] are words that mark
        `others` [B], each as likely as it is frequent there. By torch's global generator."""
        chosen = self.marked(tokens, styles) & (torch.rand(tokens.shape, device=tokens.device) < share)
        weights = self.weights[others]
        chosen &= (weights.sum(dim=1) > 0).unsqueeze(1)  # where a style has no words of its own
        weights = weights + (weights.sum(dim=1, keepdim=True) == 0)
        return torch.where(chosen, torch.multinomial(weights, tokens.shape[1], replacement=True), tokens)
