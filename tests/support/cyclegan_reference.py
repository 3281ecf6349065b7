"""pytorch-CycleGAN-and-pix2pix's two generators as its papers and its state dicts have them, written anew.

Every layer is made by its number, so that the names of the weights are beyond doubt.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


def norm_of(norm: str, channels: int) -> nn.Module | None:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels) if norm == "instance" else None


class Numbered(nn.Module):
    """Layers by number; numbers without a layer (identities) are left out."""

    def __init__(self, layers: list[nn.Module | None]) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            if layer is not None:
                self.add_module(str(number), layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class Block(nn.Module):
    def __init__(self, width: int, norm: str, *, dropout: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        drop: list[nn.Module | None] = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = Numbered(
            [
                nn.ReflectionPad2d(1),
                nn.Conv2d(width, width, 3, bias=bias),
                norm_of(norm, width),
                nn.ReLU(),
                *drop,
                nn.ReflectionPad2d(1),
                nn.Conv2d(width, width, 3, bias=bias),
                norm_of(norm, width),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Resnet(nn.Module):
    def __init__(self, inputs: int, outputs: int, ngf: int, blocks: int, norm: str, *, dropout: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        self.model = Numbered(
            [
                nn.ReflectionPad2d(3),
                nn.Conv2d(inputs, ngf, 7, bias=bias),
                norm_of(norm, ngf),
                nn.ReLU(),
                nn.Conv2d(ngf, ngf * 2, 3, 2, 1, bias=bias),
                norm_of(norm, ngf * 2),
                nn.ReLU(),
                nn.Conv2d(ngf * 2, ngf * 4, 3, 2, 1, bias=bias),
                norm_of(norm, ngf * 4),
                nn.ReLU(),
                *(Block(ngf * 4, norm, dropout=dropout) for _ in range(blocks)),
                nn.ConvTranspose2d(ngf * 4, ngf * 2, 3, 2, 1, 1, bias=bias),
                norm_of(norm, ngf * 2),
                nn.ReLU(),
                nn.ConvTranspose2d(ngf * 2, ngf, 3, 2, 1, 1, bias=bias),
                norm_of(norm, ngf),
                nn.ReLU(),
                nn.ReflectionPad2d(3),
                nn.Conv2d(ngf, outputs, 7),
                nn.Tanh(),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Unet(nn.Module):
    """Flat: what goes down, what comes up, and the names that the nested blocks of the original give them."""

    def __init__(self, inputs: int, outputs: int, ngf: int, downs: int, norm: str) -> None:
        super().__init__()
        bias = norm == "instance"
        widths = [ngf, ngf * 2, ngf * 4, *[ngf * 8] * (downs - 3)]
        self.downs, self.ups, self.down_norms, self.up_norms = (nn.ModuleList() for _ in range(4))
        before = inputs
        for level, width in enumerate(widths):
            self.downs.append(nn.Conv2d(before, width, 4, 2, 1, bias=bias))
            normed = norm_of(norm, width) if 0 < level < downs - 1 else None
            self.down_norms.append(normed or nn.Identity())
            outer = outputs if level == 0 else widths[level - 1]
            incoming = width if level == downs - 1 else width * 2
            self.ups.append(nn.ConvTranspose2d(incoming, outer, 4, 2, 1, bias=bias or level == 0))
            self.up_norms.append((norm_of(norm, outer) if level else None) or nn.Identity())
            before = width

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, (down, norm) in enumerate(zip(self.downs, self.down_norms, strict=True)):
            x = norm(down(x if level == 0 else nn.functional.leaky_relu(x, 0.2)))
            skips.append(x)
        x = skips.pop()
        for up, norm in zip(reversed(self.ups), reversed(self.up_norms), strict=True):
            x = norm(up(torch.relu(x)))
            x = torch.cat([skips.pop(), x], 1) if skips else x
        return torch.tanh(x)

    def original_state_dict(self) -> OrderedDict[str, Tensor]:
        """The weights under the names of nested blocks."""
        named: OrderedDict[str, Tensor] = OrderedDict()
        last, prefix = len(self.downs) - 1, "model.model."
        for level in range(last + 1):
            numbers = (0, None, 3, None) if level == 0 else (1, None, 3, 4) if level == last else (1, 2, 5, 6)
            layers = (self.downs[level], self.down_norms[level], self.ups[level], self.up_norms[level])
            for number, layer in zip(numbers, layers, strict=True):
                for name, tensor in layer.state_dict().items():
                    named[f"{prefix}{number}.{name}"] = tensor
            prefix += "1.model." if level == 0 else "3.model."
        return named
