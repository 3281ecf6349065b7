"""The weights that GANs of convolutions begin with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gensdk_training.running_statistics import settle_spectral_norms

DEVIATION = 0.02


def initialize(network: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the scales of norms, zeros for what is added (Radford et al.
    2015, section 4; Isola et al. 2017, appendix 6.2).

    Under a parametrization (spectral norm, weight norm) it is the weight below that is drawn so.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            _draw(module, "weight", 0.0)
            _clear(module)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.weight is not None:
            _draw(module, "weight", 1.0)
            _clear(module)
    settle_spectral_norms(network)


@torch.no_grad()
def _draw(module: nn.Module, name: str, mean: float) -> None:
    weight = getattr(module, name)
    drawn = nn.init.normal_(torch.empty_like(weight), mean, DEVIATION)
    if is_parametrized(module, name):
        setattr(module, name, drawn)  # what getattr gives there is computed: filling it in place changes nothing
    else:
        weight.copy_(drawn)


def _clear(module: nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d | nn.InstanceNorm2d) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
