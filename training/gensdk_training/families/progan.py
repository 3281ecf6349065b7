"""ProGAN: a GAN that begins with tiny images and grows, layer by layer, to the full size.

Paper: Karras, Aila, Laine & Lehtinen 2018, "Progressive Growing of GANs for Improved Quality, Stability, and
Variation" (arXiv 1710.10196); the game is that of WGAN-GP (Gulrajani et al. 2017).

Idea: generator and critic start at a few pixels a side, hold, then a level of twice the size fades in: alpha
goes from 0 to 1 while ``(1 - alpha) upsample(RGB(old)) + alpha RGB(new)`` is shown (figure 2), in the critic
likewise. How far they have grown follows from the number of the step alone: `hold_steps` at each size,
`fade_steps` to each next one; by default as many as bring a run of `steps` to the full size, and leave it
a fifth to a ninth of them there.
Pixel norm ``a / sqrt(mean a^2 + 1e-8)`` in G (section 4.2), equalized learning rate: weights N(0, 1), scaled by
He's constant at run time (4.1), the standard deviation over the batch as a channel of the critic (section 3),
and ``E D(x~) - E D(x) + lambda E (||grad D||_2 - 1)^2 + 0.001 E D(x)^2``.

Networks: `generator` and `critic`, with a level for each halving of the image, at least two; LeakyReLU 0.2.
Exports: one graph, ``generator``: z to the image of full size, clipped to [-1, 1]. A run that ends before all has
grown exports what has, enlarged.

It does not: shrink the batch as images grow, start the optimizers anew at a level, take labels, or group the batch
for its standard deviation: one value over all of it, so that the order of the samples plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase, network_of
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.losses.gradient_penalty import gradient_penalty
from gensdk_training.networks.strided import halvings
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

DRIFT = 0.001
"""Of the critic's output on real images, which would otherwise wander off (appendix A.1)."""


class ProganConfig(FamilyConfig):
    """Settings of :class:`Progan`.

    latent: Values in z.
    channels: Features at full size, twice as many at each smaller one.
    max_channels: Largest number of features at any size.
    hold_steps: Steps at each size; null takes as many as steps allow, the same for each size and each fade. What
        does not fit into steps is shortened.
    fade_steps: Steps in which the next size fades in; null takes as many as steps allow.
    critic_steps: Steps of the critic for each of the generator (the paper: 1, where small images collapse).
    penalty: lambda: weight of the gradient penalty.
    """

    latent: Annotated[int, Field(ge=1, le=4096)] = 64
    channels: Annotated[int, Field(ge=1, le=65536)] = 32
    max_channels: Annotated[int, Field(ge=1, le=65536)] = 128
    hold_steps: Annotated[int, Field(ge=0)] | None = None
    fade_steps: Annotated[int, Field(ge=0)] | None = None
    critic_steps: Annotated[int, Field(ge=1, le=100)] = 4
    penalty: Annotated[float, Field(ge=0)] = 10.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99

    def widths(self, levels: int) -> list[int]:
        """Channels of each level, the smallest size first."""
        return [min(self.channels * 2**level, self.max_channels) for level in reversed(range(levels))]

    def wanted(self, levels: int) -> tuple[int, int]:
        """Steps that hold and that fade, as they are set, or equal parts of all steps where they are not."""
        part = self.steps // (2 * levels - 1)
        return (
            part if self.hold_steps is None else self.hold_steps,
            part if self.fade_steps is None else self.fade_steps,
        )

    def stage(self, levels: int) -> tuple[int, int]:
        """Steps that hold and that fade, shortened alike where they don't come to the full size before the end."""
        hold, fade = self.wanted(levels)
        if (levels - 1) * (hold + fade) < self.steps:
            return hold, fade
        room = 2 * self.steps // (2 * levels - 1)  # for both
        shorter = room * hold // (hold + fade)
        return shorter, room - shorter

    def growth(self, step: int, levels: int) -> float:
        """How far the networks have grown at `step`: k at level k, and k - 1 + alpha while that one fades in."""
        hold, fade = self.stage(levels)
        stage, past = divmod(step, max(1, hold + fade))
        if stage >= levels - 1 or hold + fade == 0:
            return float(levels - 1)
        return stage + max(0.0, (past - hold + 1) / (fade + 1))


class Equalized(nn.Module):
    """A convolution with "same" padding and weights N(0, 1), times ``sqrt(2 / fan_in)`` at run time."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, gain: float = math.sqrt(2.0)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, inputs, H, W] to [B, outputs, H, W]."""
        return functional.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """``a / sqrt(mean a^2 + 1e-8)`` over the channels of `x` [B, C, ...]."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class PixelNorm(nn.Module):
    """:func:`pixel_norm`; its squares would overflow in half precision."""

    fp32_island = True

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, ...]."""
        return pixel_norm(x)


