"""Noise schedules in float64, written once: training draws from them and solvers are built on them.

Notation of Ho, Jain & Abbeel (2020), "Denoising Diffusion Probabilistic Models": beta_t, alpha_t = 1 - beta_t,
abar_t = prod alpha_s; x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (eq. 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.manifest import ScheduleSpec

Float64 = NDArray[np.float64]

MAX_BETA = 0.999
"""Cap of the cosine schedule's betas, as in Nichol & Dhariwal (2021), section 3.2."""

MIN_SIGNAL = 1e-30
"""Smallest abar: beyond, sqrt(1 / abar) times eps nears the end of float32. Usual schedules end near 1e-5."""


@dataclass(frozen=True)
class NoiseSchedule:
    """`betas` and `alphas_cumprod`: float64 [T], for the time steps 0 .. T - 1."""

    betas: Float64
    alphas_cumprod: Float64

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return len(self.betas)


def make_schedule(spec: ScheduleSpec) -> NoiseSchedule:
    """The schedule that `spec` names.

    Raises :class:`InputError` where beta_start exceeds beta_end, and where the schedule has no noise at its first
    step or no signal at its last one in floating point: solvers divide by both.
    """
    betas: Float64
    if spec.kind in ("linear", "scaled_linear") and spec.beta_start > spec.beta_end:
        raise InputError(f"expected beta_start <= beta_end, got {spec.beta_start} > {spec.beta_end}")
    if spec.kind == "linear":
        betas = np.linspace(spec.beta_start, spec.beta_end, spec.num_train_timesteps, dtype=np.float64)
    elif spec.kind == "scaled_linear":  # of latent diffusion (Rombach et al. 2022): linear in sqrt(beta)
        betas = (
            np.linspace(spec.beta_start**0.5, spec.beta_end**0.5, spec.num_train_timesteps, dtype=np.float64) ** 2
        )
    elif spec.betas is not None:
        betas = np.asarray(spec.betas, np.float64)
    else:
        betas = _cosine_betas(spec.num_train_timesteps)
    alphas_cumprod: Float64 = np.cumprod(1.0 - betas, dtype=np.float64)
    if alphas_cumprod[0] >= 1.0 or alphas_cumprod[-1] < MIN_SIGNAL:
        raise InputError(
            f"expected noise schedule abar below 1 and above {MIN_SIGNAL:g}, got {alphas_cumprod[0]:g} to "
            f"{alphas_cumprod[-1]:g}; change beta_start, beta_end or num_train_timesteps"
        )
    return NoiseSchedule(betas=betas, alphas_cumprod=alphas_cumprod)


def _cosine_betas(steps: int) -> Float64:
    """Nichol & Dhariwal (2021), eq. 17: abar(t) = cos^2((t / T + s) / (1 + s) * pi / 2), s = 0.008."""
    times = np.arange(steps + 1, dtype=np.float64) / steps
    alphas_cumprod = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    betas: Float64 = np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], MAX_BETA)
    return betas
