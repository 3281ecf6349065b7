"""The two generators of pytorch-CycleGAN-and-pix2pix, with that repository's names for their weights.

Papers: Isola et al. (2017), section 3.2.1 (U-Net); Johnson et al. (2016) and Zhu et al. (2017), appendix 7.2
(ResNet). The layers stand where they stand there (https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix,
``models/networks.py``), since state dicts number them. Dropout layers have no weights, but a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from gensdk_training.networks.patches import Norm

Padding = Literal["reflect", "replicate", "zero"]
_PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}


@dataclass(frozen=True)
class GeneratorShape:
    """What a state dict tells of a generator, by that repository's names.

    `net` "unet" with `levels` downsamplings (unet_128: 7, unet_256: 8), or "resnet" with `levels` blocks
    (resnet_6blocks: 6). `ngf`: channels of the widest level. `affine`: the norm has weights.
    """

    net: Literal["unet", "resnet"]
    input_nc: int
    output_nc: int
    ngf: int
    levels: int
    norm: Norm
    dropout: bool
    affine: bool
    bias: bool
    padding: Padding = "reflect"

    @property
    def multiple(self) -> int:
        """What height and width are multiples of."""
        return 4 if self.net == "resnet" else 2**self.levels

    def norm_layer(self, channels: int) -> nn.Module:
        """The norm with or without weights; instance norms keep no statistics."""
        if self.norm == "batch":
            return nn.BatchNorm2d(channels, affine=self.affine)
        if self.norm == "instance":
            return nn.InstanceNorm2d(channels, affine=self.affine, track_running_stats=False)
        return nn.Identity()


class ResnetGenerator(nn.Module):
    """Two halvings, `levels` residual blocks, two doublings; the weights lie in ``model``."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        ngf, norm, bias = shape.ngf, shape.norm_layer, shape.bias
        parts: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(shape.input_nc, ngf, 7, bias=bias)]
        parts += [norm(ngf), nn.ReLU()]
        for width in (ngf, 2 * ngf):
            parts += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias), norm(2 * width), nn.ReLU()]
        parts += [ResnetBlock(4 * ngf, shape) for _ in range(shape.levels)]
        for width in (4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            parts += [up, norm(width // 2), nn.ReLU()]
        parts += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, shape.output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*parts)

    def forward(self, source: Tensor) -> Tensor:
        """`source` [B, input_nc, H, W] in [-1, 1], multiples of 4, to [B, output_nc, H, W] in [-1, 1]."""
        return cast(Tensor, self.model(source))


class ResnetBlock(nn.Module):
    """``x + block(x)``: two convolutions, the weights in ``conv_block``."""

    def __init__(self, channels: int, shape: GeneratorShape) -> None:
        super().__init__()
        parts = [*_padded_conv(channels, shape), shape.norm_layer(channels), nn.ReLU()]
        parts += [nn.Dropout(0.5)] if shape.dropout else []
        parts += [*_padded_conv(channels, shape), shape.norm_layer(channels)]
        self.conv_block = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return x + cast(Tensor, self.conv_block(x))


def _padded_conv(channels: int, shape: GeneratorShape) -> Iterator[nn.Module]:
    if shape.padding == "zero":
        yield nn.Conv2d(channels, channels, 3, padding=1, bias=shape.bias)
    else:
        yield _PADS[shape.padding](1)
        yield nn.Conv2d(channels, channels, 3, bias=shape.bias)


class UnetGenerator(nn.Module):
    """`levels` halvings and doublings, one inside the other; the weights lie in ``model``."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        widths = [shape.ngf * min(2**level, 8) for level in range(shape.levels)]
        block: UnetBlock | None = None
        for level in range(shape.levels - 1, 0, -1):
            drops = shape.dropout and 4 <= level < shape.levels - 1
            block = UnetBlock(widths[level - 1], widths[level - 1], widths[level], block, shape, dropout=drops)
        self.model = UnetBlock(shape.output_nc, shape.input_nc, widths[0], block, shape, outermost=True)

    def forward(self, source: Tensor) -> Tensor:
        """`source` [B, input_nc, H, W], multiples of 2 ** levels, to [B, output_nc, H, W], both in [-1, 1]."""
        return cast(Tensor, self.model(source))


class UnetBlock(nn.Module):
    """One level: halved, `inside`, doubled; beside its input, or at the outermost level alone."""

    def __init__(
        self,
        outer: int,
        inputs: int,
        inner: int,
        inside: UnetBlock | None,
        shape: GeneratorShape,
        *,
        outermost: bool = False,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        halve = nn.Conv2d(inputs, inner, 4, stride=2, padding=1, bias=shape.bias)
        incoming = inner if inside is None else 2 * inner
        double = nn.ConvTranspose2d(incoming, outer, 4, stride=2, padding=1, bias=shape.bias or outermost)
        parts: list[nn.Module] = [halve] if outermost else [nn.LeakyReLU(0.2), halve]
        if inside is not None:
            parts += [inside] if outermost else [shape.norm_layer(inner), inside]
        parts += [nn.ReLU(), double]
        parts += [nn.Tanh()] if outermost else [shape.norm_layer(outer)]
        parts += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outer, H, W], with x before it unless outermost."""
        result: Tensor = self.model(x)
        return result if self.outermost else torch.cat((x, result), dim=1)


def build_generator(shape: GeneratorShape) -> nn.Module:
    """The network of `shape`, in eval mode, on the meta device: it takes no memory until weights are assigned."""
    with torch.device("meta"):
        network = ResnetGenerator(shape) if shape.net == "resnet" else UnetGenerator(shape)
    return network.eval()
