"""A discriminator that tells styles of real texts, and what was written by a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_training.networks.style_markers import StyleMarkers


class StyleDiscriminator(nn.Module):
    """A text to the logits of K styles, and of "written by a network": convolutions of several widths over words,
    the maximum of each over the text (Kim 2014).

    `silent`: tokens that say nothing, such as the end; they are zeros to it. `markers`: the words that mark
    styles, counted once before the training. `playing`: whether it has an opponent yet.
    """

    silent: Tensor

    def __init__(
        self,
        markers: StyleMarkers,
        *,
        embedding: int,
        filters: int,
        widths: tuple[int, ...],
        silent: tuple[int, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        styles, vocabulary = markers.counts.shape
        self.markers = markers
        self.playing = False
        self.embed = nn.Embedding(vocabulary, embedding)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(embedding, filters, width, padding=width // 2) for width in widths
        )
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(filters * len(widths), styles + 1)
        self.register_buffer("silent", torch.tensor(silent), persistent=False)

    def forward(self, tokens: Tensor, embedded: Tensor | None = None) -> Tensor:
        """`tokens` int64 [B, T] to [B, K + 1]. `embedded` [B, T, E]: in place of the rows of ``embed``, which is
        how a gradient goes back to who wrote them."""
        x = self.embed(tokens) if embedded is None else embedded
        x = x * ~torch.isin(tokens, self.silent).unsqueeze(2)
        x = self.dropout(x).transpose(1, 2)
        found = [torch.relu(layer(x)).amax(dim=2) for layer in self.convolutions]
        logits: Tensor = self.out(self.dropout(torch.cat(found, dim=1)))
        return logits
