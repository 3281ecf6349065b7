"""Denoising diffusion: learn to tell the noise in a noisy image; sample by removing it bit by bit.

Paper: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239).

Idea: an image x_0 is mixed with Gaussian noise, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` (eq. 4), and
a U-Net learns eps from x_t and t. The network knows nothing of how it will be sampled: the runtime runs DDPM,
DDIM or DPM-Solver++ over the same step graph.

With classes the network also gets the label, replaced by "none" in a share of the training images, so that
sampling can push towards the label (Ho & Salimans 2022, classifier-free guidance).

By choice it learns ``v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0`` instead of eps (`prediction_type`), and by
choice it learns from a trained model to do in a few steps what that one does in many (distillation.py)::

    gensdk train ddpm ... --set prediction_type=v_prediction --set distill_from=RUN --set distill_steps=4

The student has the teacher's settings, and is sampled in `distill_steps` steps and no others.

Networks: `denoiser`, a U-Net of residual blocks with group norm, SiLU and self-attention (layers/unet.py).
Exports: ``step``: guidance, denoiser and solver update together (layers/diffusion_step.py); ``embedding``: what
depends on time and label alone; on request ``shallow_step``, which takes the deep features of an earlier step.
Does not: learn the variances, predict x_0, compute likelihoods, or work in a latent space.

The paper's CIFAR-10 model: ``channels=128 multipliers=[1,2,2,2] blocks=2 attention_resolutions=[16]
norm_groups=32 dropout=0.1 learning_rate=2e-4 ema_decay=0.9999 batch_size=128 schedule=linear``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import NoiseSchedule, make_schedule
from gensdk_runtime.spec.manifest import PredictionType, ScheduleSpec
from gensdk_training.distillation import Distillation, Teacher, open_teacher
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, network_of, require_labels
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from gensdk_training.networks.unet import UNet, UNetShape
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

SAME_AS_TEACHER = (
    "channels",
    "multipliers",
    "blocks",
    "attention_resolutions",
    "attention_heads",
    "norm_groups",
    "schedule",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "conditional",
)
"""Settings that a student shares with its teacher: the network's sizes and the schedule."""

MIN_SNR_GAMMA = 5.0
"""gamma of Hang et al. (2023), section 3.4."""


