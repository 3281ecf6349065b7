"""The parts that GANs from noise share: settings, two networks, two phases, one exported graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.networks.gan_networks import (
    ConvDiscriminator,
    ConvGenerator,
    MlpDiscriminator,
    MlpGenerator,
    Wrap,
)
from gensdk_training.networks.initialization import initialize
from gensdk_training.networks.strided import halvings
from gensdk_training.plan import ExportPlan

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=16)]
Judge = Callable[[Tensor], Tensor]
Rate = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
EMBEDDING = 16
"""Values of a label that go into G."""


class GanConfig(FamilyConfig):
    """Settings of every GAN from noise.

    architecture: Linear layers (mlp), for images and points, or convolutions (conv), for images; null takes
        convolutions for images and linear layers for points.
    latent: Values in z, standard normal.
    hidden: Features of the linear layers, of both networks. For mlp.
    generator_channels: Features before the generator's last convolution, doubling towards its first, up to eight
        times as many. For conv.
    discriminator_channels: Features after the discriminator's first convolution, doubling with each halving, up
        to eight times as many. For conv.
    discriminator_steps: Steps of the discriminator for each of the generator.
    """

    architecture: Literal["mlp", "conv"] | None = None
    latent: Annotated[int, Field(ge=1, le=4096)] = 64
    hidden: Widths = (128, 128, 128)
    generator_channels: Annotated[int, Field(ge=1, le=4096)] = 64
    discriminator_channels: Annotated[int, Field(ge=1, le=4096)] = 64
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 1
    generator_learning_rate: Rate = 2e-4
    discriminator_learning_rate: Rate = 2e-4


class AdamGanConfig(GanConfig):
    """Settings of a GAN that Adam trains, both networks with the same `beta1` and `beta2`."""

    beta1: Beta = 0.5
    beta2: Beta = 0.999


GanConfigT = TypeVar("GanConfigT", bound=GanConfig)


class Gan(Family[GanConfigT]):
    """A family whose generator makes images or points from noise, trained by its discriminator alone.

    A subclass gives the losses of both: :meth:`discriminator_loss` and :meth:`generator_loss`.
    """

    makes = frozenset(("images", "points"))
    ema_networks = (GENERATOR,)
    normalize = True
    """Whether a convolutional discriminator has batch norms."""

    def check(self) -> None:
        """Raises :class:`InputError` where config and data don't go together."""
        data = self.data
        if self.architecture == "conv":
            if not data.on_a_grid:
                raise InputError(
                    f"architecture conv needs images, and {data.name!r} are points; set architecture=mlp"
                )
            halvings(data.height, data.width, family=f"{self.name} with architecture=conv")

    @property
    def architecture(self) -> Literal["mlp", "conv"]:
        """The architecture that was asked for, or the one for this data."""
        return self.config.architecture or ("conv" if self.data.on_a_grid else "mlp")

    @property
    def num_classes(self) -> int | None:
        """The classes that both networks are told; None without labels."""
        return self.data.num_classes if self.needs_labels else None

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `discriminator`."""
        networks = {GENERATOR: self.build_generator(), DISCRIMINATOR: self.build_discriminator()}
        if self.architecture == "conv":
            for network in networks.values():
                initialize(network)
        return networks

    def build_generator(self) -> nn.Module:
        """G: z [B, latent], and a label, to samples [B, ...]."""
        config, data, classes = self.config, self.data, self.num_classes
        if self.architecture == "mlp":
            return MlpGenerator(
                data, latent=config.latent, hidden=config.hidden, classes=classes, embedding=EMBEDDING
            )
        return ConvGenerator(
            data,
            latent=config.latent,
            channels=config.generator_channels,
            family=self.name,
            classes=classes,
            embedding=EMBEDDING,
        )

    def build_discriminator(self, *, wrap: Wrap | None = None, packing: int = 1) -> nn.Module:
        """D: samples [B, ...], and a label, to [B / packing]; `wrap` is applied to each layer with weights."""
        config, data, classes = self.config, self.data, self.num_classes
        if self.architecture == "mlp":
            return MlpDiscriminator(data, hidden=config.hidden, classes=classes, wrap=wrap, packing=packing)
        return ConvDiscriminator(
            data,
            channels=config.discriminator_channels,
            family=self.name,
            classes=classes,
            normalize=self.normalize,
            wrap=wrap,
            packing=packing,
        )

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, repeated `discriminator_steps` times, then `generator`."""
        config: GanConfig = self.config
        steps, rate = config.discriminator_steps, config.discriminator_learning_rate
        phases = (
            Phase(DISCRIMINATOR, (DISCRIMINATOR,), rate, repeat=steps),
            Phase(GENERATOR, (GENERATOR,), config.generator_learning_rate),
        )
        if not isinstance(config, AdamGanConfig):
            return phases
        return tuple(replace(phase, betas=(config.beta1, config.beta2)) for phase in phases)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """One z for each real sample; D's gradient stays out of G, and in G's phase D is frozen."""
        label = (require_labels(batch),) if self.num_classes else ()
        z = torch.randn(len(batch.images), self.config.latent, device=batch.images.device)
        with torch.set_grad_enabled(phase == GENERATOR):
            fake = networks[GENERATOR](z, *label)

        def judge(samples: Tensor) -> Tensor:
            value: Tensor = networks[DISCRIMINATOR](samples, *label)
            return value

        on_fake = judge(fake)
        if phase == GENERATOR:
            return Loss(self.generator_loss(on_fake), {"on_fake": on_fake.detach().mean()})
        on_real = judge(batch.images)
        total = self.discriminator_loss(on_real, on_fake) + self.penalty(judge, batch.images, fake)
        return Loss(total, {"distance": (on_real.mean() - on_fake.mean()).detach()})

    @abstractmethod
    def discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """What D minimizes, from its values on real and made samples, [B] each."""

    @abstractmethod
    def generator_loss(self, on_fake: Tensor) -> Tensor:
        """What G minimizes, from D's values on what it made, [B]."""

    def penalty(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor | float:
        """An additional term of D's loss, from D itself and samples [B, ...]."""
        return 0.0

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``generator``, all of which may be half precision."""
        return latent_plan(
            self.name,
            GENERATOR,
            networks[GENERATOR],
            self.data,
            latent=self.config.latent,
            conditional=self.num_classes is not None,
        )