def batch_deviation(x: Tensor) -> Tensor:
    """The standard deviation over the batch, its mean over all places, as one more channel of `x` [B, C, H, W]."""
    deviation = torch.sqrt(x.var(dim=0, unbiased=False) + 1e-8).mean()
    return torch.cat((x, deviation.expand(len(x), 1, *x.shape[2:])), dim=1)


class Growing(nn.Module):
    """What has grown so far: a whole number of steps as a buffer, so that averages and checkpoints keep it."""

    step: Tensor

    def __init__(self, config: ProganConfig, levels: int) -> None:
        super().__init__()
        self.config, self.levels = config, levels
        full = sum(config.stage(levels)) * levels
        self.register_buffer("step", torch.tensor(full, dtype=torch.int64))

    @property
    def growth(self) -> float:
        """See :meth:`ProganConfig.growth`."""
        return self.config.growth(int(self.step), self.levels)


class Generator(Growing):
    """G: z to an image of the size that it has grown to."""

    def __init__(self, config: ProganConfig, data: DataInfo) -> None:
        times = halvings(data.height, data.width, family="progan")
        super().__init__(config, times + 1)
        widths = config.widths(times + 1)
        self.core = (widths[0], data.height >> times, data.width >> times)
        # gain sqrt(2) / 4 for the first layer, as the paper's code has it
        self.start = Equalized(config.latent, math.prod(self.core), 1, gain=math.sqrt(2) / 4)
        self.first = _block(widths[0], widths[0], layers=1)
        self.blocks = nn.ModuleList(_block(a, b) for a, b in pairwise(widths))
        self.to_image = nn.ModuleList(Equalized(width, data.channels, 1, gain=1.0) for width in widths)
        self.norm = PixelNorm()

    def forward(self, z: Tensor, growth: float | None = None) -> Tensor:
        """`z` [B, latent] to images [B, C, h, w], by `growth`, or as far as it has grown."""
        level, alpha = _level(self.growth if growth is None else growth)
        x = self.start(self.norm(z)[:, :, None, None]).reshape(-1, *self.core)
        x = self.first(self.norm(functional.leaky_relu(x, 0.2)))
        image = self.to_image[0](x)
        for index, block in enumerate(self.blocks[:level], start=1):
            smaller, x = x, block(_double(x))
            if index == level:
                image = self.to_image[level](x)
                if alpha < 1:
                    image = torch.lerp(_double(self.to_image[level - 1](smaller)), image, alpha)
        return cast(Tensor, image)


