"""WGAN: a critic of clipped weights estimates the Wasserstein distance, and the generator brings it down.

Paper: Arjovsky, Chintala & Bottou 2017, "Wasserstein GAN" (arXiv 1701.07875).

Idea: ``W(P, Q) = sup_{|D|_L <= 1} E_P D(x) - E_Q D(x)`` (eq. 2). D is a critic without a sigmoid, kept K-Lipschitz
for some K by clipping each weight to [-c, c] after each step (algorithm 1); ``E D(x) - E D(G(z))`` then is a
distance with a gradient even where the supports don't meet. The critic is trained nearly to its optimum:
`discriminator_steps` of it for one of G, by RMSProp, since a momentum upsets it.

Networks: `generator` and `discriminator` (the critic), convolutions as DCGAN has them, or linear layers; for
images or points.
Exports: one graph, ``generator``: z to the image or the point.

It does not: train the critic longer at the start (the authors' code does), or measure the distance itself: weights
of another bound give another multiple of it. What clipping costs is seen beside wgan_gp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from gensdk_training.family import Phase
from gensdk_training.gan_family import DISCRIMINATOR, Gan, GanConfig, Rate
from gensdk_training.losses import adversarial
from gensdk_training.registry import register


class WganConfig(GanConfig):
    """Settings of :class:`Wgan`; the defaults are the paper's.

    clip: Largest absolute weight of the critic.
    """

    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 5
    generator_learning_rate: Rate = 5e-5
    discriminator_learning_rate: Rate = 5e-5
    clip: Annotated[float, Field(gt=0)] = 0.01


@register("wgan")
class Wgan(Gan[WganConfig]):
    """Wasserstein GAN with weight clipping."""

    title = "Wasserstein GAN: a critic with clipped weights, RMSProp, images or points"
    paper = "Arjovsky, Chintala & Bottou (2017), Wasserstein GAN"
    Config = WganConfig

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, repeated, then `generator`, both by RMSProp."""
        return tuple(replace(phase, optimizer="rmsprop") for phase in super().phases())

    def after_update(self, phase: str, networks: Mapping[str, nn.Module]) -> None:
        """Clips the critic's weights."""
        if phase == DISCRIMINATOR:
            for parameter in networks[DISCRIMINATOR].parameters():
                parameter.clamp_(-self.config.clip, self.config.clip)

    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """``E D(G(z)) - E D(x)``: minus the estimated distance."""
        return adversarial.critic_loss("wasserstein", on_real, on_fake)

    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """``-E D(G(z))``."""
        return adversarial.generator_loss("wasserstein", on_fake)
