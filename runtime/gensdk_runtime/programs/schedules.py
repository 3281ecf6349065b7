"""Noise schedules in float64, written once: training draws from them and solvers are built on them.

A noisy image is ``x_t = alpha x_0 + sigma eps``. Ho, Jain & Abbeel (2020), "Denoising Diffusion Probabilistic
Models": beta_t, alpha_t = 1 - beta_t, abar_t = prod alpha_s; alpha^2 = abar_t, sigma^2 = 1 - abar_t (eq. 4).
Lipman et al. (2023), "Flow Matching for Generative Modeling": a straight line, alpha = 1 - t, sigma = t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import SolverName

Float64 = NDArray[np.float64]

MAX_BETA = 0.999
"""Cap of the cosine schedule's betas, as in Nichol & Dhariwal (2021), section 3.2."""

MIN_SIGNAL = 1e-30
"""Smallest abar: beyond, sqrt(1 / abar) times eps nears the end of float32. Usual schedules end near 1e-5."""

LEAST_SIGNAL = 2.0**-24
"""abar of a time step without signal, for solvers that count in sigma / alpha; diffusers' number."""

FirstLevel = Literal["zero", "sigma_min"]


@dataclass(frozen=True)
class NoiseSchedule:
    """Variance preserving: alpha^2 + sigma^2 = 1.

    `betas` and `alphas_cumprod`: float64 [T], for the time steps 0 .. T - 1. `original_inference_steps`: of them,
    those that a latent consistency model learned. The others are those of :class:`ScheduleSpec`.
    """

    solvers: ClassVar[tuple[SolverName, ...]] = ("ddpm", "ddim", "dpmsolver++", "euler", "euler_ancestral", "lcm")
    proving: ClassVar[tuple[SolverName, ...]] = ("ddpm", "ddim", "dpmsolver++")
    """Solvers that between them use all that a step can use."""

    betas: Float64
    alphas_cumprod: Float64
    original_inference_steps: int = 50
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    final_sigmas_type: FirstLevel = "zero"
    whole_timesteps: bool = False

    @classmethod
    def of(cls, spec: ScheduleSpec) -> NoiseSchedule:
        """The schedule that `spec` names.

        Raises :class:`InputError` where beta_start exceeds beta_end, and where the schedule has no noise at its
        first step or no signal at its last one in floating point: solvers divide by both. Only with
        `rescale_betas_zero_snr` the last one has none, and what divides by it is not taken.
        """
        betas = _betas(spec)
        alphas_cumprod: Float64 = np.cumprod(1.0 - betas, dtype=np.float64)
        if alphas_cumprod[0] >= 1.0 or alphas_cumprod[-1] < MIN_SIGNAL:
            raise InputError(
                f"expected noise schedule abar below 1 and above {MIN_SIGNAL:g}, got {alphas_cumprod[0]:g} to "
                f"{alphas_cumprod[-1]:g}; change beta_start, beta_end or num_train_timesteps"
            )
        if spec.rescale_betas_zero_snr:
            alphas_cumprod = _without_signal_at_last(alphas_cumprod)
            betas = 1.0 - np.append(alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1])
        return cls(
            betas,
            alphas_cumprod,
            min(spec.original_inference_steps, len(betas)),
            steps_offset=spec.steps_offset,
            set_alpha_to_one=spec.set_alpha_to_one,
            final_sigmas_type=spec.final_sigmas_type,
            whole_timesteps=spec.whole_timesteps,
        )

    @property
    def prediction_types(self) -> tuple[PredictionType, ...]:
        """What a denoiser may tell: where there is no signal at all, eps says nothing of the image."""
        told: tuple[PredictionType, ...] = ("v_prediction", "sample")
        return ("epsilon", *told) if self.alphas_cumprod[-1] else told

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return len(self.betas)

    @cached_property
    def ratios(self) -> Float64:
        """sigma / alpha at each time step, [T]: the sigma of Karras et al. (2022), who divide x_t by alpha."""
        signal = self._with_signal
        return np.asarray(np.sqrt((1.0 - signal) / signal))

    @property
    def _with_signal(self) -> Float64:
        """abar, whose last is near 0 and not 0 where it was, [T]."""
        if self.alphas_cumprod[-1]:
            return self.alphas_cumprod
        return np.append(self.alphas_cumprod[:-1], LEAST_SIGNAL)

    def levels(self, timesteps: Float64, *, in_ratios: bool = False) -> tuple[Float64, Float64]:
        """alpha and sigma at these time steps, [S] each; between two whole ones sigma / alpha lies on a line.

        `in_ratios`: for a solver that divides by alpha, as Euler's and DPM-Solver++; it is never 0.
        """
        whole = timesteps.astype(np.int64)
        if (whole == timesteps).all():
            now = (self._with_signal if in_ratios else self.alphas_cumprod)[whole]
            return np.sqrt(now), np.sqrt(1.0 - now)
        return levels_of(np.interp(timesteps, np.arange(self.num_train_timesteps), self.ratios))


