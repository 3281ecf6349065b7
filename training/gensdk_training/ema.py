"""The moving average of weights that sampling uses."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of the parameters of some networks.

    After update t (from 0) the average moves by 1 - d towards the weights, d = min(decay, (1 + t) / (10 + t)):
    the warm-up of TensorFlow's ExponentialMovingAverage, so that the first steps don't remember the
    initialization. Buffers are copied: they are averages already (statistics), or must not be averaged (the unit
    vectors of spectral norms, whole numbers).
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.networks = {name: copy.deepcopy(network) for name, network in networks.items()}
        for network in self.networks.values():
            network.requires_grad_(requires_grad=False)
        self._averages, self._sources, self._copies = self._pair(networks)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the networks that it was made from; `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._averages:
            torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for average, source in self._copies:
            average.copy_(source)

    def _pair(
        self, networks: Mapping[str, nn.Module]
    ) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        averages: list[Tensor] = []
        sources: list[Tensor] = []
        copies: list[tuple[Tensor, Tensor]] = []
        for name, network in networks.items():
            average = self.networks[name]
            for mine, source in zip(average.parameters(), network.parameters(), strict=True):
                averages.append(mine.detach())
                sources.append(source.detach())
            copies += zip(average.buffers(), network.buffers(), strict=True)  # the unsaved ones too
        return averages, sources, copies
