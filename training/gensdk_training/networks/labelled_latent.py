"""How a label enters a network that begins with a latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LabelledLatent(nn.Module):
    """concat(z, embedding(label)): how a label enters a generator or decoder.

    `size` counts what comes out: `latent` values, and `embedding` more where there are `classes`.
    """

    def __init__(self, latent: int, *, classes: int | None, embedding: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.size = latent + (embedding if classes else 0)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] and `label` int64 [B] to [B, size]."""
        if self.embedding is None or label is None:
            return z
        return torch.cat((z, self.embedding(label)), dim=1)
