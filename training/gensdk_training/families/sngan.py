"""SNGAN: each layer of the discriminator divided by its largest singular value.

Paper: Miyato, Kataoka, Koyama & Yoshida 2018, "Spectral Normalization for Generative Adversarial Networks" (arXiv
1802.05957).

Idea: with ``W / sigma(W)`` in place of each weight (eq. 8) every layer, and so all of D, is 1-Lipschitz. sigma
comes from one step of power iteration for each pass, which goes on from the vector of the last one (algorithm 1):
weights change little in a step, so it keeps up. The game is the hinge loss (eq. 16 and 17) or the original one.

Networks: `generator` and `discriminator`, convolutions as DCGAN has them but no batch norm in D, or linear layers;
for images or points.
Exports: one graph, ``generator``: z to the image or the point.

It does not: use the paper's ResNets or its projection for labels; sigma is that of the weight reshaped to a
matrix, as in the paper, not that of the convolution.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gensdk_training.gan_family import AdamGanConfig, Beta, Gan
from gensdk_training.losses import adversarial
from gensdk_training.networks.gan_networks import Wrap
from gensdk_training.optim import Schedule
from gensdk_training.registry import register


class SnganConfig(AdamGanConfig):
    """Settings of :class:`Sngan`.

    loss: What the game is: hinge losses, or cross entropy in the form that does not vanish.
    """

    lr_schedule: Schedule = "linear"
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 5
    beta1: Beta = 0.0
    beta2: Beta = 0.9
    loss: Literal["hinge", "non_saturating"] = "hinge"


@register("sngan")
class Sngan(Gan[SnganConfig]):
    """GAN with a spectrally normalized discriminator."""

    title = "GAN with spectral normalization: hinge or non-saturating loss, images or points"
    paper = "Miyato, Kataoka, Koyama & Yoshida (2018), Spectral Normalization for Generative Adversarial Networks"
    Config = SnganConfig
    normalize = False

    def build_discriminator(self, *, wrap: Wrap | None = None, packing: int = 1) -> nn.Module:
        """D with spectral normalization of every layer."""
        return super().build_discriminator(wrap=spectral_norm, packing=packing)

    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """``E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))``, or the original loss."""
        return adversarial.critic_loss(self.config.loss, on_real, on_fake)

    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """``-E D(G(z))``, or the original loss."""
        return adversarial.generator_loss(self.config.loss, on_fake)