class Critic(Growing):
    """D: an image of the size that it has grown to, to a value."""

    def __init__(self, config: ProganConfig, data: DataInfo) -> None:
        times = halvings(data.height, data.width, family="progan")
        super().__init__(config, times + 1)
        widths = config.widths(times + 1)
        core = (data.height >> times) * (data.width >> times)
        self.from_image = nn.ModuleList(Equalized(data.channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(Equalized(b, b, 3), nn.LeakyReLU(0.2), Equalized(b, a, 3), nn.LeakyReLU(0.2))
            for a, b in pairwise(widths)
        )
        self.last = nn.Sequential(Equalized(widths[0] + 1, widths[0], 3), nn.LeakyReLU(0.2), nn.Flatten(2))
        self.head = nn.Sequential(
            Equalized(widths[0] * core, widths[0], 1), nn.LeakyReLU(0.2), Equalized(widths[0], 1, 1, gain=1.0)
        )

    def forward(self, images: Tensor, growth: float | None = None) -> Tensor:
        """`images` [B, C, h, w] to values [B]."""
        level, alpha = _level(self.growth if growth is None else growth)
        x = functional.leaky_relu(self.from_image[level](images), 0.2)
        for index in range(level, 0, -1):
            x = functional.avg_pool2d(self.blocks[index - 1](x), 2)
            if index == level and alpha < 1:
                smaller = self.from_image[level - 1](functional.avg_pool2d(images, 2))
                x = torch.lerp(functional.leaky_relu(smaller, 0.2), x, alpha)
        x = self.last(batch_deviation(x)).flatten(1)[:, :, None, None]
        values: Tensor = self.head(x)
        return values.flatten()


def _block(inputs: int, outputs: int, *, layers: int = 2) -> nn.Sequential:
    """Convolutions 3x3 of G, each with LeakyReLU and pixel norm."""
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [Equalized(outputs if index else inputs, outputs, 3), nn.LeakyReLU(0.2), PixelNorm()]
    return nn.Sequential(*parts)


def _level(growth: float) -> tuple[int, float]:
    """The largest level in use, and its alpha: 2.3 is level 3 with 0.3 of it, 2.0 level 2 with all of it."""
    level = math.ceil(growth)
    return level, 1.0 - (level - growth)


def _double(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class FullSize(nn.Module):
    """G as it is exported: as far as it has grown, enlarged to the full size and clipped."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        self.growth = generator.growth
        self.times = generator.levels - 1 - math.ceil(self.growth)

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, latent] to images [B, C, H, W] in [-1, 1]."""
        image = self.generator(z, self.growth)
        for _ in range(self.times):
            image = _double(image)
        return cast(Tensor, image.clamp(-1.0, 1.0))


@register("progan")
class Progan(Family[ProganConfig]):
    """Progressively growing GAN."""

    title = "progressive growing: pixel norm, equalized learning rate, WGAN-GP, fade-in"
    paper = "Karras et al. (2018), Progressive Growing of GANs"
    Config = ProganConfig
    ema_networks = ("generator",)

    def check(self) -> None:
        """Raises :class:`InputError` for images that can't be halved twice."""
        halvings(self.data.height, self.data.width, family="progan")

    @property
    def _levels(self) -> int:
        return halvings(self.data.height, self.data.width, family="progan") + 1

    @property
    def depends_on_steps(self) -> bool:
        """Growth follows from the steps in all, unless it is set and has room."""
        config, levels = self.config, self._levels
        growing = None in (config.hold_steps, config.fade_steps) or config.stage(levels) != config.wanted(levels)
        return growing or super().depends_on_steps

    def notes(self) -> tuple[str, ...]:
        """Whether growth was shortened."""
        config, levels = self.config, self._levels
        (hold, fade), (held, faded) = config.wanted(levels), config.stage(levels)
        if (hold, fade) == (held, faded):
            return ()
        size, needed = f"{self.data.height}x{self.data.width}", (levels - 1) * (hold + fade) + 1
        return (
            f"hold_steps {hold} and fade_steps {fade} need at least {needed} steps to reach {size}, and this run "
            f"has {config.steps}: shortened to {held} and {faded}",
        )

    def unfinished(self, networks: Mapping[str, nn.Module]) -> str | None:
        """The size that the generator has come to, where that is not the full one."""
        generator = network_of(networks, "generator", Generator)
        level, alpha = _level(generator.growth)
        if level == generator.levels - 1 and alpha == 1:
            return None
        times = generator.levels - 1 - level
        height, width = self.data.height >> times, self.data.width >> times
        fading = f", of which {alpha:.0%} has faded in" if alpha < 1 else ""
        return (
            f"grown to {height}x{width}{fading}, not to {self.data.height}x{self.data.width}: images are enlarged "
            "ones; train on to the end of its steps"
        )

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `critic`, fully grown until a step says otherwise."""
        return {"generator": Generator(self.config, self.data), "critic": Critic(self.config, self.data)}

    def begin_step(self, networks: Mapping[str, nn.Module], step: int) -> None:
        """Lets both grow as far as `step` says."""
        for name in networks:
            network_of(networks, name, Growing).step.fill_(step)

    def phases(self) -> tuple[Phase, ...]:
        """`critic`, repeated `critic_steps` times, then `generator`."""
        config, betas = self.config, (self.config.beta1, self.config.beta2)
        return (
            Phase("critic", ("critic",), config.learning_rate, betas, repeat=config.critic_steps),
            Phase("generator", ("generator",), config.learning_rate, betas),
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The critic's loss as above, or ``-E D(G(z))``."""
        critic = network_of(networks, "critic", Critic)
        growth = critic.growth
        z = torch.randn(len(batch.images), self.config.latent, device=batch.images.device)
        with torch.set_grad_enabled(phase == "generator"):
            fake = networks["generator"](z, growth)
        if phase == "generator":
            return Loss(-critic(fake, growth).mean(), {"growth": torch.tensor(growth)})
        real = self.shown(batch.images, growth, critic.levels)
        on_real, on_fake = critic(real, growth), critic(fake, growth)
        distance = on_real.mean() - on_fake.mean()
        penalty = gradient_penalty(lambda mixed: critic(mixed, growth), real, fake)
        total = self.config.penalty * penalty + DRIFT * on_real.square().mean() - distance
        return Loss(total, {"distance": distance.detach(), "penalty": penalty.detach()})

    def shown(self, images: Tensor, growth: float, levels: int) -> Tensor:
        """Real images at the size that has grown, faded as G's are: between the smaller size and this one."""
        level, alpha = _level(growth)
        for _ in range(levels - 1 - level):
            images = functional.avg_pool2d(images, 2)
        if alpha < 1:
            images = torch.lerp(_double(functional.avg_pool2d(images, 2)), images, alpha)
        return images

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``generator``, all of which may be half precision, but for its pixel norms."""
        generator = network_of(networks, "generator", Generator)
        full = FullSize(generator.eval())
        return latent_plan(self.name, "generator", full, self.data, latent=self.config.latent, conditional=False)
