"""A small encoder of texts: what a denoiser or a generator attends to.

Bidirectional attention (Vaswani et al. 2017, section 3.1) over the words of a caption, learnt along with the model
that listens to it. Places behind a text give zeros, which attention passes over: their scores are 0, their values
nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.image_pairs import direction

MASKED = -1e4
"""The score of a place that is not attended to: enough in float32, and within the range of half precision."""


class EncoderLayer(nn.Module):
    """Attention, then two linear layers; norms come first, and inputs are added."""

    def __init__(self, features: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(features)
        self.query_key_value = nn.Linear(features, 3 * features)
        self.project = nn.Linear(features, features)
        self.norm_out = nn.LayerNorm(features)
        self.widen = nn.Linear(features, 4 * features)
        self.narrow = nn.Linear(4 * features, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X [N, L, F] and the scores to add, [N, 1, 1, L], to [N, L, F]."""
        length, features = x.shape[1:]
        parts = self.query_key_value(self.norm_in(x)).reshape(-1, length, 3, self.heads, features // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(2, 3) * (features // self.heads) ** -0.5 + mask
        attended = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(-1, length, features)
        x = x + self.dropout(self.project(attended))
        out: Tensor = x + self.dropout(self.narrow(functional.gelu(self.widen(self.norm_out(x)))))
        return out


class TextEncoder(nn.Module):
    """Tokens to a vector for each of them, of `size` tokens in rows of `length`, with `rest` behind a text."""

    def __init__(
        self, size: int, length: int, *, features: int, layers: int, heads: int, rest: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.rest = rest
        self.embed = nn.Embedding(size, features)
        self.place = nn.Parameter(0.02 * torch.randn(length, features))
        self.layers = nn.ModuleList(EncoderLayer(features, heads=heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(features)

    def forward(self, prompt: Tensor) -> Tensor:
        """int64 [N, length] to float32 [N, length, features]."""
        known = (prompt != self.rest).to(self.place.dtype)
        mask = (MASKED * (1 - known))[:, None, None, :]
        x = self.embed(prompt) + self.place
        for layer in self.layers:
            x = layer(x, mask)
        out: Tensor = self.norm(x) * known.unsqueeze(-1)
        return out


class PooledTextEncoder(nn.Module):
    """A text to a direction: the mean over what :class:`TextEncoder` makes of its words and the begin."""

    def __init__(self, words: TextEncoder, features: int) -> None:
        super().__init__()
        self.words = words
        self.head = nn.Linear(words.place.shape[1], features)

    def forward(self, prompt: Tensor) -> Tensor:
        """int64 [N, length] to float32 [N, features] of length 1."""
        read = self.words(prompt)
        count = (prompt != self.words.rest).sum(dim=1, keepdim=True).to(read.dtype)
        return direction(self.head(read.sum(dim=1) / count))
