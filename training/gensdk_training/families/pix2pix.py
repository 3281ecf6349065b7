"""pix2pix: one image becomes another, learnt from aligned pairs.

Paper: Isola, Zhu, Zhou & Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks" (arXiv
1611.07004).

Idea: ``G* = argmin_G max_D L_cGAN(G, D) + lambda L_L1(G)``. L1 alone gives the mean of all answers, which is
blurred; the GAN alone invents; both together are sharp and near. D looks at source and image together, in
patches: each has a logit of its own, so D judges texture and leaves the rest to L1. `objective` selects either
half, to show what it is for.

Networks: `generator`, a U-Net as deep as halving the image allows (at most eight times), whose skips carry what
both images share; `discriminator`, a PatchGAN over (x, y).
At test time: dropout is off, and with `norm` "instance" every image is normalized by its own statistics, while
training as well as afterwards (the paper's batch norm with batches of one does the same); "batch" uses the running
statistics. The golden trajectory proves it.
Exports: one graph, ``translator``: the source to the image, of any size that can be halved as often.

It does not: draw different answers for one source (the paper's noise is dropout at test time, which its authors
found to change little), or train on crops of larger images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_sources
from gensdk_training.graphs.translator import translation_plan
from gensdk_training.losses.adversarial import Game, concat, decided_right, discriminator_loss, towards
from gensdk_training.networks.initialization import initialize
from gensdk_training.networks.patches import PatchDiscriminator, check_patches
from gensdk_training.networks.translation_unet import TranslationUnet, Upsampling
from gensdk_training.optim import Schedule
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

MAX_DEPTH = 8
MARGIN = 32
"""Pixels: skips make a result local, though the innermost level sees far more."""


class Pix2PixConfig(FamilyConfig):
    """Settings of :class:`Pix2Pix`; the defaults are the paper's, but for the width.

    objective: Both losses, or one half of them: the mean absolute difference, or the game.
    game: What the discriminator plays: cross entropy, or least squares.
    channels: Features of the first level, in both networks.
    depth: Halvings of the U-Net; 0 takes as many as the image allows.
    norm: Statistics of each image, also afterwards; or of the batch, and running ones afterwards.
    upsampling: How the generator doubles sizes: transposed convolutions, or repeated pixels and a convolution.
    dropout: Share of the features that is left out in the innermost levels while it trains.
    patch_layers: Halvings of the discriminator: 3 judge patches of 70x70 pixels, 2 of 34x34, 1 of 16x16.
    l1_weight: lambda: weight of the mean absolute difference.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    lr_schedule: Schedule = "late_linear"
    objective: Literal["both", "l1", "gan"] = "both"
    game: Game = "vanilla"
    channels: Annotated[int, Field(ge=1, le=1024)] = 64
    depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 0
    norm: Literal["batch", "instance"] = "instance"
    upsampling: Upsampling = "transposed"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    patch_layers: Annotated[int, Field(ge=1, le=5)] = 3
    l1_weight: Annotated[float, Field(ge=0)] = 100.0
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


@register("pix2pix")
class Pix2Pix(Family[Pix2PixConfig]):
    """pix2pix, and either half of its objective."""

    title = "pix2pix: an image from an aligned other one; U-Net, PatchGAN, L1; either loss alone"
    paper = "Isola, Zhu, Zhou & Efros (2017), Image-to-Image Translation with Conditional Adversarial Networks"
    Config = Pix2PixConfig
    ema_networks = ("generator",)
    starts_from = "pairs"

    def check(self) -> None:
        """Raises :class:`InputError` for data without pairs, or of a size that can't be halved often enough."""
        source = self.data.source
        if source is None or not source.paired:
            raise InputError("pix2pix needs pairs: give what is translated with --inputs, as many as --data")
        if (source.height, source.width) != (self.data.height, self.data.width):
            raise InputError("pix2pix needs inputs of the same size as the images; set --size")
        if self.data.height % 2**self._depth or self.data.width % 2**self._depth:
            size, depth = f"{self.data.height} x {self.data.width}", self._depth
            raise InputError(f"images of {size} can't be halved {depth} times; set depth or --size")
        if self.config.objective != "l1":
            check_patches(self.data.height, self.data.width, self.config.patch_layers)

    @property
    def _depth(self) -> int:
        """Levels: as set, or as often as the shorter side can be halved, to one pixel."""
        if self.config.depth:
            return self.config.depth
        side = min(self.data.height, self.data.width)
        return max(1, min(MAX_DEPTH, side.bit_length() - 1))

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator`, and `discriminator` unless the objective is L1 alone."""
        config, source = self.config, self.data.source
        inputs = source.channels if source is not None else 1
        networks: dict[str, nn.Module] = {
            "generator": TranslationUnet(
                inputs,
                self.data.channels,
                config.channels,
                depth=self._depth,
                norm=config.norm,
                dropout=config.dropout,
                upsampling=config.upsampling,
            )
        }
        if config.objective != "l1":
            networks["discriminator"] = PatchDiscriminator(
                inputs + self.data.channels, config.channels, layers=config.patch_layers, norm=config.norm
            )
        for network in networks.values():
            initialize(network)
        return networks

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, unless the objective is L1 alone, then `generator`."""
        config = self.config
        betas = (config.beta1, config.beta2)
        generator = Phase("generator", ("generator",), config.learning_rate, betas)
        if config.objective == "l1":
            return (generator,)
        return (Phase("discriminator", ("discriminator",), config.learning_rate, betas), generator)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Half of D's two losses; G's adversarial loss and `l1_weight` times the mean absolute difference."""
        source = require_sources(batch)
        with torch.set_grad_enabled(phase == "generator"):
            fake = networks["generator"](source)
        if phase == "discriminator":
            on_real = networks["discriminator"](concat(source, batch.images))
            on_fake = networks["discriminator"](concat(source, fake))
            right = decided_right(on_real, on_fake, game=self.config.game)
            return Loss(discriminator_loss(self.config.game, on_real, on_fake), {"right": right})
        l1 = functional.l1_loss(fake, batch.images)
        return Loss(self._generator_loss(networks, source, fake, l1), {"l1": l1.detach()})

    def _generator_loss(
        self, networks: Mapping[str, nn.Module], source: Tensor, fake: Tensor, l1: Tensor
    ) -> Tensor:
        if self.config.objective == "l1":
            return self.config.l1_weight * l1
        adversarial = towards(self.config.game, networks["discriminator"](concat(source, fake)), real=True)
        return adversarial if self.config.objective == "gan" else adversarial + self.config.l1_weight * l1

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``translator``, all of which may be half precision."""
        source = self.data.source
        spec = SourceSpec(
            channels=source.channels if source is not None else 1,
            height=self.data.height,
            width=self.data.width,
            multiple=2**self._depth,
            margin=MARGIN,
        )
        return translation_plan(self.name, self.data.name, networks["generator"], spec, self.data.image)
