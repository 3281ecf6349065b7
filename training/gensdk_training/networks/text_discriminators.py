"""Discriminators of texts: convolutions that judge a whole text, and an LSTM that judges each token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvolutionalJudge(nn.Module):
    """A text to one logit: convolutions of several widths, the maximum of each over the text, a highway layer.

    Kim (2014), "Convolutional Neural Networks for Sentence Classification", and Srivastava et al. (2015), "Highway
    Networks", as SeqGAN has them (section 4.2, appendix B). `widths`: tokens that filters see, each `filters`
    times.
    """

    def __init__(
        self, vocabulary: int, embedding: int, widths: Sequence[int], filters: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, filters, width) for width in widths)
        found = filters * len(widths)
        self.gate, self.change = nn.Linear(found, found), nn.Linear(found, found)
        nn.init.constant_(self.gate.bias, -2.0)  # at first all is carried
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(found, 1)
        self.longest = max(widths)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` int64 [B, T] to [B]; a text shorter than the widest filter is filled up with zeros."""
        x = self.embed(tokens).transpose(1, 2)
        x = functional.pad(x, (0, max(0, self.longest - tokens.shape[1])))
        x = torch.cat([torch.relu(layer(x)).amax(dim=2) for layer in self.convolutions], dim=1)
        share = torch.sigmoid(self.gate(x))
        x = share * torch.relu(self.change(x)) + (1 - share) * x
        logits: Tensor = self.out(self.dropout(x))
        return logits.squeeze(1)


class RecurrentJudge(nn.Module):
    """Each token, after those before it, to a logit: embeddings with the place (Vaswani et al. 2017, section 3.5)
    through an LSTM and a layer norm, as ScratchGAN has it."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.lstm = nn.LSTM(2 * embedding, hidden, batch_first=True)
        self.norm, self.dropout, self.out = nn.LayerNorm(hidden), nn.Dropout(dropout), nn.Linear(hidden, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` int64 [B, T] to [B, T]."""
        x = self.embed(tokens)
        places = _waves(tokens.shape[1], x.shape[2], x.device).expand(len(tokens), -1, -1)
        x, _ = self.lstm(self.dropout(torch.cat((x, places), dim=2)))
        logits: Tensor = self.out(self.dropout(self.norm(x)))
        return logits.squeeze(2)


def _waves(length: int, features: int, device: torch.device) -> Tensor:
    """[1, length, features]: sines, then cosines, of places at falling frequencies."""
    count = (features + 1) // 2
    rates = torch.exp(torch.arange(count, device=device) * (-math.log(10_000.0) / count))
    angles = torch.arange(length, device=device).unsqueeze(1) * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :features].unsqueeze(0)
