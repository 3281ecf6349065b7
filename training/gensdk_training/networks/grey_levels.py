"""Grey levels: between normalized values in [-1, 1] and level indices, and drawing a level from logits."""

from __future__ import annotations

import torch
from torch import Tensor


def level_of(values: Tensor, levels: int) -> Tensor:
    """The nearest of `levels` equidistant levels, 0 to levels - 1, as a float tensor of the same shape.

    `values` lie in [-1, 1]; what lies outside gets the first or last level.
    """
    return torch.clamp(torch.round((values + 1.0) * ((levels - 1) / 2)), 0, levels - 1)


def value_of(level: Tensor, levels: int) -> Tensor:
    """The normalized value in [-1, 1] of a float level index in 0 to levels - 1."""
    return level * (2.0 / (levels - 1)) - 1.0


def to_bytes(values: Tensor) -> Tensor:
    """uint8, the nearest of 256 levels of `values` in [-1, 1]."""
    return level_of(values, 256).to(torch.uint8)


def from_bytes(levels: Tensor) -> Tensor:
    """float32 in [-1, 1] of levels from 0 to 255."""
    return levels.to(torch.float32) / 127.5 - 1.0


def draw_level(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws a level by the inverse CDF: the number of levels whose cumulative probability is <= `uniform`.

    `logits` [B, levels] and `uniform` [B, 1] in [0, 1), both float32; gives a float level index [B, 1]. Levels
    at which the last cumulative probability is reached, 1 up to rounding, don't count, so that the index never
    leaves the levels, nor is one that has no probability, however close `uniform` is to 1.
    """
    cumulative = torch.cumsum(torch.softmax(logits, dim=1), dim=1)
    before = (cumulative <= uniform) & (cumulative < cumulative[:, -1:])
    return before.to(logits.dtype).sum(dim=1, keepdim=True)
