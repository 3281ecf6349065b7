"""CycleGAN: images of one collection in the style of another, learnt without pairs.

Paper: Zhu, Park, Isola & Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks" (arXiv 1703.10593).

Idea: G turns X into what D_Y takes for Y. Nothing in that game ties G(x) to x, so F turns it back, and
``lambda (|F(G(x)) - x|_1 + |G(F(y)) - y|_1)`` makes G keep what F needs. Least-squares GAN; each D sees a history
of 50 generated images; an identity loss ``|G(y) - y|_1`` keeps colours. `two_way` False is the one-way form, X to
Y and back with D_Y alone. `cycle_weight` 0 shows what happens without the cycle: G may ignore its input.

Networks: `generator` (G), `inverse` (F), ResNets of `blocks` with instance norm and without dropout;
`discriminator` (D_Y), and for both ways `inverse_discriminator` (D_X), PatchGANs.
At test time: each image is normalized by its own statistics, as while training.
Exports: one graph, ``translator``: G, for any size that is a multiple of 4.

It does not: export F (train with --data and --inputs exchanged for the way back), or crop from larger images.
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
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, network_of, require_sources
from gensdk_training.graphs.translator import translation_plan
from gensdk_training.losses.adversarial import Game, decided_right, discriminator_loss, towards
from gensdk_training.losses.image_pool import ImagePool
from gensdk_training.networks.initialization import initialize
from gensdk_training.networks.patches import PatchDiscriminator, check_patches
from gensdk_training.networks.resnet_generator import ResnetGenerator, margin
from gensdk_training.networks.translation_unet import Upsampling
from gensdk_training.optim import Schedule
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

HALVINGS = 2


class CycleGanConfig(FamilyConfig):
    """Settings of :class:`CycleGan`; the defaults are the paper's.

    two_way: Whether both ways are trained; false trains inputs to images and back alone.
    game: What the discriminators play: least squares, or cross entropy.
    channels: Features of the first level, in all networks.
    blocks: Residual blocks of each generator.
    upsampling: How a generator doubles sizes: transposed convolutions, or repeated pixels and a convolution.
    patch_layers: Halvings of a discriminator: 3 judge patches of 70x70 pixels, 2 of 34x34, 1 of 16x16.
    cycle_weight: lambda: weight of coming back to where one started.
    identity_weight: Weight of leaving images of the target as they are, as a share of cycle_weight.
    pool: Generated images that are remembered for each discriminator; 0 remembers none.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    lr_schedule: Schedule = "late_linear"
    two_way: bool = True
    game: Game = "lsgan"
    channels: Annotated[int, Field(ge=1, le=1024)] = 64
    blocks: Annotated[int, Field(ge=0, le=64)] = 9
    upsampling: Upsampling = "transposed"
    patch_layers: Annotated[int, Field(ge=1, le=5)] = 3
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    identity_weight: Annotated[float, Field(ge=0)] = 0.5
    pool: Annotated[int, Field(ge=0, le=1000)] = 50
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class PooledDiscriminator(nn.Module):
    """A PatchGAN with the history of what it was shown as generated."""

    def __init__(self, config: CycleGanConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.patches = PatchDiscriminator(shape[0], config.channels, layers=config.patch_layers, norm="instance")
        self.pool = ImagePool(config.pool, shape)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to logits [B, 1, h, w]."""
        logits: Tensor = self.patches(images)
        return logits


@register("cyclegan")
class CycleGan(Family[CycleGanConfig]):
    """CycleGAN, both ways or one way."""

    title = "CycleGAN: one collection of images in the style of another, without pairs; both ways or one"
    paper = "Zhu, Park, Isola & Efros (2017), Unpaired Image-to-Image Translation using Cycle-Consistent GANs"
    Config = CycleGanConfig
    ema_networks = ("generator", "inverse")
    starts_from = "collections"

    def check(self) -> None:
        """Raises :class:`InputError` for data without a second collection, or of sizes that can't be halved."""
        source = self.data.source
        if source is None:
            raise InputError(
                "cyclegan needs two collections: give what is translated with --inputs, and --unpaired"
            )
        if (source.height, source.width) != (self.data.height, self.data.width):
            raise InputError("cyclegan needs inputs of the same size as the images; set --size")
        step = 1 << HALVINGS
        if self.data.height % step or self.data.width % step or min(self.data.height, self.data.width) < 2 * step:
            size = f"{self.data.height} x {self.data.width}"
            raise InputError(f"cyclegan needs images of a multiple of {step} pixels, got {size}; set --size")
        check_patches(self.data.height, self.data.width, self.config.patch_layers)

    @property
    def _source_shape(self) -> tuple[int, int, int]:
        source = self.data.source
        return (self.data.channels if source is None else source.channels, self.data.height, self.data.width)

    @property
    def _identity(self) -> float:
        """The identity loss needs images of one kind of channels."""
        same = self._source_shape[0] == self.data.channels
        return self.config.identity_weight * self.config.cycle_weight if same else 0.0

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator`, `inverse`, `discriminator`, and for both ways `inverse_discriminator`."""
        there, back = self.data.image.shape, self._source_shape
        networks: dict[str, nn.Module] = {
            "generator": self._generator(back[0], there[0]),
            "inverse": self._generator(there[0], back[0]),
            "discriminator": PooledDiscriminator(self.config, there),
        }
        if self.config.two_way:
            networks["inverse_discriminator"] = PooledDiscriminator(self.config, back)
        for network in networks.values():
            initialize(network)
        return networks

    def _generator(self, inputs: int, outputs: int) -> ResnetGenerator:
        config = self.config
        return ResnetGenerator(
            inputs, outputs, config.channels, blocks=config.blocks, halvings=HALVINGS, upsampling=config.upsampling
        )

    def phases(self) -> tuple[Phase, ...]:
        """`generator`, for both of them, then `discriminator`."""
        rate, betas = self.config.learning_rate, (self.config.beta1, self.config.beta2)
        judges = ("discriminator", "inverse_discriminator") if self.config.two_way else ("discriminator",)
        return (
            Phase("generator", ("generator", "inverse"), rate, betas),
            Phase("discriminator", judges, rate, betas),
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The paper's eq. 3 with the identity loss of section 5.2 for both G; half of both losses for each D."""
        x, y = require_sources(batch), batch.images
        return self._judge(networks, x, y) if phase == "discriminator" else self._translate(networks, x, y)

    def _translate(self, networks: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> Loss:
        config, forth, back = self.config, networks["generator"], networks["inverse"]
        fake_y = forth(x)
        adversarial = towards(config.game, networks["discriminator"](fake_y), real=True)
        cycle = functional.l1_loss(back(fake_y), x)
        identity = functional.l1_loss(forth(y), y) if self._identity else torch.zeros((), device=x.device)
        if config.two_way:
            fake_x = back(y)
            adversarial = adversarial + towards(config.game, networks["inverse_discriminator"](fake_x), real=True)
            cycle = cycle + functional.l1_loss(forth(fake_x), y)
            if self._identity:
                identity = identity + functional.l1_loss(back(x), x)
        total = adversarial + config.cycle_weight * cycle + self._identity * identity
        return Loss(total, {"adversarial": adversarial.detach(), "cycle": cycle.detach()})

    def _judge(self, networks: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> Loss:
        judge = network_of(networks, "discriminator", PooledDiscriminator)
        total, right = self._judge_one(judge, networks["generator"], x, y)
        if self.config.two_way:
            judge = network_of(networks, "inverse_discriminator", PooledDiscriminator)
            other, _ = self._judge_one(judge, networks["inverse"], y, x)
            total = total + other
        return Loss(total, {"right": right})

    def _judge_one(
        self, judge: PooledDiscriminator, generator: nn.Module, source: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of one D, and the share of patches that it tells right."""
        with torch.no_grad():
            fake = judge.pool(generator(source))
        on_real, on_fake = judge(real), judge(fake)
        right = decided_right(on_real, on_fake, game=self.config.game)
        return discriminator_loss(self.config.game, on_real, on_fake), right

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``translator``, all of which may be half precision."""
        channels, height, width = self._source_shape
        spec = SourceSpec(
            channels=channels,
            height=height,
            width=width,
            multiple=1 << HALVINGS,
            smallest=2 << HALVINGS,  # mirrored edges need two pixels
            margin=min(margin(self.config.blocks, HALVINGS), 96),
        )
        return translation_plan(self.name, self.data.name, networks["generator"], spec, self.data.image)
