"""Images moved by a few pixels, as discriminators and matchers see them that know few images."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted(images: Tensor, most: float) -> Tensor:
    """`images` [B, C, H, W], each moved by a number of pixels of its own, up or down and to a side by up to the
    share `most` of its size, with its edge repeated behind. Gradients go back into `images`.

    Where both real and made images are moved, a generator does not learn to move its own (Zhao et al. 2020,
    "Differentiable Augmentation for Data-Efficient GAN Training", arXiv 2006.10738, section 3.2).
    """
    count, channels, *size = images.shape
    if not any(int(most * length) for length in size):
        return images
    each = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    down, across = (_moved(length, int(most * length), count, images.device) for length in size)
    return images[each, channel, down[:, None, :, None], across[:, None, None, :]]


def _moved(length: int, most: int, count: int, device: torch.device) -> Tensor:
    """For each of `count` images where the pixels of one axis come from: int64 [count, length]."""
    moves = torch.randint(-most, most + 1, (count, 1), device=device)
    return (torch.arange(length, device=device) + moves).clamp(0, length - 1)
