"""Statistics for batch norms whose weights were never trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def calibrate_batch_norms(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Sets running means and variances to those of `batches`; the network comes back in eval mode.

    With the statistics of a fresh network (0 and 1) features would fade from layer to layer, and all images
    would be the same grey.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
