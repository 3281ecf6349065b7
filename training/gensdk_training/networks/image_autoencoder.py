"""Encoder and decoder between images and latents that are images too, some halvings smaller.

Rombach et al. (2022), appendix E.1, in small: residual blocks of group norm, SiLU and convolutions on each level,
attention to all places at the smallest one, where there are several.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gensdk_training.networks.unet import SelfAttention, scaled

WIDEST = 4
"""Times as many features as at full size: at the smaller sizes at most."""
LOG_VARIANCES = (-30.0, 20.0)
"""What a log variance lies between: its exponential is finite, and above zero."""


@dataclass(frozen=True)
class AutoencoderShape:
    """`halvings` of the images of `image_channels` give the latents, of `latent_channels`; `channels` features at
    full size, twice as many after each halving, up to :data:`WIDEST` times; `blocks` at each size."""

    image_channels: int
    latent_channels: int
    halvings: int
    channels: int
    blocks: int
    norm_groups: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Features at each size, the full one first."""
        return tuple(self.channels * min(2**level, WIDEST) for level in range(self.halvings + 1))


class PlainBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the input is added."""

    def __init__(self, inputs: int, outputs: int, *, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(groups, inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(groups, outputs),
            nn.SiLU(),
            scaled(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H, W]."""
        out: Tensor = self.skip(x) + self.body(x)
        return out


class Encoder(nn.Module):
    """q(z|x): images to mean and log variance of each value of their latents."""

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        widths, groups = shape.widths, shape.norm_groups
        parts: list[nn.Module] = [nn.Conv2d(shape.image_channels, widths[0], 3, padding=1)]
        parts += _blocks(widths[0], widths[0], shape)
        for above, width in pairwise(widths):
            parts.append(nn.Conv2d(above, above, 3, stride=2, padding=1))
            parts += _blocks(above, width, shape)
        parts += [
            SelfAttention(widths[-1], heads=1, groups=groups),
            nn.GroupNorm(groups, widths[-1]),
            nn.SiLU(),
            nn.Conv2d(widths[-1], 2 * shape.latent_channels, 3, padding=1),
        ]
        self.layers = nn.Sequential(*parts)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`images` [B, C', H, W] in [-1, 1] to (mean, log variance), each [B, C, h, w]."""
        mean, log_variance = self.layers(images).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A latent of each image with noise from torch's global generator, and its mean and log variance."""
        mean, log_variance = self(images)
        return mean + torch.exp(log_variance / 2) * torch.randn_like(mean), mean, log_variance


class MeanLatent(nn.Module):
    """The mean of q(z|x)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C', H, W] in [-1, 1] to [B, C, h, w]."""
        mean: Tensor = self.encoder(images)[0]
        return mean


class Decoder(nn.Module):
    """Latents to images, about in [-1, 1]."""

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        widths, groups = shape.widths[::-1], shape.norm_groups
        parts: list[nn.Module] = [nn.Conv2d(shape.latent_channels, widths[0], 3, padding=1)]
        parts.append(SelfAttention(widths[0], heads=1, groups=groups))
        parts += _blocks(widths[0], widths[0], shape)
        for below, width in pairwise(widths):
            parts += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(below, below, 3, padding=1)]
            parts += _blocks(below, width, shape)
        parts += [
            nn.GroupNorm(groups, widths[-1]),
            nn.SiLU(),
            nn.Conv2d(widths[-1], shape.image_channels, 3, padding=1),
        ]
        self.layers = nn.Sequential(*parts)

    def forward(self, latents: Tensor) -> Tensor:
        """`latents` [B, C, h, w] to [B, C', H, W]."""
        images: Tensor = self.layers(latents)
        return images


def _blocks(inputs: int, outputs: int, shape: AutoencoderShape) -> list[PlainBlock]:
    """Those of one size."""
    widths = [inputs, *[outputs] * shape.blocks]
    return [PlainBlock(one, other, groups=shape.norm_groups) for one, other in pairwise(widths)]
