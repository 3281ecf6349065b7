"""DCGAN: a generator of transposed convolutions against a discriminator of strided ones.

Paper: Radford, Metz & Chintala 2015, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks" (arXiv 1511.06434); the game is that of Goodfellow et al. 2014.

Idea: ``min_G max_D E_x log D(x) + E_z log(1 - D(G(z)))``, always computed from logits. The generator's loss is
``-E log D(G(z))`` (non-saturating), or ``E log(1 - D(G(z)))`` (saturating), whose gradient vanishes where D
wins. `discriminator_steps` steps of D, then one of G, the other network frozen. A class label makes it a cGAN
(Mirza & Osindero 2014): G gets concat(z, embedding(label)), D an embedding of the image's size as one more
channel. Spectral normalization of D (Miyato et al. 2018) takes the place of its batch norm.

Networks: `generator` and `discriminator`, as deep as halving the image allows. No norm at G's output and D's
input, LeakyReLU 0.2 in D, ReLU and a final tanh in G, weights from N(0, 0.02), no pooling.
Exports: one graph, ``generator``: z and the label to the image.

It does not: use the paper's uniform z (here N(0, 1)), a gradient penalty, projection, or sizes that can't be
halved twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gensdk_runtime.errors import InputError
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.losses.adversarial import critic_loss, decided_right, generator_loss
from gensdk_training.networks.gan_networks import ConvDiscriminator, ConvGenerator
from gensdk_training.networks.initialization import initialize
from gensdk_training.networks.strided import halvings
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class DcganConfig(FamilyConfig):
    """Settings of :class:`Dcgan`; the defaults are the paper's.

    latent: Values in z, standard normal.
    generator_channels: Features before the generator's last layer (the paper's ngf), doubling towards its first,
        up to eight times as many.
    discriminator_channels: Features after the discriminator's first layer (the paper's ndf), doubling with each
        halving, up to eight times as many.
    loss: The generator's loss: in the form that does not vanish, or the original one.
    discriminator_steps: Steps of the discriminator for each of the generator.
    spectral_norm: Whether the discriminator's weights are divided by their norm, in place of batch norms.
    embedding: Values that a label becomes for the generator. With conditional.
    """

    latent: Annotated[int, Field(ge=1, le=4096)] = 100
    generator_channels: Annotated[int, Field(ge=1, le=65536)] = 64
    discriminator_channels: Annotated[int, Field(ge=1, le=65536)] = 64
    loss: Literal["non_saturating", "saturating"] = "non_saturating"
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 1
    spectral_norm: bool = False
    conditional: bool = False
    embedding: Annotated[int, Field(ge=1, le=1024)] = 16
    generator_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


@register("dcgan")
class Dcgan(Family[DcganConfig]):
    """DCGAN and, with labels, its cGAN."""

    title = "DCGAN: convolutional GAN; non-saturating or saturating loss, labels, spectral normalization"
    paper = "Radford, Metz & Chintala (2015), Unsupervised Representation Learning with DCGANs"
    Config = DcganConfig
    ema_networks = ("generator",)

    def check(self) -> None:
        """Raises :class:`InputError` where size or labels of the data don't go with the config."""
        halvings(self.data.height, self.data.width, family="dcgan")
        if self.config.conditional and self.data.num_classes is None:
            name = self.data.name
            raise InputError(f"conditional needs labels, but {name!r} has none; set conditional=false")

    @property
    def _num_classes(self) -> int | None:
        return self.data.num_classes if self.config.conditional else None

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `discriminator`."""
        config, classes = self.config, self._num_classes
        networks: dict[str, nn.Module] = {
            "generator": ConvGenerator(
                self.data,
                latent=config.latent,
                channels=config.generator_channels,
                family=self.name,
                classes=classes,
                embedding=config.embedding,
            ),
            "discriminator": ConvDiscriminator(
                self.data,
                channels=config.discriminator_channels,
                family=self.name,
                classes=classes,
                normalize=not config.spectral_norm,
                wrap=spectral_norm if config.spectral_norm else None,
            ),
        }
        for network in networks.values():
            initialize(network)
        return networks

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, repeated `discriminator_steps` times, then `generator`."""
        config, betas = self.config, (self.config.beta1, self.config.beta2)
        discriminator = Phase(
            "discriminator",
            ("discriminator",),
            config.discriminator_learning_rate,
            betas,
            repeat=config.discriminator_steps,
        )
        return (discriminator, Phase("generator", ("generator",), config.generator_learning_rate, betas))

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """``-E log D(x) - E log(1 - D(G(z)))`` for D; the chosen loss for G. In nats, means over the batch."""
        label = (require_labels(batch),) if self.config.conditional else ()
        z = torch.randn(len(batch.images), self.config.latent, device=batch.images.device)
        with torch.set_grad_enabled(phase == "generator"):
            fake = networks["generator"](z, *label)
        on_fake = networks["discriminator"](fake, *label)
        if phase == "generator":
            total = generator_loss(self.config.loss, on_fake)
            return Loss(total, {"d_fake": torch.sigmoid(on_fake.detach()).mean()})
        on_real = networks["discriminator"](batch.images, *label)
        total = critic_loss(self.config.loss, on_real, on_fake)
        right = decided_right(on_real, on_fake, game="vanilla")
        return Loss(total, {"d_real": torch.sigmoid(on_real.detach()).mean(), "right": right})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``generator``, all of which may be half precision."""
        return latent_plan(
            self.name,
            "generator",
            networks["generator"],
            self.data,
            latent=self.config.latent,
            conditional=self.config.conditional,
        )
