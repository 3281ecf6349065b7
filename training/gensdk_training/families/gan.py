"""GAN: two networks of linear layers, one that makes samples and one that tells them from real ones.

Paper: Goodfellow et al. 2014, "Generative Adversarial Nets" (arXiv 1406.2661); `packing` is PacGAN's, Lin, Khetan,
Fanti & Oh 2018 (arXiv 1712.04086).

Idea: ``min_G max_D E_x log D(x) + E_z log(1 - D(G(z)))`` (eq. 1), always computed from logits. G minimizes ``-E
log D(G(z))`` (non-saturating), or ``E log(1 - D(G(z)))`` (saturating), whose gradient vanishes where D wins; or
both play least squares (LSGAN, Mao et al. 2017, eq. 9 with a = 0, b = c = 1). `discriminator_steps` steps of D,
then one of G, the other network frozen. With `packing` m, D judges m samples at once, all real or all made, as one
(PacGAN, section 3): where G makes the same sample again and again, that alone tells.

Networks: `generator` and `discriminator`, of linear layers (ReLU in G, LeakyReLU 0.2 in D), or convolutions as
DCGAN has them. Data: images, or points.
Exports: one graph, ``generator``: z to the image (tanh) or the point (no tanh, in the units of the data).

It does not: use maxout, dropout or the paper's uniform z (here N(0, 1)); labels are cgan's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.gan_family import AdamGanConfig, Gan
from gensdk_training.losses import adversarial
from gensdk_training.networks.gan_networks import Wrap
from gensdk_training.registry import register


class VanillaGanConfig(AdamGanConfig):
    """Settings of :class:`VanillaGan`.

    architecture: Linear layers (mlp), for images and points, or convolutions (conv), for images; null takes
        convolutions for images and linear layers for points.
    loss: What the game is: cross entropy, of which the generator has a form that does not vanish or the original
        one, or least squares.
    packing: Samples that the discriminator sees at once (PacGAN); they divide batch_size.
    """

    architecture: Literal["mlp", "conv"] | None = "mlp"
    loss: Literal["non_saturating", "saturating", "lsgan"] = "non_saturating"
    packing: Annotated[int, Field(ge=1, le=16)] = 1


@register("gan")
class VanillaGan(Gan[VanillaGanConfig]):
    """The original GAN, LSGAN and PacGAN."""

    title = "GAN: linear layers; non-saturating, saturating or least squares, packed discriminators (PacGAN)"
    paper = "Goodfellow et al. (2014), Generative Adversarial Nets"
    Config = VanillaGanConfig

    def check(self) -> None:
        """Raises :class:`InputError` where config and data don't go together."""
        super().check()
        batch_size, packing = self.config.batch_size, self.config.packing
        if batch_size % packing:
            raise InputError(f"expected a batch_size that is a multiple of packing {packing}, got {batch_size}")

    def build_discriminator(self, *, wrap: Wrap | None = None, packing: int = 1) -> nn.Module:
        """D over `packing` samples of the config at once."""
        return super().build_discriminator(wrap=wrap, packing=self.config.packing)

    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """``-E log D(x) - E log(1 - D(G(z)))`` in nats, or least squares."""
        return adversarial.critic_loss(self.config.loss, on_real, on_fake)

    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """The chosen loss of G."""
        return adversarial.generator_loss(self.config.loss, on_fake)
