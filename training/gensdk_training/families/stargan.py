"""StarGAN: one generator for many domains, told by a label which one to turn an image into.

Paper: Choi et al. 2018, "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image
Translation" (arXiv 1711.09020).

Idea: G(x, c) draws image x in domain c, and back again: ``|x - G(G(x, c), c_x)|_1`` keeps what the domains
share. D says of each patch whether it is real, and of the whole which domain it is of: D learns that from real
images, G from its own. The game is WGAN-GP, with the gradient's norm over the whole sample, and several steps of
D for one of G.

Networks: `generator`, a ResNet that sees the label as one more channel for each domain; `discriminator`, strided
convolutions with two heads. G's first layer has no norm: over mirrored edges it would take the label out again
(with the paper's zeros at the edges, a trace of it is left there). At test time: each image is normalized by its
own statistics, as while training. Exports: one graph, ``translator``: image and label to the image in that
domain, for any size that is a multiple of 4.

It does not: take several attributes at once (the paper's CelebA: its labels are vectors), or join data sets with
other labels (the paper's mask vector).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_training.examples import Examples
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.graphs.translator import translation_plan
from gensdk_training.losses.gradient_penalty import gradient_penalty
from gensdk_training.networks.resnet_generator import ResnetGenerator, margin
from gensdk_training.networks.translation_unet import Upsampling
from gensdk_training.optim import Schedule
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

HALVINGS = 2
SMALLEST_CORE = 2
"""Pixels of the smallest map that D comes down to."""


class StarGanConfig(FamilyConfig):
    """Settings of :class:`StarGan`; the defaults are the paper's.

    channels: Features of the first level, in both networks.
    blocks: Residual blocks of the generator.
    upsampling: How the generator doubles sizes: transposed convolutions, or repeated pixels and a convolution.
    discriminator_steps: Steps of the discriminator for each of the generator.
    class_weight: Weight of being of the domain that was asked for.
    cycle_weight: Weight of coming back to where one started.
    penalty: Weight of the gradient penalty.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    lr_schedule: Schedule = "late_linear"
    channels: Annotated[int, Field(ge=1, le=1024)] = 64
    blocks: Annotated[int, Field(ge=0, le=64)] = 6
    upsampling: Upsampling = "transposed"
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 5
    class_weight: Annotated[float, Field(ge=0)] = 1.0
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    penalty: Annotated[float, Field(ge=0)] = 10.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class DomainGenerator(nn.Module):
    """G: an image with a channel for each domain, all ones for the one that is asked for."""

    def __init__(self, config: StarGanConfig, image_channels: int, domains: int) -> None:
        super().__init__()
        self.domains = domains
        self.body = ResnetGenerator(
            image_channels + domains,
            image_channels,
            config.channels,
            blocks=config.blocks,
            halvings=HALVINGS,
            upsampling=config.upsampling,
            norm_first=False,  # the label's channels are constant, and a norm subtracts each channel's mean
        )

    def forward(self, source: Tensor, label: Tensor) -> Tensor:
        """`source` [B, C, H, W] and `label` int64 [B] to images [B, C, H, W] in [-1, 1]."""
        chosen = functional.one_hot(label, self.domains).to(source.dtype)[:, :, None, None]
        spread = chosen * torch.ones_like(source[:, :1])
        image: Tensor = self.body(torch.cat((source, spread), dim=1))
        return image


