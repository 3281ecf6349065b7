"""Penalties on gradients of a discriminator: that of WGAN-GP (Gulrajani et al. 2017, eq. 3), and R1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """``E (||grad D(x_hat)||_2 - 1)^2``, x_hat uniform on the line between a real and a fake sample [B, ...].

    The norm is over the whole sample. A critic with a map of values counts their mean for each sample.
    """
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    mixed = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    value = critic(mixed).reshape(len(mixed), -1).mean(1).sum()
    (gradient,) = torch.autograd.grad(value, mixed, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def r1_penalty(on_real: Tensor, real: Tensor) -> Tensor:
    """``E ||grad D(x)||^2 / 2`` over real samples (Mescheder, Geiger & Nowozin 2018, "Which Training Methods for
    GANs do actually Converge?", arXiv 1801.04406, eq. 9).

    `on_real` [B]: D's values on `real` [B, ...], which requires gradients.
    """
    (gradient,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
    penalty: Tensor = gradient.flatten(1).square().sum(dim=1).mean() / 2
    return penalty
