"""f-GAN: the discriminator's bound on an f-divergence of choice, which the generator brings down.

Paper: Nowozin, Cseke & Tomioka 2016, "f-GAN: Training Generative Neural Samplers using Variational Divergence
Minimization" (arXiv 1606.00709).

Idea: ``D_f(P || Q) >= E_P T(x) - E_Q f*(T(x))`` (eq. 4) with f* the conjugate of f; T = g_f(V(x)) of a network V,
whose activation g_f keeps T in the domain of f* (table 2). D raises the bound; G lowers ``-E f*(T(G(z)))``
(saturating), or raises ``E T(G(z))`` (section 3.2), which does not vanish where D wins. `divergence`: KL, reverse
KL, Pearson chi^2, Jensen-Shannon (which is the GAN, up to constants), squared Hellinger, total variation.

Networks: `generator` and `discriminator` (V), linear layers or convolutions as DCGAN has them; for images or
points.
Exports: one graph, ``generator``: z to the image or the point.

It does not: have the paper's Neyman chi^2 or alpha-divergences. Divergences with an exponential in their conjugate
(KL, squared Hellinger) or activation (reverse KL) can blow up: lower the learning rate, or set grad_clip.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gensdk_training.gan_family import AdamGanConfig, Gan
from gensdk_training.losses.f_divergences import DIVERGENCES, Divergence
from gensdk_training.registry import register


class FganConfig(AdamGanConfig):
    """Settings of :class:`Fgan`.

    architecture: Linear layers (mlp), for images and points, or convolutions (conv), for images; null takes
        convolutions for images and linear layers for points.
    divergence: The f-divergence that the game bounds from below.
    loss: What the generator minimizes: the divergence itself, or the form that does not vanish.
    """

    architecture: Literal["mlp", "conv"] | None = "mlp"
    divergence: Divergence = "jensen_shannon"
    loss: Literal["non_saturating", "saturating"] = "non_saturating"


@register("fgan")
class Fgan(Gan[FganConfig]):
    """GAN on an f-divergence of choice."""

    title = "f-GAN: KL, reverse KL, Pearson, Jensen-Shannon, squared Hellinger or total variation"
    paper = "Nowozin, Cseke & Tomioka (2016), f-GAN"
    Config = FganConfig

    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """Minus the variational bound."""
        return -DIVERGENCES[self.config.divergence].bound(on_real, on_fake)

    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """``-E f*(g_f(V(G(z))))``, or ``-E g_f(V(G(z)))``."""
        divergence = DIVERGENCES[self.config.divergence]
        if self.config.loss == "saturating":
            return -divergence.conjugate_of_activation(on_fake).mean()
        return -divergence.activation(on_fake).mean()
