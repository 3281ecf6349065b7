"""Stacks of linear layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import nn


def linears(
    *sizes: int, slope: float = 0.0, wrap: Callable[[nn.Module], nn.Module] | None = None
) -> nn.Sequential:
    """Linear layers between these sizes, with ReLU between them and none after the last.

    `slope` of a LeakyReLU instead, where it is not 0. `wrap` is applied to each layer (spectral norm).
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        linear = nn.Linear(before, after)
        layers += [wrap(linear) if wrap else linear, nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return nn.Sequential(*layers[:-1])
