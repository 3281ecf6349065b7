"""What families have in common whose U-Net learns to tell the noise: how it is added, what is told, the loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.programs.schedules import NoiseSchedule
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_training.denoiser_family import DENOISER, DenoiserConfig, DenoiserFamily
from gensdk_training.family import Batch, Loss

MIN_SNR_GAMMA = 5.0
"""gamma of Hang et al. (2023), section 3.4."""


class NoiseConfig(DenoiserConfig):
    """Settings of every family whose U-Net learns to tell the noise.

    schedule: How noise is added over the time steps.
    beta_start: Noise of the first time step. For the linear schedules.
    beta_end: Noise of the last time step. For the linear schedules.
    loss_weighting: All time steps alike (Ho et al. 2020, eq. 14), or with the error of x_0 weighted by min(SNR, 5)
        (Hang et al. 2023): for eps min(SNR, 5) / SNR, for v min(SNR, 5) / (SNR + 1).
    prediction_type: What the network tells, as diffusers calls it: the noise, v, or x_0 itself.
    """

    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    loss_weighting: Literal["plain", "min_snr"] = "plain"
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"


NoiseConfigT = TypeVar("NoiseConfigT", bound=NoiseConfig)


class NoiseFamily(DenoiserFamily[NoiseConfigT]):
    """A family whose denoiser is trained by :meth:`denoising_loss`."""

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths, labels or the schedule don't go together."""
        super().check()
        self._noise_schedule  # noqa: B018 - raises where it has no noise, or no signal

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

    @property
    def prediction_type(self) -> PredictionType:
        """The one of the settings."""
        return self.config.prediction_type

    @property
    def defaults(self) -> DiffusionSettings:
        """The program's own, as far as there are time steps."""
        own = DiffusionSettings().num_inference_steps
        return DiffusionSettings(num_inference_steps=min(own, self.config.num_train_timesteps))

    @cached_property
    def _noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(self.schedule)

    @cached_property
    def _alphas_cumprod(self) -> Tensor:
        """abar_t: float64 [T]."""
        return torch.from_numpy(self._noise_schedule.alphas_cumprod)

    def denoising_loss(self, networks: Mapping[str, nn.Module], batch: Batch, x0: Tensor) -> Loss:
        """Mean of ``||eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)||^2`` over all elements of `x0`
        [B, C, H, W], with what the denoiser is told of `batch`.

        Ho et al. (2020), eq. 14: t uniform on 0 .. T - 1, one for each image. With v or x_0 in the place of eps:
        Salimans & Ho (2022), appendix D.
        """
        timestep = torch.randint(self.config.num_train_timesteps, (len(x0),), device=x0.device)
        eps = torch.randn_like(x0)
        abar = self._alphas_cumprod.to(x0.device)[timestep].reshape(-1, 1, 1, 1)
        alpha, sigma = abar.sqrt().to(x0.dtype), (1 - abar).sqrt().to(x0.dtype)
        noisy = alpha * x0 + sigma * eps
        predicted = networks[DENOISER](noisy, timestep, *self.told(networks, batch))
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
