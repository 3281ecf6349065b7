"""A history of generated images for a discriminator to look at (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Keeps up to `size` images. They are part of the weights' file, so that a resumed run goes on exactly.

    Until it is full every image is kept and given back as it is; then each is given back itself or, half of the
    time, replaced by one from the pool, whose place it takes.
    """

    images: Tensor
    count: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, fresh: Tensor) -> Tensor:
        """`fresh` [B, C, H, W], detached, to as many images from now and before."""
        if self.size == 0:
            return fresh
        given, kept = [], int(self.count)
        for image in fresh:
            if kept < self.size:
                self.images[kept] = image
                kept += 1
                given.append(image)
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                given.append(self.images[place].clone())
                self.images[place] = image
            else:
                given.append(image)
        self.count.fill_(kept)
        return torch.stack(given)
