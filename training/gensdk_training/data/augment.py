"""Random flips and shifts of a batch: the same for both images of a pair. A function of the seed and the batch."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Augmentation = Literal["flip", "shift"]

SHIFT = 8
"""A shift goes up to one part in so many of the image's size, in each direction."""
_STREAM = 3 << 62
"""Keeps the keys apart from those of the noise and of the order."""


class Augment:
    """Applies `kinds` to batches; "flip" mirrors left and right, "shift" moves the image, mirrored at the edge."""

    def __init__(self, kinds: tuple[Augmentation, ...], *, seed: int) -> None:
        self.kinds = kinds
        self._seed = seed

    def __call__(self, number: int, rank: int, images: Tensor, sources: Tensor | None, *, paired: bool) -> Batches:
        """Batch `number` of process `rank`: float32 [B, C, H, W] each."""
        if not self.kinds:
            return images, sources
        key = np.array([self._seed, _STREAM | number << 16 | rank], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        moves = self._draw(len(images), random)
        images = _apply(images, moves)
        if sources is not None:
            sources = _apply(sources, moves if paired else self._draw(len(sources), random))
        return images, sources

    def _draw(self, count: int, random: np.random.Generator) -> Moves:
        """For each image whether it is flipped, and by what share of its room it is shifted, -1 to 1."""
        flips, shifts = random.random(count) < 0.5, 2 * random.random((count, 2)) - 1
        return flips & ("flip" in self.kinds), shifts * ("shift" in self.kinds)


Batches = tuple[Tensor, Tensor | None]
Moves = tuple[NDArray[np.bool_], NDArray[np.float64]]


def _apply(images: Tensor, moves: Moves) -> Tensor:
    flips, shifts = moves
    flipped = torch.from_numpy(flips).to(images.device)[:, None, None, None]
    images = torch.where(flipped, images.flip(3), images)
    if not shifts.any():
        return images
    height, width = images.shape[2:]
    down, right = height // SHIFT, width // SHIFT
    padded = functional.pad(images, (right, right, down, down), mode="reflect")
    places = np.rint((shifts + 1) * (down, right)).astype(int).tolist()
    moved = [
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(padded, places, strict=True)
    ]
    return torch.stack(moved)
