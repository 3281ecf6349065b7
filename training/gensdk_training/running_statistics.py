"""The state that a forward pass changes: the statistics of batch norms, the vectors of spectral norms.

A network that is used, but not trained, must stay what it is: a generator whose statistics follow another input
than the noise that it will be sampled from makes other pictures afterwards, and nothing in its weights shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm

CONVERGED = 100
"""Power iterations that bring the vectors of a spectral norm to a weight's own."""
SETTLED = 15
"""As many as PyTorch makes where it puts a spectral norm on a weight."""
UNIT = 1e-3
"""How far the length of such a vector may be from 1: rounding stays far below."""
NEAR = 0.75
"""``u' W v`` over the weight's norm. One iteration a step keeps it near 1; a spectrum without a gap, below."""


def let_statistics_move(network: nn.Module, *, move: bool) -> None:
    """Whether passes in training mode change the buffers of `network`. Its results are the same either way: batch
    norms go on using the statistics of the batch."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.track_running_stats = move  # of importance in training mode alone
        elif isinstance(module, _SpectralNorm):
            module.training = move and network.training


@contextmanager
def evaluated(*networks: nn.Module) -> Iterator[None]:
    """Puts `networks` into eval mode meanwhile: they do what they will do when they are sampled, and keep their
    buffers. Afterwards every part has the mode that it had."""
    parts = [(module, module.training) for network in networks for module in network.modules()]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in parts:
            module.training = training


def spectral_norms(network: nn.Module) -> Iterator[tuple[str, _SpectralNorm, Tensor]]:
    """The spectral norms in `network`: the layer's name, the parametrization, and the weight that it divides."""
    for name, module in network.named_modules():
        for parametrizations in getattr(module, "parametrizations", {}).values():
            for part in parametrizations:
                if isinstance(part, _SpectralNorm) and hasattr(part, "_u"):  # a vector's norm needs none
                    yield name, part, parametrizations.original


def wrong_spectral_norms(network: nn.Module, *, near: float = NEAR) -> list[str]:
    """What is wrong with the spectral norms in `network`, one line for each: a weight divided by ``u' W v`` has
    norm 1 only where u and v are unit vectors, near the weight's first singular ones.

    `near`: the least ``u' W v`` over the norm; below -1 only lengths count, for networks that nothing has trained.
    """
    return [
        f"{name}: |u| {lengths[0]:.3g}, |v| {lengths[1]:.3g}, u'Wv {share:.3g} of the norm"
        for name, norm, weight in spectral_norms(network)
        for lengths, share in [_measured(norm, weight)]
        if not _is_right(lengths, share, near)
    ]


@torch.no_grad()
def mend_spectral_norms(network: nn.Module) -> None:
    """Computes the vectors of spectral norms anew that are no unit vectors, or not near the weight's own.

    Checkpoints that gensdk wrote before averages had the network's own vectors hold averages of them. Those are
    too short, and make a weight too large.
    """
    for _, norm, weight in spectral_norms(network):
        if not _is_right(*_measured(norm, weight)):
            norm._power_method(norm._reshape_weight_to_matrix(weight), CONVERGED)


def settle_spectral_norms(network: nn.Module) -> None:
    """Brings the vectors of spectral norms to weights that were set anew."""
    for _, norm, weight in spectral_norms(network):
        norm._power_method(norm._reshape_weight_to_matrix(weight.detach()), SETTLED)


@torch.no_grad()
def _measured(norm: _SpectralNorm, weight: Tensor) -> tuple[tuple[float, float], float]:
    """The lengths of u and v, and ``u' W v`` of unit vectors over the weight's norm."""
    matrix = norm._reshape_weight_to_matrix(weight).float()
    u, v = (vector.float() for vector in (norm._u, norm._v))
    lengths = (float(u.norm()), float(v.norm()))
    square = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix  # far faster than all of it
    true = float(torch.linalg.eigvalsh(square)[-1].clamp(min=0).sqrt())
    found = float(u @ matrix @ v) / max(lengths[0] * lengths[1], norm.eps)
    return lengths, found / true if true > 0 else 1.0


def _is_right(lengths: tuple[float, float], share: float, near: float = NEAR) -> bool:
    return share >= near and all(abs(length - 1) <= UNIT for length in lengths)
