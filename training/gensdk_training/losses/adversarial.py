"""The adversarial losses that families share, always from logits; each map of logits is averaged."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Game = Literal["vanilla", "lsgan"]
Objective = Literal["non_saturating", "saturating", "lsgan", "hinge", "wasserstein"]


def towards(game: Game, logits: Tensor, *, real: bool) -> Tensor:
    """How far `logits` are from "real", or from "fake".

    "vanilla": ``-log D`` or ``-log(1 - D)`` (Goodfellow et al. 2014, the non-saturating form for G). "lsgan":
    ``(D - 1)^2`` or ``D^2`` (Mao et al. 2017, eq. 9 with a = 0, b = c = 1).
    """
    if game == "lsgan":
        return (logits - (1.0 if real else 0.0)).square().mean()
    return -functional.logsigmoid(logits if real else -logits).mean()


def discriminator_loss(game: Game, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Half of both losses: D learns half as fast as G (Isola et al. 2017, section 3.3)."""
    return (towards(game, on_real, real=True) + towards(game, on_fake, real=False)) / 2


def critic_loss(objective: Objective, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """What D minimizes, both terms in full.

    "non_saturating" and "saturating": ``-E log D(x) - E log(1 - D(G(z)))`` (Goodfellow et al. 2014, eq. 1);
    "lsgan": ``E (D(x) - 1)^2 + E D(G(z))^2``; "hinge": ``E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))`` (Miyato et
    al. 2018, eq. 16); "wasserstein": ``E D(G(z)) - E D(x)`` (Arjovsky et al. 2017, eq. 2).
    """
    if objective == "wasserstein":
        return on_fake.mean() - on_real.mean()
    if objective == "hinge":
        return functional.relu(1 - on_real).mean() + functional.relu(1 + on_fake).mean()
    game: Game = "lsgan" if objective == "lsgan" else "vanilla"
    return towards(game, on_real, real=True) + towards(game, on_fake, real=False)


def generator_loss(objective: Objective, on_fake: Tensor) -> Tensor:
    """What G minimizes against :func:`critic_loss`.

    "non_saturating": ``-E log D(G(z))``; "saturating": ``E log(1 - D(G(z)))``, whose gradient vanishes where D
    wins; "lsgan": ``E (D(G(z)) - 1)^2``; "hinge" and "wasserstein": ``-E D(G(z))``.
    """
    if objective in ("hinge", "wasserstein"):
        return -on_fake.mean()
    if objective == "saturating":
        return -towards("vanilla", on_fake, real=False)
    return towards("lsgan" if objective == "lsgan" else "vanilla", on_fake, real=True)


def decided_right(on_real: Tensor, on_fake: Tensor, *, game: Game) -> Tensor:
    """The share of patches that D tells right: near one half where G wins, near one where D does."""
    edge = 0.5 if game == "lsgan" else 0.0
    return ((on_real > edge).float().mean() + (on_fake < edge).float().mean()).detach() / 2


def concat(source: Tensor, image: Tensor) -> Tensor:
    """What a conditional D looks at: source and image as channels of one."""
    return torch.cat((source, image), dim=1)
