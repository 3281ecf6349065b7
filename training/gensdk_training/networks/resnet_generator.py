"""The generator of CycleGAN and StarGAN: down by strided convolutions, residual blocks, up again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_training.networks.patches import Norm, norm_layer
from gensdk_training.networks.translation_unet import Upsampling, double


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions over mirrored edges, with norms, added to their input (Johnson et al. 2016)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            norm_layer(norm, channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            norm_layer(norm, channels),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        result: Tensor = hidden + self.body(hidden)
        return result


class ResnetGenerator(nn.Module):
    """Zhu et al. (2017), appendix 7.2: c7s1-k, `halvings` strided convolutions, `blocks`, as many doublings, c7s1.

    Fully convolutional: height and width are multiples of 2 ** halvings. `norm_first` False leaves out the norm
    of the first layer: it would take away what is constant over an input channel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: int,
        *,
        blocks: int,
        halvings: int = 2,
        norm: Norm = "instance",
        upsampling: Upsampling = "transposed",
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, channels, 7, bias=not norm_first)]
        parts += [norm_layer(norm, channels), nn.ReLU()] if norm_first else [nn.ReLU()]
        for level in range(halvings):
            width = channels << level
            parts += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)]
            parts += [norm_layer(norm, 2 * width), nn.ReLU()]
        parts += [ResidualBlock(channels << halvings, norm) for _ in range(blocks)]
        for level in range(halvings, 0, -1):
            width = channels << level
            parts += [*double(width, width // 2, upsampling, bias=False), norm_layer(norm, width // 2), nn.ReLU()]
        self.body = nn.Sequential(*parts, nn.ReflectionPad2d(3), nn.Conv2d(channels, outputs, 7))

    def forward(self, source: Tensor) -> Tensor:
        """`source` [B, inputs, H, W] to images [B, outputs, H, W] in [-1, 1]."""
        return torch.tanh(self.body(source))


def margin(blocks: int, halvings: int) -> int:
    """Pixels that a result depends on in each direction, leaving out what norms see of the whole image."""
    return 3 + (1 << halvings) - 1 + 2 * blocks * (1 << halvings) + (2 << halvings) + 3
