"""SRGAN: an image at two or four times its size.

Paper: Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network"
(arXiv 1609.04802).

Idea: ``alpha ||HR - SR||^2 + beta ||phi(HR) - phi(SR)||^2 + gamma (-log D(SR))``. The squared error alone
(SRResNet, `objective` "mse") has the best PSNR and looks soft, since it gives the mean of all answers; the
features phi and the adversary draw it to one of them. Train SRResNet first, then start the GAN from its run
(`start_from`).

Networks: `generator`, SRResNet; for the GAN `discriminator`, a PatchGAN over the enlarged image. The small
images are made from the large ones by bicubic reduction. phi is pluggable (`extractor`): a classifier trained
here, or VGG-19 where the user has its weights; without one beta has no effect. At test time: batch norms use
their running statistics and are folded into the convolutions by the export. Exports: one graph, ``translator``:
the small image to the large one, of any size.

It does not: train on crops of larger images (give it images of the size to train at), or undo noise and
compression.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_training.examples import Examples
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase
from gensdk_training.graphs.translator import translation_plan
from gensdk_training.losses.adversarial import decided_right, discriminator_loss, towards
from gensdk_training.losses.perceptual import load_features
from gensdk_training.networks.patches import PatchDiscriminator, check_patches
from gensdk_training.networks.srresnet import Clamped, SrResNet, margin, shrink
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class SrganConfig(FamilyConfig):
    """Settings of :class:`Srgan`; the defaults are the paper's, but for the batch.

    scale: How many times as wide and high results are.
    objective: The squared error alone (SRResNet), or all three terms.
    channels: Features of the generator.
    blocks: Residual blocks of the generator.
    discriminator_channels: Features after the discriminator's first layer.
    patch_layers: Halvings of the discriminator: 3 judge patches of 70x70 pixels, 2 of 34x34, 1 of 16x16.
    pixel_weight: alpha: weight of the squared error of pixels.
    perceptual_weight: beta: weight of the squared error of features; without an extractor it has no effect.
    adversarial_weight: gamma: weight of the game.
    extractor: Where features come from: FILE.safetensors of a classifier trained here, or vgg19:FILE.
    start_from: The run folder of an SRResNet whose generator is taken over.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    scale: Literal[2, 4] = 4
    objective: Literal["mse", "gan"] = "mse"
    channels: Annotated[int, Field(ge=1, le=1024)] = 64
    blocks: Annotated[int, Field(ge=1, le=64)] = 16
    discriminator_channels: Annotated[int, Field(ge=1, le=1024)] = 64
    patch_layers: Annotated[int, Field(ge=1, le=5)] = 2
    pixel_weight: Annotated[float, Field(ge=0)] = 1.0
    perceptual_weight: Annotated[float, Field(ge=0)] = 0.006
    adversarial_weight: Annotated[float, Field(ge=0)] = 1e-3
    extractor: str | None = None
    start_from: str | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4


@register("srgan")
class Srgan(Family[SrganConfig]):
    """SRResNet and SRGAN."""

    title = "SRGAN: super-resolution, twice or four times as large; SRResNet, then the GAN with features"
    paper = "Ledig et al. (2017), Photo-Realistic Single Image Super-Resolution Using a GAN"
    Config = SrganConfig
    ema_networks = ("generator",)
    starts_from = "images"

    def check(self) -> None:
        """Raises :class:`InputError` for sizes that are no multiple of the scale, and a missing extractor."""
        scale = self.config.scale
        if self.data.height % scale or self.data.width % scale:
            size = f"{self.data.height} x {self.data.width}"
            raise InputError(f"images of {size} are no multiple of the scale {scale}; set --size or scale")
        if self.config.objective == "gan":
            check_patches(self.data.height, self.data.width, self.config.patch_layers)
        if self.config.extractor is not None:
            load_features(self.config.extractor)

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator`, and for the GAN `discriminator`."""
        config, channels = self.config, self.data.channels
        generator = SrResNet(channels, config.channels, blocks=config.blocks, scale=config.scale)
        if config.objective == "mse":
            return {"generator": generator}
        judge = PatchDiscriminator(channels, config.discriminator_channels, layers=config.patch_layers)
        return {"generator": generator, "discriminator": judge}

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """The generator of the run `start_from`."""
        if self.config.start_from is None:
            return
        from gensdk_training.run import load_run  # it knows all families

        begun = load_run(Path(self.config.start_from).expanduser())
        if begun.family.name != self.name:
            raise InputError(f"start_from: expected a run of {self.name!r}, got one of {begun.family.name!r}")
        try:
            networks["generator"].load_state_dict(begun.networks["generator"].state_dict())
        except RuntimeError:
            raise InputError(
                "start_from: its generator has another shape; set the same channels and blocks"
            ) from None

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator` for the GAN, then `generator`."""
        generator = Phase("generator", ("generator",), self.config.learning_rate)
        if self.config.objective == "mse":
            return (generator,)
        return (Phase("discriminator", ("discriminator",), self.config.learning_rate), generator)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """D's two losses, halved; for G the weighted sum of the terms, with the squared error also in dB."""
        with torch.set_grad_enabled(phase == "generator"):
            made = networks["generator"](shrink(batch.images, self.config.scale))
        if phase == "discriminator":
            on_real, on_fake = networks["discriminator"](batch.images), networks["discriminator"](made)
            right = decided_right(on_real, on_fake, game="vanilla")
            return Loss(discriminator_loss("vanilla", on_real, on_fake), {"right": right})
        error = functional.mse_loss(made, batch.images)
        logs = {"psnr": 10 * torch.log10(4 / error.detach().clamp(min=1e-10))}
        if self.config.objective == "mse":
            return Loss(self.config.pixel_weight * error, logs)
        return Loss(self._looks(networks, made, batch.images) + self.config.pixel_weight * error, logs)

    def _looks(self, networks: Mapping[str, nn.Module], made: Tensor, images: Tensor) -> Tensor:
        """The adversarial and the perceptual term."""
        total = self.config.adversarial_weight * towards("vanilla", networks["discriminator"](made), real=True)
        if self.config.extractor is None:
            return total
        features = load_features(self.config.extractor).to(images.device)
        return total + self.config.perceptual_weight * functional.mse_loss(features(made), features(images))

    def examples(self, batch: Batch) -> Examples:
        """Small images, and what they are made from."""
        return Examples.of(shrink(batch.images, self.config.scale), batch.images)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``translator``, all of which may be half precision."""
        spec = SourceSpec(
            channels=self.data.channels,
            height=self.data.height // self.config.scale,
            width=self.data.width // self.config.scale,
            scale=self.config.scale,
            margin=margin(self.config.blocks),
        )
        network = Clamped(networks["generator"])
        return translation_plan(self.name, self.data.name, network, spec, self.data.image)