class DdpmConfig(FamilyConfig):
    """Settings of :class:`Ddpm`. The defaults suit small images such as 8x8 digits.

    channels: Features of the U-Net, times each of multipliers.
    multipliers: What channels are multiplied with on each level; each level has half the size of the one above.
    blocks: Residual blocks of each level.
    attention_resolutions: Heights in pixels of the levels that attend; the middle block always does.
    attention_heads: Heads of each attention; they divide channels.
    norm_groups: Groups of each group norm; they divide channels.
    dropout: Share of the features that is left out in each block while it trains.
    schedule: How noise is added over the time steps.
    num_train_timesteps: Time steps from image to noise.
    beta_start: Noise of the first time step. For the linear schedule.
    beta_end: Noise of the last time step. For the linear schedule.
    loss_weighting: All time steps alike (Ho et al. 2020, eq. 14), or min(SNR, 5) / SNR (Hang et al. 2023; for v,
        min(SNR, 5) / (SNR + 1): the same in terms of x_0).
    prediction_type: What the network tells, as diffusers calls it: the noise, or v.
    distill_from: The folder of a run of ddpm that a student learns from, its teacher.
    distill_steps: Steps that a student makes samples in.
    teacher_steps: Steps of the teacher that one of a student's stands for.
    conditional: Whether the labels of the data are learnt, so that classes can be asked for and guided to.
    guidance_dropout: Share of labels that is left out in training, for guidance.
    """

    steps: Annotated[int, Field(ge=1)] = 6000
    channels: Annotated[int, Field(ge=2, le=65536)] = 16
    multipliers: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=8)
    ] = (
        1,
        2,
    )
    blocks: Annotated[int, Field(ge=1, le=1000)] = 2
    attention_resolutions: tuple[int, ...] = ()
    attention_heads: Annotated[int, Field(ge=1, le=65536)] = 1
    norm_groups: Annotated[int, Field(ge=1, le=65536)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    loss_weighting: Literal["plain", "min_snr"] = "plain"
    prediction_type: PredictionType = "epsilon"
    distill_from: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    distill_steps: Annotated[int, Field(ge=1, le=1024)] | None = None
    teacher_steps: Annotated[int, Field(ge=1, le=1024)] = 2
    conditional: bool = False
    guidance_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3


@register("ddpm")
class Ddpm(Family[DdpmConfig]):
    """Denoising diffusion with a U-Net, by choice conditional on labels."""

    title = "denoising diffusion: U-Net with attention; DDPM, DDIM and DPM-Solver++ sampling; guidance"
    paper = "Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models"
    Config = DdpmConfig
    ema_networks = ("denoiser",)

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths or labels don't go together."""
        config, data = self.config, self.data
        factor = 2 ** (len(config.multipliers) - 1)
        if data.height % factor or data.width % factor:
            raise InputError(
                f"ddpm with {len(config.multipliers)} multipliers needs height and width divisible by "
                f"{factor}, got {data.height}x{data.width}; use fewer multipliers or resize the data"
            )
        heights = self._level_heights
        for resolution in config.attention_resolutions:
            if resolution not in heights:
                raise InputError(
                    f"attention_resolutions has {resolution}, but the levels are {list(heights)} pixels high"
                )
        for name, divisor in (
            ("norm_groups", config.norm_groups),
            ("attention_heads", config.attention_heads),
        ):
            if config.channels % divisor:
                raise InputError(f"channels must be divisible by {name}, got {config.channels} and {divisor}")
        if config.channels % 2:
            raise InputError(f"channels must be even, got {config.channels}")
        if config.conditional and data.num_classes is None:
            raise InputError(f"conditional needs labels, but {data.name!r} has none; set conditional=false")
        if (config.distill_from is None) != (config.distill_steps is None):
            raise InputError("distill_from and distill_steps go together: set both, or neither")
        if config.distill_from is not None and config.prediction_type != "v_prediction":
            raise InputError(
                "a student can't learn eps: from pure noise it tells no x_0; set prediction_type=v_prediction"
            )
        make_schedule(self._schedule_spec)
        self._distillation  # noqa: B018 - raises where the steps don't fit

    @property
    def _level_heights(self) -> tuple[int, ...]:
        return tuple(self.data.height // 2**level for level in range(len(self.config.multipliers)))

    @property
    def _schedule_spec(self) -> ScheduleSpec:
        config = self.config
        return ScheduleSpec(
            kind=config.schedule,
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
        )

    @cached_property
    def _noise_schedule(self) -> NoiseSchedule:
        return make_schedule(self._schedule_spec)

    @cached_property
    def _alphas_cumprod(self) -> Tensor:
        """abar_t: float64 [T]."""
        return torch.from_numpy(self._noise_schedule.alphas_cumprod)

    @cached_property
    def _distillation(self) -> Distillation | None:
        steps = self.config.distill_steps
        return None if steps is None else Distillation(self._noise_schedule, steps, self.config.teacher_steps)

    def build_networks(self) -> dict[str, nn.Module]:
        """The U-Net `denoiser`, and for a student its `teacher`, frozen."""
        networks: dict[str, nn.Module] = {"denoiser": UNet(self._shape)}
        if self._distillation is not None:
            networks["teacher"] = Teacher(UNet(self._shape))
        return networks

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """A student starts as a copy of its teacher."""
        config = self.config
        if config.distill_from is None:
            return
        settings = {key: getattr(config, key) for key in SAME_AS_TEACHER}
        trained = open_teacher(config.distill_from, self.data, settings)
        teacher = network_of(networks, "teacher", Teacher)
        teacher.load(trained.networks["denoiser"], trained.family.config.prediction_type)
        networks["denoiser"].load_state_dict(teacher.network.state_dict())

    @property
    def _shape(self) -> UNetShape:
        config, heights = self.config, self._level_heights
        return UNetShape(
            image_channels=self.data.channels,
            channels=config.channels,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention_levels=frozenset(
                level for level, height in enumerate(heights) if height in config.attention_resolutions
            ),
            attention_heads=config.attention_heads,
            norm_groups=config.norm_groups,
            dropout=config.dropout,
            num_labels=None if self._num_classes is None else self._num_classes + 1,
        )

    @property
    def _num_classes(self) -> int | None:
        return self.data.num_classes if self.config.conditional else None

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the denoiser."""
        return (Phase("denoiser", trains=("denoiser",), learning_rate=self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Mean of ``||eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)||^2`` over all elements.

        Ho et al. (2020), eq. 14: t uniform on 0 .. T - 1, one for each image. With v in the place of eps:
        Salimans & Ho (2022), appendix D. A student's loss is that of :class:`Distillation`.
        """
        x0 = batch.images
        if self._distillation is not None:
            labels = self._drop_labels(batch)
            errors = self._distillation.loss(networks["denoiser"], networks["teacher"], x0, labels)
            return Loss(errors.mean())
        timestep = torch.randint(self.config.num_train_timesteps, (len(x0),), device=x0.device)
        eps = torch.randn_like(x0)
        abar = self._alphas_cumprod.to(x0.device)[timestep].reshape(-1, 1, 1, 1)
        alpha, sigma = abar.sqrt().to(x0.dtype), (1 - abar).sqrt().to(x0.dtype)
        noisy = alpha * x0 + sigma * eps
        labels = self._drop_labels(batch)
        predicted = networks["denoiser"](noisy, timestep, *labels)
        truth = eps if self.config.prediction_type == "epsilon" else alpha * eps - sigma * x0
        errors = (predicted - truth).square().mean(dim=(1, 2, 3))
        total = (self._weights(abar.flatten()).to(errors.dtype) * errors).mean()
        return Loss(total, {"mse": errors.detach().mean()})

    def _drop_labels(self, batch: Batch) -> tuple[Tensor, ...]:
        """The labels, a share of them replaced by "none" (the class number `num_classes`)."""
        if self._num_classes is None:
            return ()
        labels = require_labels(batch)
        dropped = torch.rand(len(labels), device=labels.device) < self.config.guidance_dropout
        return (labels.masked_fill(dropped, self._num_classes),)

    def _weights(self, abar: Tensor) -> Tensor:
        """The weight of each time step in the loss: abar [N] to [N], SNR = abar / (1 - abar)."""
        if self.config.loss_weighting == "plain":
            return torch.ones_like(abar)
        snr = abar / (1 - abar)
        return snr.clamp(max=MIN_SNR_GAMMA) / (snr if self.config.prediction_type == "epsilon" else snr + 1)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Denoiser, guidance and solver update as graph ``step``, the time embedding as graph ``embedding``."""
        return self._plan(networks, share_features=0)

    def sharing_plan(self, networks: Mapping[str, nn.Module], depth: int) -> ExportPlan:
        """With a graph ``shallow_step``, which computes `depth` blocks of the top level, 1 to `blocks`, anew."""
        return self._plan(networks, share_features=depth)

    def _plan(self, networks: Mapping[str, nn.Module], *, share_features: int) -> ExportPlan:
        conditional = self._num_classes is not None
        return diffusion_plan(
            networks["denoiser"],
            self.data.image,
            self._schedule_spec,
            prediction_type=self.config.prediction_type,
            defaults=None if self._distillation is None else self._distillation.defaults,
            name=f"{self.data.name}-{self.name}",
            family=self.name,
            num_classes=self._num_classes,
            class_names=self.data.class_names if conditional else None,
            share_features=share_features,
        )
