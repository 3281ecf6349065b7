"""The moving average of weights that sampling uses."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of the parameters and buffers of some networks.

    After update t (from 0) the average moves by 1 - d towards the weights, d = min(decay, (1 + t) / (10 + t)):
    the warm-up of TensorFlow's ExponentialMovingAverage, so that the first steps don't remember the
    initialization. Buffers of whole numbers are copied.
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
            mine = _tensors(self.networks[name])
            for key, source in _tensors(network).items():
                if source.is_floating_point():
                    averages.append(mine[key])
                    sources.append(source)
                else:
                    copies.append((mine[key], source))
        return averages, sources, copies


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, the unsaved ones too, as the live tensors."""
    named = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return named | dict(network.named_buffers())
