"""Denoising diffusion: learn to tell the noise in a noisy image; sample by removing it bit by bit.

Paper: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239).

Idea: an image x_0 is mixed with Gaussian noise, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` (eq. 4), and
a U-Net learns eps from x_t and t. The network knows nothing of how it will be sampled: the runtime runs DDPM,
DDIM or DPM-Solver++ over the same step graph.

With classes the network also gets the label, replaced by "none" in a share of the training images, so that
sampling can push towards the label (Ho & Salimans 2022, classifier-free guidance).

By choice it learns ``v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0`` or x_0 itself instead of eps
(`prediction_type`), and by choice it learns from a trained model to do in a few steps what that one does in many
(distillation.py)::

    gensdk train ddpm ... --set prediction_type=v_prediction --set distill_from=RUN --set distill_steps=4

The student has the teacher's settings, and is sampled in `distill_steps` steps and no others.

Networks: `denoiser`, a U-Net of residual blocks with group norm, SiLU and self-attention (networks/unet.py).
Exports: ``step``: guidance, denoiser and solver update together (graphs/diffusion_step.py); ``embedding``: what
depends on time and label alone; on request ``shallow_step``, which takes the deep features of an earlier step.
Does not: learn the variances, compute likelihoods, or work in a latent space.

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
from gensdk_runtime.programs.schedules import NoiseSchedule
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_training.denoiser_family import SIZES, DenoiserConfig, DenoiserFamily
from gensdk_training.distillation import Distillation, Teacher, open_teacher
from gensdk_training.family import Batch, Loss, network_of
from gensdk_training.registry import register

SAME_AS_TEACHER = (*SIZES, "schedule", "beta_start", "beta_end")
"""Settings that a student shares with its teacher: the network's sizes and the schedule."""

MIN_SNR_GAMMA = 5.0
"""gamma of Hang et al. (2023), section 3.4."""


class DdpmConfig(DenoiserConfig):
    """Settings of :class:`Ddpm`.

    schedule: How noise is added over the time steps.
    beta_start: Noise of the first time step. For the linear schedules.
    beta_end: Noise of the last time step. For the linear schedules.
    loss_weighting: All time steps alike (Ho et al. 2020, eq. 14), or with the error of x_0 weighted by min(SNR, 5)
        (Hang et al. 2023): for eps min(SNR, 5) / SNR, for v min(SNR, 5) / (SNR + 1).
    prediction_type: What the network tells, as diffusers calls it: the noise, v, or the image.
    distill_from: The folder of a run of ddpm that a student learns from, its teacher.
    distill_steps: Steps that a student makes samples in.
    teacher_steps: Steps of the teacher that one of a student's stands for.
    """

    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    loss_weighting: Literal["plain", "min_snr"] = "plain"
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    distill_from: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    distill_steps: Annotated[int, Field(ge=1, le=1024)] | None = None
    teacher_steps: Annotated[int, Field(ge=1, le=1024)] = 2


@register("ddpm")
class Ddpm(DenoiserFamily[DdpmConfig]):
    """Denoising diffusion with a U-Net, by choice conditional on labels."""

    title = "denoising diffusion: U-Net with attention; DDPM, DDIM and DPM-Solver++ sampling; guidance"
    paper = "Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models"
    Config = DdpmConfig

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths, labels or a teacher don't go together."""
        super().check()
        config = self.config
        if (config.distill_from is None) != (config.distill_steps is None):
            raise InputError("distill_from and distill_steps go together: set both, or neither")
        if config.distill_from is not None and config.prediction_type != "v_prediction":
            raise InputError("a student learns v, which tells x_0 at any noise; set prediction_type=v_prediction")
        self._noise_schedule  # noqa: B018 - raises where it has no noise, or no signal
        self._distillation  # noqa: B018 - raises where the steps don't fit

    @property
    def teaching(self) -> str | None:
        """``distill_from``."""
        return None if self.config.distill_from is None else "distill_from"

    @property
    def schedule(self) -> ScheduleSpec:
        """The schedule of the settings."""
        config = self.config
        return ScheduleSpec(
            kind=config.schedule,
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
        )

    @cached_property
    def _noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(self.schedule)

    @cached_property
    def _alphas_cumprod(self) -> Tensor:
        """abar_t: float64 [T]."""
        return torch.from_numpy(self._noise_schedule.alphas_cumprod)

    @cached_property
    def _distillation(self) -> Distillation | None:
        steps = self.config.distill_steps
        return None if steps is None else Distillation(self._noise_schedule, steps, self.config.teacher_steps)

    @property
    def prediction_type(self) -> PredictionType:
        """The one of the settings."""
        return self.config.prediction_type

    @property
    def defaults(self) -> DiffusionSettings:
        """The program's own, as far as there are time steps, or what a student learned."""
        if self._distillation is not None:
            return self._distillation.defaults
        own = DiffusionSettings().num_inference_steps
        return DiffusionSettings(num_inference_steps=min(own, self.config.num_train_timesteps))

    def build_networks(self) -> dict[str, nn.Module]:
        """The U-Net `denoiser`, and for a student its `teacher`, frozen."""
        networks = super().build_networks()
        if self._distillation is not None:
            networks["teacher"] = Teacher(self.build_denoiser())
        return networks

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """A student starts as a copy of its teacher."""
        config = self.config
        if config.distill_from is None:
            return
        settings = {key: getattr(config, key) for key in SAME_AS_TEACHER}
        trained = open_teacher(config.distill_from, self.data, settings)
        told = trained.family.config.prediction_type
        if told == "sample":
            raise InputError(f"the teacher in {config.distill_from} tells x_0; a student learns from eps or v")
        teacher = network_of(networks, "teacher", Teacher)
        teacher.load(trained.networks["denoiser"], told)
        networks["denoiser"].load_state_dict(teacher.network.state_dict())

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Mean of ``||eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)||^2`` over all elements.

        Ho et al. (2020), eq. 14: t uniform on 0 .. T - 1, one for each image. With v or x_0 in the place of eps:
        Salimans & Ho (2022), appendix D. A student's loss is that of :class:`Distillation`.
        """
        x0 = batch.images
        if self._distillation is not None:
            told = self.told(networks, batch)
            errors = self._distillation.loss(networks["denoiser"], networks["teacher"], x0, told)
            return Loss(errors.mean())
        timestep = torch.randint(self.config.num_train_timesteps, (len(x0),), device=x0.device)
        eps = torch.randn_like(x0)
        abar = self._alphas_cumprod.to(x0.device)[timestep].reshape(-1, 1, 1, 1)
        alpha, sigma = abar.sqrt().to(x0.dtype), (1 - abar).sqrt().to(x0.dtype)
        noisy = alpha * x0 + sigma * eps
        predicted = networks["denoiser"](noisy, timestep, *self.told(networks, batch))
        truth = {"epsilon": eps, "v_prediction": alpha * eps - sigma * x0, "sample": x0}[self.prediction_type]
        errors = (predicted - truth).square().mean(dim=(1, 2, 3))
        total = (self._weights(abar.flatten()).to(errors.dtype) * errors).mean()
        return Loss(total, {"mse": errors.detach().mean()})

    def _weights(self, abar: Tensor) -> Tensor:
        """The weight of each time step in the loss: abar [N] to [N], SNR = abar / (1 - abar)."""
        if self.config.loss_weighting == "plain":
            return torch.ones_like(abar)
        snr = abar / (1 - abar)
        of_x0 = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[self.prediction_type]
        return snr.clamp(max=MIN_SNR_GAMMA) / of_x0
