"""f-divergences and their variational bounds (Nowozin, Cseke & Tomioka 2016, "f-GAN", tables 1, 2 and 6).

``D_f(P || Q) = E_Q f(p / q)`` is at least ``E_P T(x) - E_Q f*(T(x))`` for every T (eq. 4), f* the conjugate of f;
and equal where ``T = f'(p / q)`` (eq. 5). T comes from a network's raw value v through an activation g_f, whose
range is the domain of f*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Divergence = Literal["kl", "reverse_kl", "pearson", "jensen_shannon", "squared_hellinger", "total_variation"]
Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FDivergence:
    """`f` of the ratio u > 0, its `slope` f'(u); `conjugate` f*(t) for t in `domain` (lowest, highest).

    `activation` g_f(v), and `conjugate_of_activation`, f*(g_f(v)), which is written so that it overflows as late
    as it can.
    """

    f: Curve
    slope: Curve
    activation: Curve
    conjugate: Curve
    conjugate_of_activation: Curve
    domain: tuple[float, float]

    def bound(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """``E_P g_f(v) - E_Q f*(g_f(v))`` (eq. 6) from raw values v on samples of P and of Q."""
        return self.activation(on_real).mean() - self.conjugate_of_activation(on_fake).mean()


DIVERGENCES: dict[Divergence, FDivergence] = {
    "kl": FDivergence(
        f=lambda u: u * u.log(),
        slope=lambda u: 1 + u.log(),
        activation=lambda v: v,
        conjugate=lambda t: torch.exp(t - 1),
        conjugate_of_activation=lambda v: torch.exp(v - 1),
        domain=(-math.inf, math.inf),
    ),
    "reverse_kl": FDivergence(
        f=lambda u: -u.log(),
        slope=lambda u: -1 / u,
        activation=lambda v: -torch.exp(-v),
        conjugate=lambda t: -1 - torch.log(-t),
        conjugate_of_activation=lambda v: v - 1,
        domain=(-math.inf, 0.0),
    ),
    "pearson": FDivergence(
        f=lambda u: (u - 1).square(),
        slope=lambda u: 2 * (u - 1),
        activation=lambda v: v,
        conjugate=lambda t: t.square() / 4 + t,
        conjugate_of_activation=lambda v: v.square() / 4 + v,
        domain=(-math.inf, math.inf),
    ),
    # Twice the Jensen-Shannon divergence in nats, as the paper's table has it: at most 2 log 2.
    "jensen_shannon": FDivergence(
        f=lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
        slope=lambda u: (2 * u / (u + 1)).log(),
        activation=lambda v: math.log(2) + functional.logsigmoid(v),
        conjugate=lambda t: -torch.log(2 - torch.exp(t)),
        conjugate_of_activation=lambda v: functional.softplus(v) - math.log(2),
        domain=(-math.inf, math.log(2)),
    ),
    "squared_hellinger": FDivergence(
        f=lambda u: (u.sqrt() - 1).square(),
        slope=lambda u: 1 - u.rsqrt(),
        activation=lambda v: 1 - torch.exp(-v),
        conjugate=lambda t: t / (1 - t),
        conjugate_of_activation=lambda v: torch.exp(v) - 1,
        domain=(-math.inf, 1.0),
    ),
    "total_variation": FDivergence(
        f=lambda u: (u - 1).abs() / 2,
        slope=lambda u: (u - 1).sign() / 2,
        activation=lambda v: torch.tanh(v) / 2,
        conjugate=lambda t: t,
        conjugate_of_activation=lambda v: torch.tanh(v) / 2,
        domain=(-0.5, 0.5),
    ),
}
