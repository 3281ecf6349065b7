"""Conditional GAN: both networks are told the label, so that one can be asked for.

Paper: Mirza & Osindero 2014, "Conditional Generative Adversarial Nets" (arXiv 1411.1784).

Idea: ``min_G max_D E_x log D(x|y) + E_z log(1 - D(G(z|y)|y))`` (eq. 2). G gets concat(z, embedding(label)); D gets
an embedding of the sample's own size: one more channel of an image, or as many more values of a point. A sample
that does not fit its label is told by that. Labels of made samples are those of the real ones in the batch.

Networks: `generator` and `discriminator`, convolutions as DCGAN has them for images, linear layers for points.
Exports: one graph, ``generator``: z and the label to the image or the point.

It does not: work without labels, have an auxiliary classifier (ACGAN), or a projection discriminator.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gensdk_runtime.errors import InputError
from gensdk_training.gan_family import AdamGanConfig, Gan
from gensdk_training.losses import adversarial
from gensdk_training.registry import register


class CganConfig(AdamGanConfig):
    """Settings of :class:`Cgan`; those of the networks are DCGAN's.

    loss: What the game is: cross entropy, of which the generator has a form that does not vanish or the original
        one, or least squares.
    """

    loss: Literal["non_saturating", "saturating", "lsgan"] = "non_saturating"


@register("cgan")
class Cgan(Gan[CganConfig]):
    """GAN with labels for both networks."""

    title = "conditional GAN: a label for generator and discriminator, images or points"
    paper = "Mirza & Osindero (2014), Conditional Generative Adversarial Nets"
    Config = CganConfig
    needs_labels = True

    def check(self) -> None:
        """Raises :class:`InputError` where config and data don't go together."""
        super().check()
        if self.data.num_classes is None:
            raise InputError(f"cgan needs labels, but {self.data.name!r} has none; use gan, or data with labels")

    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """``-E log D(x|y) - E log(1 - D(G(z|y)|y))`` in nats, or least squares."""
        return adversarial.critic_loss(self.config.loss, on_real, on_fake)

    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """The chosen loss of G."""
        return adversarial.generator_loss(self.config.loss, on_fake)
