"""Stacks of strided convolutions, down and up by two, after DCGAN (Radford et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from gensdk_runtime.errors import InputError

SMALLEST = 4
"""Halving stops at this height or width, but not before the second time."""


def halvings(height: int, width: int, *, family: str) -> int:
    """How often an image is halved: down to 4 pixels, at least twice, as long as both sizes are even.

    8x8 gives 2 (a 2x2 core), 28x28 gives 2 (7x7), 32x32 gives 3, 64x64 gives 4. Raises :class:`InputError`
    for sizes that can't be halved twice, or that leave a core of more than 16 pixels a side.
    """
    times = 0
    while height % 2 == 0 and width % 2 == 0 and (times < 2 or min(height, width) // 2 >= SMALLEST):
        height, width, times = height // 2, width // 2, times + 1
    if times < 2 or max(height, width) > 16:
        size = f"{height * 2**times}x{width * 2**times}"
        raise InputError(
            f"{family} needs a height and width that can be halved at least twice, down to 16 pixels or less; "
            f"got {size}; resize the data, to multiples of 16 for example"
        )
    return times


def widths(channels: int, times: int) -> list[int]:
    """Channels after each halving: `channels`, then twice as many each time, at most 8 times as many."""
    return [channels * min(2**level, 8) for level in range(times)]


def down_stack(
    inputs: int, outputs: list[int], *, normalize: bool, wrap: Callable[[nn.Module], nn.Module] | None = None
) -> nn.Sequential:
    """Convolutions 4x4 with stride 2, each halving the size, LeakyReLU 0.2 after each.

    `normalize` puts a batch norm after each convolution but the first. `wrap` is applied to each convolution
    (spectral norm).
    """
    layers: list[nn.Module] = []
    for index, channels in enumerate(outputs):
        normalized = normalize and index > 0
        convolution = nn.Conv2d(inputs, channels, 4, 2, 1, bias=not normalized)
        layers.append(wrap(convolution) if wrap else convolution)
        if normalized:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.LeakyReLU(0.2))
        inputs = channels
    return nn.Sequential(*layers)


def up_stack(latent: int, inputs: list[int], image: tuple[int, int, int]) -> nn.Sequential:
    """A latent [B, latent] to raw images [B, C, H, W]: projected to a core, then doubled in size each time.

    `inputs` are the channels before each doubling, the core's first. Batch norm and ReLU after the projection
    and each transposed convolution 4x4 with stride 2, but not after the last.
    """
    channels, height, width = image
    core = (height // 2 ** len(inputs), width // 2 ** len(inputs))
    # A transposed convolution of a 1x1 image, which is a projection, as the paper's figure 1 has it.
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, inputs[0], core, bias=False),
    ]
    for before, after in pairwise(inputs):
        layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    last = inputs[-1]
    layers += [nn.BatchNorm2d(last), nn.ReLU(), nn.ConvTranspose2d(last, channels, 4, 2, 1)]
    return nn.Sequential(*layers)
