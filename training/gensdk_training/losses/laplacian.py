"""The L1 distance of Laplacian pyramids (Ling & Okada 2006), as GLO uses it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 4
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def laplacian_l1(images: Tensor, others: Tensor) -> Tensor:
    """``sum_j 2^(2j) |L_j(x) - L_j(x')|_1`` of each image of [B, C, H, W], [B] (Bojanowski et al. 2018, eq. 3).

    L_j is what level j of the pyramid has beyond level j + 1, blurred by a binomial 5x5; the last level is what is
    left, after halving as long as both sizes are even, down to 4 pixels.
    """
    # The pyramid is linear: that of the difference is the difference of the pyramids.
    level, weight = images - others, 1.0
    total = level.new_zeros(level.shape[0])
    while min(level.shape[2:]) // 2 >= SMALLEST and not any(size % 2 for size in level.shape[2:]):
        lower = functional.avg_pool2d(_blurred(level), 2)
        total = total + weight * _l1(level - functional.interpolate(lower, scale_factor=2.0, mode="nearest"))
        level, weight = lower, 4 * weight
    return total + weight * _l1(level)


def _l1(images: Tensor) -> Tensor:
    return images.abs().sum(dim=(1, 2, 3))


def _blurred(images: Tensor) -> Tensor:
    row = torch.tensor(BINOMIAL, dtype=images.dtype, device=images.device) / sum(BINOMIAL)
    channels = images.shape[1]
    kernel = torch.outer(row, row).reshape(1, 1, 5, 5).repeat(channels, 1, 1, 1)
    return functional.conv2d(images, kernel, padding=2, groups=channels)
