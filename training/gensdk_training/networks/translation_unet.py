"""The U-Net of image translation: halved down to a pixel or few, doubled again, with skips between equal sizes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gensdk_training.networks.patches import Norm, norm_layer

Upsampling = Literal["transposed", "resize"]


class TranslationUnet(nn.Module):
    """Isola et al. (2017), section 3.2.1: `depth` levels, widths doubling from `channels` up to eight times.

    Down: 4x4 convolution with stride 2, norm, LeakyReLU 0.2. Up: doubled by a transposed convolution, or by
    nearest neighbours and a 3x3 convolution ("resize", which leaves no checkerboard: Odena et al. 2016), norm,
    ReLU, and dropout on the three innermost levels while training. The outermost and the innermost level have no
    norm.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: int,
        *,
        depth: int,
        norm: Norm,
        dropout: float = 0.0,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            inner = level == depth - 1
            before = inputs if level == 0 else widths[level - 1]
            normed = level > 0 and not inner
            parts: list[nn.Module] = [] if level == 0 else [nn.LeakyReLU(0.2)]
            parts.append(nn.Conv2d(before, width, 4, stride=2, padding=1, bias=not normed))
            parts += [norm_layer(norm, width)] if normed else []
            self.down.append(nn.Sequential(*parts))
        for level in range(depth - 1, -1, -1):
            incoming = widths[level] * (1 if level == depth - 1 else 2)
            outgoing = outputs if level == 0 else widths[level - 1]
            parts = [nn.ReLU(), *double(incoming, outgoing, upsampling, bias=level == 0)]
            parts += [norm_layer(norm, outgoing)] if level > 0 else []
            parts += [nn.Dropout(dropout)] if dropout and level > 0 and level >= depth - 3 else []
            self.up.append(nn.Sequential(*parts))

    def forward(self, source: Tensor) -> Tensor:
        """`source` [B, C, H, W], H and W multiples of 2 ** depth, to [B, outputs, H, W] in [-1, 1]."""
        skips: list[Tensor] = []
        hidden = source
        for down in self.down:
            hidden = down(hidden)
            skips.append(hidden)
        for up, skip in zip(self.up, [None, *skips[-2::-1]], strict=True):
            hidden = up(hidden if skip is None else torch.cat((hidden, skip), dim=1))
        return torch.tanh(hidden)


def double(inputs: int, outputs: int, upsampling: Upsampling, *, bias: bool) -> list[nn.Module]:
    """Layers that double height and width of [B, inputs, H, W]."""
    if upsampling == "transposed":
        return [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)]
    return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)]
