"""Networks for pairs of an image and something else that has an encoder of its own, a sound or a text: an encoder
of images into the same space, and a judge of both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gensdk_training.networks.strided import down_stack

Wrap = Callable[[nn.Module], nn.Module]
SPARE = 1e-6
"""Below the length of an embedding, which is divided by it."""


class ImageEncoder(nn.Module):
    """An image to a direction in the same space."""

    def __init__(self, image: tuple[int, int, int], widths: list[int], features: int) -> None:
        super().__init__()
        channels, height, width = image
        core = (height >> len(widths)) * (width >> len(widths))
        self.body = down_stack(channels, widths, normalize=True)
        self.head = nn.Linear(core * widths[-1], features)

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to [B, features] of length 1."""
        return direction(self.head(self.body(images).flatten(1)))


class PairDiscriminator(nn.Module):
    """D(x, e): is image x real, and does it go with embedding e? ``w . f(x) + (V e) . f(x)``, the projection of
    Miyato & Koyama 2018 (arXiv 1802.05637, eq. 3), every layer with spectral normalization, or as `wrap` makes
    it."""

    def __init__(
        self, image: tuple[int, int, int], widths: list[int], features: int, *, wrap: Wrap = spectral_norm
    ) -> None:
        super().__init__()
        channels, height, width = image
        seen = (height >> len(widths)) * (width >> len(widths)) * widths[-1]
        self.body = down_stack(channels, widths, normalize=False, wrap=wrap)
        self.real = wrap(nn.Linear(seen, 1))
        self.fits = wrap(nn.Linear(features, seen, bias=False))

    def forward(self, images: Tensor, *embeddings: Tensor) -> tuple[Tensor, ...]:
        """`images` [B, C, H, W] in [-1, 1] with each of `embeddings` [B, features]: for each [B]."""
        seen = self.body(images).flatten(1)
        real: Tensor = self.real(seen).flatten()
        return tuple(real + (self.fits(each) * seen).sum(dim=1) for each in embeddings)


def direction(vectors: Tensor) -> Tensor:
    """`vectors` [B, F] at length 1."""
    return vectors / torch.sqrt(vectors.square().sum(dim=1, keepdim=True) + SPARE)
