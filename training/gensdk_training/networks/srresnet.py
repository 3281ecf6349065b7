"""The generator of super-resolution: residual blocks at the small size, enlarged by PixelShuffle at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.grey_levels import from_bytes, to_bytes


class SrBlock(nn.Module):
    """Convolution, norm, PReLU, convolution, norm, added to the input (Ledig et al. 2017, figure 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        result: Tensor = hidden + self.body(hidden)
        return result


class SrResNet(nn.Module):
    """SRResNet (Ledig et al. 2017): 9x9, `blocks`, a long skip, doublings by PixelShuffle, 9x9.

    It adds to the source enlarged by nearest neighbours, so that it begins as that. `scale` is 2 or 4.
    """

    def __init__(self, image_channels: int, channels: int, *, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Sequential(nn.Conv2d(image_channels, channels, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(SrBlock(channels) for _ in range(blocks)),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        doublings: list[nn.Module] = []
        for _ in range(scale.bit_length() - 1):
            doublings += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.last = nn.Sequential(*doublings, nn.Conv2d(channels, image_channels, 9, padding=4))

    def forward(self, source: Tensor) -> Tensor:
        """`source` [B, C, H, W] in [-1, 1] to images [B, C, scale H, scale W], not clamped."""
        hidden = self.first(source)
        detail: Tensor = self.last(hidden + self.body(hidden))
        return detail + functional.interpolate(source, scale_factor=float(self.scale), mode="nearest")


class Clamped(nn.Module):
    """A network whose results are images in [-1, 1], whatever it says."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor) -> Tensor:
        """As the network, clamped."""
        return torch.clamp(self.network(source), -1.0, 1.0)


def margin(blocks: int) -> int:
    """Pixels of the source that a result depends on in each direction."""
    return 4 + 2 * blocks + 1 + 2 + 4


def shrink(images: Tensor, scale: int) -> Tensor:
    """`images` [B, C, H, W] in [-1, 1] as the small ones they are to be made from, on 256 levels as files have
    them.

    Bicubic with an anti-aliasing filter, as MATLAB's imresize, which the literature uses.
    """
    size = (images.shape[2] // scale, images.shape[3] // scale)
    small = functional.interpolate(images, size=size, mode="bicubic", antialias=True)
    return from_bytes(to_bytes(small))
