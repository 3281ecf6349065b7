"""PatchGAN: a discriminator that judges patches, each by a logit of its own (Isola et al. 2017, 6.1.2)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gensdk_runtime.errors import InputError

Norm = Literal["batch", "instance", "none"]


def norm_layer(norm: Norm, channels: int, *, affine: bool = True) -> nn.Module:
    """A norm over `channels`; instance norms keep no running statistics: training and sampling are alike."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=affine, track_running_stats=False)
    return nn.Identity()


class PatchDiscriminator(nn.Sequential):
    """4x4 convolutions: `layers` with stride 2, one with stride 1, and the logit.

    Three layers see patches of 70x70 pixels, two of 34x34, one of 16x16. No norm at the input, LeakyReLU 0.2.
    """

    def __init__(self, inputs: int, channels: int, *, layers: int = 3, norm: Norm = "batch") -> None:
        parts: list[nn.Module] = [nn.Conv2d(inputs, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            wider = channels * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            parts.append(nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=norm != "batch"))
            parts += [norm_layer(norm, wider), nn.LeakyReLU(0.2)]
            width = wider
        super().__init__(*parts, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] to logits [B, 1, h, w], one for each patch."""
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits


def check_patches(height: int, width: int, layers: int) -> None:
    """Raises :class:`InputError` for images too small for a discriminator of so many layers."""
    if (min(height, width) >> layers) < 3:
        raise InputError(
            f"images of {height} x {width} are too small for patch_layers {layers}: expected at least "
            f"{3 << layers} pixels a side; set fewer"
        )