class DomainDiscriminator(nn.Module):
    """D: halves the image while it is large, then judges each place, and the whole."""

    def __init__(self, config: StarGanConfig, shape: tuple[int, int, int], domains: int) -> None:
        super().__init__()
        channels, height, width = shape
        parts: list[nn.Module] = []
        below, above = channels, config.channels
        while min(height, width) > SMALLEST_CORE:
            parts += [nn.Conv2d(below, above, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            below, above, height, width = above, 2 * above, height // 2, width // 2
        self.body = nn.Sequential(*parts)
        self.real = nn.Conv2d(below, 1, 3, padding=1, bias=False)
        self.domain = nn.Conv2d(below, domains, (height, width), bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`images` [B, C, H, W] to how real each place is [B, 1, h, w], and logits of the domains [B, K]."""
        hidden = self.body(images)
        return self.real(hidden), self.domain(hidden).flatten(1)


@register("stargan")
class StarGan(Family[StarGanConfig]):
    """StarGAN over labelled images."""

    title = "StarGAN: one generator between many domains of images, chosen by a label; WGAN-GP"
    paper = "Choi et al. (2018), StarGAN: Unified GANs for Multi-Domain Image-to-Image Translation"
    Config = StarGanConfig
    ema_networks = ("generator",)
    starts_from = "images"
    needs_labels = True

    def check(self) -> None:
        """Raises :class:`InputError` for data of fewer than two domains, or of sizes that can't be halved."""
        if (self.data.num_classes or 0) < 2:
            raise InputError(
                f"stargan needs images of two domains or more as labels, but {self.data.name!r} has none; write "
                "--data NAME=DATA,NAME=DATA for a collection each"
            )
        step = 1 << HALVINGS
        if self.data.height % step or self.data.width % step or min(self.data.height, self.data.width) < 2 * step:
            size = f"{self.data.height} x {self.data.width}"
            raise InputError(f"stargan needs images of a multiple of {step} pixels, got {size}; set --size")

    @property
    def _domains(self) -> int:
        return self.data.num_classes or 1

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `discriminator`."""
        return {
            "generator": DomainGenerator(self.config, self.data.channels, self._domains),
            "discriminator": DomainDiscriminator(self.config, self.data.image.shape, self._domains),
        }

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, repeated `discriminator_steps` times, then `generator`."""
        rate, betas = self.config.learning_rate, (self.config.beta1, self.config.beta2)
        judge = Phase("discriminator", ("discriminator",), rate, betas, repeat=self.config.discriminator_steps)
        return (judge, Phase("generator", ("generator",), rate, betas))

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The paper's eq. 5 and 6, with eq. 8 for the game; the domain to draw is any, for each image."""
        labels = require_labels(batch)
        wanted = torch.randint(self._domains, labels.shape, device=labels.device)
        judge = self._judge if phase == "discriminator" else self._translate
        return judge(networks, batch.images, labels, wanted)

    def _judge(self, networks: Mapping[str, nn.Module], images: Tensor, labels: Tensor, wanted: Tensor) -> Loss:
        with torch.no_grad():
            made = networks["generator"](images, wanted)
        real, domain = networks["discriminator"](images)
        fake, _ = networks["discriminator"](made)
        distance = real.mean() - fake.mean()
        penalty = gradient_penalty(lambda mixed: networks["discriminator"](mixed)[0], images, made)
        named = functional.cross_entropy(domain, labels)
        total = self.config.class_weight * named + self.config.penalty * penalty - distance
        return Loss(total, {"distance": distance.detach(), "domain": named.detach()})

    def _translate(
        self, networks: Mapping[str, nn.Module], images: Tensor, labels: Tensor, wanted: Tensor
    ) -> Loss:
        made = networks["generator"](images, wanted)
        fake, domain = networks["discriminator"](made)
        cycle = functional.l1_loss(networks["generator"](made, labels), images)
        named = functional.cross_entropy(domain, wanted)
        total = self.config.class_weight * named + self.config.cycle_weight * cycle - fake.mean()
        return Loss(total, {"cycle": cycle.detach(), "domain": named.detach()})

    def examples(self, batch: Batch) -> Examples:
        """The images themselves; the domains take turns."""
        return Examples.of(batch.images, None)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``translator``, all of which may be half precision."""
        spec = SourceSpec(
            channels=self.data.channels,
            height=self.data.height,
            width=self.data.width,
            multiple=1 << HALVINGS,
            smallest=2 << HALVINGS,  # mirrored edges need two pixels
            margin=min(margin(self.config.blocks, HALVINGS), 96),
        )
        return translation_plan(
            self.name,
            self.data.name,
            networks["generator"],
            spec,
            self.data.image,
            num_classes=self._domains,
            class_names=self.data.class_names,
        )
