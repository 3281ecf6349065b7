"""Layers that draw an image pixel after pixel, written in three equal forms over the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Form = Literal["parallel", "row", "pixel"]


class ThreeForms(nn.Module):
    """A layer over whole images (training and likelihoods), over one row, and at one pixel, with what lies to its
    left in a cache. What each form takes and gives is the layer's own."""

    _parallel: Callable[..., tuple[Any, ...]]
    _row: Callable[..., tuple[Any, ...]]
    _pixel: Callable[..., tuple[Any, ...]]

    def forward(self, form: Form, *tensors: Tensor | None) -> tuple[Any, ...]:
        """One of the three forms; all calls come through here, so that hooks (half precision) see them."""
        if form == "parallel":
            return self._parallel(*tensors)
        return self._row(*tensors) if form == "row" else self._pixel(*tensors)


def uniform_parameter(*shape: int, fan_in: int) -> nn.Parameter:
    """Uniform within 1 / sqrt(fan_in) of zero."""
    return nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))