@dataclass(frozen=True)
class FlowSchedule:
    """A straight line from noise to image: alpha = 1 - t, sigma = t, for t in (0, 1].

    Time steps are counted as diffusers does, as t T in (0, T]. `shift`: sampling takes its steps at
    ``shift t / (1 + (shift - 1) t)``; above 1 more of them are noisy, as larger images need (Esser et al. 2024,
    "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", eq. 23). `whole_timesteps` as in
    :class:`ScheduleSpec`.
    """

    solvers: ClassVar[tuple[SolverName, ...]] = ("euler", "euler_ancestral", "dpmsolver++", "lcm")
    proving: ClassVar[tuple[SolverName, ...]] = ("euler", "euler_ancestral", "dpmsolver++")
    prediction_types: ClassVar[tuple[PredictionType, ...]] = ("flow", "sample")

    num_train_timesteps: int
    shift: float = 1.0
    original_inference_steps: int = 50
    whole_timesteps: bool = False

    @classmethod
    def of(cls, spec: ScheduleSpec) -> FlowSchedule:
        """The schedule that `spec` names."""
        steps = min(spec.original_inference_steps, spec.num_train_timesteps)
        return cls(spec.num_train_timesteps, spec.shift, steps, spec.whole_timesteps)

    def shifted(self, times: Float64) -> Float64:
        """The times t in (0, 1], shifted."""
        return self.shift * times / (1.0 + (self.shift - 1.0) * times)

    def levels(self, timesteps: Float64, *, in_ratios: bool = False) -> tuple[Float64, Float64]:
        """alpha and sigma at these time steps, [S] each; the first alpha is 0, `in_ratios` or not."""
        times = timesteps / self.num_train_timesteps
        return 1.0 - times, times


Schedule = NoiseSchedule | FlowSchedule


def make_schedule(spec: ScheduleSpec) -> Schedule:
    """The schedule that `spec` names; raises as :meth:`NoiseSchedule.of`."""
    return FlowSchedule.of(spec) if spec.kind == "flow" else NoiseSchedule.of(spec)


def levels_of(ratios: Float64) -> tuple[Float64, Float64]:
    """alpha and sigma of a variance preserving schedule from sigma / alpha."""
    alpha = 1.0 / np.sqrt(1.0 + ratios**2)
    return alpha, ratios * alpha


def _betas(spec: ScheduleSpec) -> Float64:
    """[T], of the schedules that have betas."""
    if spec.kind in ("linear", "scaled_linear") and spec.beta_start > spec.beta_end:
        raise InputError(f"expected beta_start <= beta_end, got {spec.beta_start} > {spec.beta_end}")
    steps = spec.num_train_timesteps
    if spec.kind == "linear":
        return np.linspace(spec.beta_start, spec.beta_end, steps, dtype=np.float64)
    if spec.kind == "scaled_linear":  # of latent diffusion (Rombach et al. 2022): linear in sqrt(beta)
        roots: Float64 = np.linspace(spec.beta_start**0.5, spec.beta_end**0.5, steps, dtype=np.float64)
        return roots**2
    return _cosine_betas(steps) if spec.betas is None else np.asarray(spec.betas, np.float64)


def _without_signal_at_last(alphas_cumprod: Float64) -> Float64:
    """Lin et al. (2023), "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1: sqrt(abar)
    shifted to 0 at the last time step, and scaled to what it was at the first."""
    roots = np.sqrt(alphas_cumprod)
    shifted: Float64 = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    return shifted**2


def _cosine_betas(steps: int) -> Float64:
    """Nichol & Dhariwal (2021), eq. 17: abar(t) = cos^2((t / T + s) / (1 + s) * pi / 2), s = 0.008."""
    times = np.arange(steps + 1, dtype=np.float64) / steps
    alphas_cumprod = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    betas: Float64 = np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], MAX_BETA)
    return betas
