"""Solvers as stateless tables: a row of coefficients for each step, computed once in float64.

All solvers are linear in what a step knows, so one formula, inside the step graph, serves them all::

    x_0   = clip(x * sample + e * told, -clip, clip)
    next  = a * sample + b * x_0 + c * told + d * previous_x_0 + s * noise

A row is (x, e, clip, a, b, c, d, s), `told` what the denoiser predicts. With sample = alpha x_0 + sigma eps it is
eps; or v = alpha eps - sigma x_0, x_0 itself, or u = eps - x_0, which stand in the same two places of the same
formula, with other numbers in the row. The time step before `t` is taken from the real list of time steps, never
computed as ``t - T // S``, so uneven spacings are right too.

Euler's method on x_t / alpha (Karras et al. 2022) is DDIM in other variables, its ancestral kind is DDPM, and on a
straight line Euler's step is ``sample + (t' - t) u``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.programs.schedules import Float64, NoiseSchedule, Schedule
from gensdk_runtime.programs.spacings import Levels, levels
from gensdk_runtime.spec.model import PredictionType
from gensdk_runtime.spec.settings import SolverName, TimestepSpacing

NUM_COEFFICIENTS = 8
NO_CLIP = float(np.finfo(np.float32).max)

SOLVERS: tuple[str, ...] = get_args(SolverName)

FEW_STEPS = 15
"""With fewer of them DPM-Solver++ ends with a step of first order, as its authors advise."""

LCM_SIGMA_DATA, LCM_TIMESTEP_SCALING = 0.5, 10.0
"""Of the boundary condition of Luo et al. (2023), "Latent Consistency Models", as trained."""


@dataclass(frozen=True)
class SolverTable:
    """`timesteps`: float64 [S], falling, whole or not (see :func:`gensdk_runtime.programs.spacings.timesteps`).
    `coefficients`: float64 [S, 8], rows as in this module's docstring. `alpha`, `sigma`: float64 [S], how much of
    image and noise there is before each step."""

    timesteps: Float64
    coefficients: Float64
    alpha: Float64
    sigma: Float64

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def noise_scale(self) -> Float64:
        """[S]: how much fresh noise each step adds; where it is 0 none need be drawn."""
        return np.asarray(self.coefficients[:, 7])


def solver_table(
    schedule: Schedule,
    solver: SolverName,
    num_inference_steps: int,
    *,
    eta: float = 0.0,
    timestep_spacing: TimestepSpacing = "trailing",
    clip_range: float | None = 1.0,
    use_clipped_model_output: bool = True,
    prediction_type: PredictionType = "epsilon",
    strength: float | None = None,
    solver_order: int | None = None,
) -> SolverTable:
    """The table for `num_inference_steps` steps of `solver`.

    `eta` in [0, 1] scales DDIM's noise (0: deterministic, 1: DDPM's variance); the other solvers take 0 only.
    `clip_range` clips the estimate of x_0 to [-clip_range, clip_range]; None leaves it. Then DDIM goes on with the
    eps that belongs to the clipped x_0; without `use_clipped_model_output` (diffusers' default) it keeps the
    model's own, and the sample leaves the noise level that the next step expects, the more steps the further.
    `prediction_type`: what the denoiser tells, "epsilon", "v_prediction", "sample" (x_0) or "flow" (eps - x_0).
    `strength`: only the steps from :func:`first_step` on, for samples that start from an image.
    `solver_order`: of DPM-Solver++, 1 or 2 (None); the other solvers are what they are.
    Raises :class:`InputError` for unknown names, for a solver or prediction that this schedule doesn't take, and
    for more steps than it holds.
    """
    if solver not in SOLVERS:
        raise InputError(f"no solver {solver!r}{did_you_mean(str(solver), SOLVERS)}")
    if not 0.0 <= eta <= 1.0:
        raise InputError(f"expected eta in [0, 1], got {eta}")
    if eta and solver != "ddim":
        raise InputError(f"eta belongs to solver 'ddim'; solver {solver!r} takes none, got {eta}")
    for what, got, known in (
        ("solver", solver, schedule.solvers),
        ("prediction_type", prediction_type, schedule.prediction_types),
    ):
        if got not in known:
            raise InputError(f"expected {what} {' or '.join(known)} on this schedule, got {got!r}")
    now = levels(schedule, solver, num_inference_steps, timestep_spacing)
    if strength is not None:
        now = now.since(first_step(num_inference_steps, strength))
    rows = np.zeros((len(now.timesteps), NUM_COEFFICIENTS))
    rows[:, 2] = NO_CLIP if clip_range is None else clip_range
    if solver == "dpmsolver++":
        rows[:, 3:7] = _dpmsolver(now, solver_order or 2, few=num_inference_steps < FEW_STEPS)
    elif solver == "ddim":
        rows[:, 3:] = _ddim(now, eta, from_x0=use_clipped_model_output)
    elif solver == "ddpm":
        rows[:, 3:] = _ddpm(now)
    elif solver == "lcm":
        rows[:, 3:] = _lcm(now, skips=isinstance(schedule, NoiseSchedule))
    else:
        rows[:, 3:] = _euler(now, ancestral=solver == "euler_ancestral")
    _take_prediction(rows, now, prediction_type)
    now.timesteps.setflags(write=False)  # tables are shared between calls
    rows.setflags(write=False)
    return SolverTable(timesteps=now.timesteps, coefficients=rows, alpha=now.alpha, sigma=now.sigma)


def first_step(num_inference_steps: int, strength: float) -> int:
    """The first of so many steps that is made of an image; ``get_timesteps`` of diffusers' pipelines.

    :class:`InputError` where none is left.
    """
    made = min(int(num_inference_steps * strength), num_inference_steps)
    if made < 1:
        raise InputError(
            f"expected strength of at least 1 / {num_inference_steps} for as many steps, got {strength}: no step "
            "would be made; raise strength or num_inference_steps"
        )
    return num_inference_steps - made


def _take_prediction(rows: Float64, v: Levels, prediction_type: PredictionType) -> None:
    """Completes rows whose c stands before eps, in place, for a denoiser that tells something else.

    With ``x_0 = x sample + e told`` and ``eps = p sample + q told``. For v, Salimans & Ho (2022), appendix D:
    nothing is divided by alpha, so where x_t is nearly all noise, and eps tells x_0 badly, v tells it well.
    """
    zero, one = np.zeros_like(v.alpha), np.ones_like(v.alpha)
    if prediction_type == "epsilon":
        x, e, p, q = 1.0 / v.alpha, -v.sigma / v.alpha, zero, one
    elif prediction_type == "v_prediction":
        x, e, p, q = v.alpha, -v.sigma, v.sigma, v.alpha
    elif prediction_type == "sample":
        x, e, p, q = zero, one, 1.0 / v.sigma, -v.alpha / v.sigma
    else:  # alpha + sigma = 1
        x, e, p, q = one, -v.sigma, one, v.alpha
    rows[:, 0], rows[:, 1] = x, e
    rows[:, 3] += rows[:, 5] * p
    rows[:, 5] *= q


def _ddpm(v: Levels) -> Float64:
    """Ho et al. (2020), eq. 7, with the posterior variance; (a, b, c, d, s) as columns [S, 5]."""
    alpha_t = (v.alpha / v.next_alpha) ** 2
    beta_t = 1.0 - alpha_t
    a = np.sqrt(alpha_t) * v.next_sigma**2 / v.sigma**2
    b = v.next_alpha * beta_t / v.sigma**2
    s = np.sqrt(beta_t) * v.next_sigma / v.sigma
    return np.stack([a, b, np.zeros_like(a), np.zeros_like(a), s], axis=1)


def _ddim(v: Levels, eta: float, *, from_x0: bool) -> Float64:
    """Song, Meng & Ermon (2020), eq. 12 with sigma from eq. 16; (a, b, c, d, s) as columns [S, 5].

    `from_x0` replaces eps by (sample - alpha x_0) / sigma, which differs from it where x_0 was clipped.
    """
    s = eta * v.next_sigma / v.sigma * np.sqrt(1.0 - (v.alpha / v.next_alpha) ** 2)
    direction = np.sqrt(np.maximum(v.next_sigma**2 - s**2, 0.0))
    zero = np.zeros_like(s)
    if from_x0:
        kept = direction / v.sigma
        return np.stack([kept, v.next_alpha - kept * v.alpha, zero, zero, s], axis=1)
    return np.stack([zero, v.next_alpha, direction, zero, s], axis=1)


def _euler(v: Levels, *, ancestral: bool) -> Float64:
    """Karras et al. (2022), algorithm 1 with sigma / alpha as their sigma; (a, b, c, d, s) as columns [S, 5].

    `ancestral`: down to less noise than the next step has, and noise added up to it, as k-diffusion does.
    """
    kept = (v.next_sigma * v.alpha) / (v.sigma * v.next_alpha) if ancestral else np.ones_like(v.alpha)
    a = kept * v.next_sigma / v.sigma
    zero = np.zeros_like(a)
    s = v.next_sigma * np.sqrt(np.maximum(1.0 - kept**2, 0.0))
    return np.stack([a, v.next_alpha - a * v.alpha, zero, zero, s], axis=1)


def _lcm(v: Levels, *, skips: bool) -> Float64:
    """Luo et al. (2023), algorithm 3: to x_0, and back to the next step's noise; (a, b, c, d, s) as [S, 5].

    `skips`: with the boundary condition (eq. 9), x_0 becomes c_skip sample + c_out x_0.
    """
    scaled = v.timesteps * LCM_TIMESTEP_SCALING if skips else np.full_like(v.alpha, np.inf)
    c_skip = LCM_SIGMA_DATA**2 / (scaled**2 + LCM_SIGMA_DATA**2)
    c_out = np.sqrt(1.0 - c_skip)
    zero = np.zeros_like(c_skip)
    return np.stack([v.next_alpha * c_skip, v.next_alpha * c_out, zero, zero, v.next_sigma], axis=1)


def _dpmsolver(v: Levels, order: int, *, few: bool) -> Float64:
    """Lu et al. (2022), "DPM-Solver++", algorithm 2 (2M); (a, b, c, d) as columns [S, 4]. Of `order` 1 it is DDIM.

    The first step knows no earlier x_0, and a last one that goes to sigma = 0 can't look back: both are of first
    order. So is the last of `few` steps wherever it goes, and the one after a first step from pure noise, where
    alpha is 0.
    """
    with np.errstate(divide="ignore"):
        h = (np.log(v.next_alpha) - np.log(v.next_sigma)) - (np.log(v.alpha) - np.log(v.sigma))
    b = -v.next_alpha * np.expm1(-h)
    d = np.zeros_like(b)
    end = len(h) - 1 if v.next_sigma[-1] == 0 or few else len(h)
    if order > 1 and end > 1:
        half = 0.5 * b[1:end] * h[1:end] / h[: end - 1]  # D = (1 + 1 / 2r) x_0 - 1 / 2r x_0', r = h' / h
        d[1:end] = -half
        b[1:end] += half
    return np.stack([v.next_sigma / v.sigma, b, np.zeros_like(b), d], axis=1)
