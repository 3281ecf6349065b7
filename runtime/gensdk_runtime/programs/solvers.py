"""Solvers as stateless tables: a row of coefficients for each step, computed once in float64.

All three solvers are linear in what a step knows, so one formula, inside the step graph, serves them all::

    x_0   = clip(x * sample + e * eps, -clip, clip)
    next  = a * sample + b * x_0 + c * eps + d * previous_x_0 + s * noise

A row is (x, e, clip, a, b, c, d, s). A denoiser that predicts v = alpha eps - sigma x_0 instead of eps stands in
the same two places of the same formula, with other numbers in the row. The time step before `t` is taken from the
real list of time steps, never computed as ``t - T // S``, so uneven spacings are right too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.programs.schedules import Float64, NoiseSchedule
from gensdk_runtime.spec.manifest import PredictionType
from gensdk_runtime.spec.settings import SolverName, TimestepSpacing

NUM_COEFFICIENTS = 8
NO_CLIP = float(np.finfo(np.float32).max)

SOLVERS: tuple[str, ...] = get_args(SolverName)
SPACINGS: tuple[str, ...] = get_args(TimestepSpacing)


@dataclass(frozen=True)
class SolverTable:
    """`timesteps`: int64 [S], falling. `coefficients`: float64 [S, 8], rows as in this module's docstring."""

    timesteps: NDArray[np.int64]
    coefficients: Float64

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def noise_scale(self) -> Float64:
        """[S]: how much fresh noise each step adds; where it is 0 none need be drawn."""
        return np.asarray(self.coefficients[:, 7])


@dataclass(frozen=True)
class _Levels:
    """alpha = sqrt(abar) and sigma = sqrt(1 - abar) at each step [S] and at the step after it [S]."""

    alpha: Float64
    sigma: Float64
    next_alpha: Float64
    next_sigma: Float64


def solver_table(
    schedule: NoiseSchedule,
    solver: SolverName,
    num_inference_steps: int,
    *,
    eta: float = 0.0,
    timestep_spacing: TimestepSpacing = "trailing",
    clip_range: float | None = 1.0,
    use_clipped_model_output: bool = True,
    prediction_type: PredictionType = "epsilon",
) -> SolverTable:
    """The table for `num_inference_steps` steps of `solver`.

    `eta` in [0, 1] scales DDIM's noise (0: deterministic, 1: DDPM's variance); the other solvers take 0 only.
    `clip_range` clips the estimate of x_0 to [-clip_range, clip_range]; None leaves it. Then DDIM goes on with the
    eps that belongs to the clipped x_0; without `use_clipped_model_output` (diffusers' default) it keeps the
    model's own, and the sample leaves the noise level that the next step expects, the more steps the further.
    `prediction_type`: what the denoiser tells, "epsilon" or "v_prediction".
    Raises :class:`InputError` for unknown names, and for more steps than the schedule holds.
    """
    if solver not in SOLVERS:
        raise InputError(f"no solver {solver!r}{did_you_mean(str(solver), SOLVERS)}")
    if not 0.0 <= eta <= 1.0:
        raise InputError(f"expected eta in [0, 1], got {eta}")
    if eta and solver != "ddim":
        raise InputError(f"eta belongs to solver 'ddim'; solver {solver!r} takes none, got {eta}")
    steps = timesteps(schedule.num_train_timesteps, num_inference_steps, timestep_spacing, solver)
    levels = _levels(schedule, steps)
    rows = np.zeros((len(steps), NUM_COEFFICIENTS))
    rows[:, 0] = 1.0 / levels.alpha
    rows[:, 1] = -levels.sigma / levels.alpha
    rows[:, 2] = NO_CLIP if clip_range is None else clip_range
    if solver == "dpmsolver++":
        rows[:, 3:7] = _dpmsolver_2m(levels)
    elif solver == "ddim":
        rows[:, 3:] = _ddim(levels, eta, from_x0=use_clipped_model_output)
    else:
        rows[:, 3:] = _ddpm(levels)
    if prediction_type == "v_prediction":
        _take_velocity(rows, levels)
    steps.setflags(write=False)  # tables are shared between calls
    rows.setflags(write=False)
    return SolverTable(timesteps=steps, coefficients=rows)


def timesteps(
    num_train_timesteps: int, num_inference_steps: int, spacing: TimestepSpacing, solver: SolverName
) -> NDArray[np.int64]:
    """The falling time steps, int64 [S].

    "leading", "linspace" and "trailing" as in Lin et al. (2023), "Common Diffusion Noise Schedules", table 2;
    DPM-Solver++ leaves out the last of S + 1 points where the spacing would end at 0, as its authors do.
    "quadratic" is denser where there is little noise, t_i = (i / S)^2 (T - 1) for i = S .. 1: Song, Meng & Ermon
    (2020), appendix D.2, ending as DPM-Solver++'s authors do; points that would fall together move apart.
    Raises :class:`InputError` for an unknown spacing or a number of steps that the schedule doesn't hold.
    """
    if spacing not in SPACINGS:
        raise InputError(f"no timestep_spacing {spacing!r}{did_you_mean(str(spacing), SPACINGS)}")
    total, count = num_train_timesteps, num_inference_steps
    drops_last = solver == "dpmsolver++" and spacing in ("leading", "linspace")
    most = total - 1 if drops_last else total
    if not 1 <= count <= most:
        raise InputError(f"expected num_inference_steps from 1 to {most}, got {count}")
    points = count + 1 if drops_last else count
    if spacing == "trailing":
        steps = np.round(np.arange(count, 0, -1) * (total / count)) - 1
    elif spacing == "quadratic":
        steps = _quadratic(total, count)[::-1]
    elif spacing == "leading":
        steps = np.arange(points)[::-1][:count] * float(total // points)
    else:
        steps = np.linspace(0, total - 1, points).round()[::-1][:count]
    return steps.astype(np.int64)


def _quadratic(total: int, count: int) -> Float64:
    """Rising, each at least one above the one below, within 0 .. total - 1."""
    numbers = np.arange(count)
    squares = np.round(((numbers + 1) / count) ** 2 * (total - 1))
    apart = np.maximum.accumulate(squares - numbers) + numbers
    return np.minimum(apart, total - count + numbers)


def _levels(schedule: NoiseSchedule, steps: NDArray[np.int64]) -> _Levels:
    now = schedule.alphas_cumprod[steps]
    after = np.append(now[1:], 1.0)
    return _Levels(np.sqrt(now), np.sqrt(1.0 - now), np.sqrt(after), np.sqrt(1.0 - after))


def _take_velocity(rows: Float64, levels: _Levels) -> None:
    """Changes rows for eps into rows for v, in place.

    Salimans & Ho (2022), appendix D: x_0 = alpha x_t - sigma v, and so eps = sigma x_t + alpha v. Nothing is
    divided by alpha: where x_t is nearly all noise, eps tells x_0 badly, and v tells it well.
    """
    rows[:, 0], rows[:, 1] = levels.alpha, -levels.sigma
    rows[:, 3] += rows[:, 5] * levels.sigma
    rows[:, 5] *= levels.alpha


def _ddpm(v: _Levels) -> Float64:
    """Ho et al. (2020), eq. 7, with the posterior variance; (a, b, c, d, s) as columns [S, 5]."""
    alpha_t = (v.alpha / v.next_alpha) ** 2
    beta_t = 1.0 - alpha_t
    a = np.sqrt(alpha_t) * v.next_sigma**2 / v.sigma**2
    b = v.next_alpha * beta_t / v.sigma**2
    s = np.sqrt(beta_t) * v.next_sigma / v.sigma
    return np.stack([a, b, np.zeros_like(a), np.zeros_like(a), s], axis=1)


def _ddim(v: _Levels, eta: float, *, from_x0: bool) -> Float64:
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


def _dpmsolver_2m(v: _Levels) -> Float64:
    """Lu et al. (2022), "DPM-Solver++", algorithm 2 (2M); (a, b, c, d) as columns [S, 4].

    The first step knows no earlier x_0, and the last one goes to sigma = 0; both are of first order.
    """
    log_snr = np.log(v.alpha) - np.log(v.sigma)
    h = np.append(np.diff(log_snr), np.inf)
    b = -v.next_alpha * np.expm1(-h)
    d = np.zeros_like(b)
    if len(h) > 2:
        half = 0.5 * b[1:-1] * h[1:-1] / h[:-2]  # D = (1 + 1 / 2r) x_0 - 1 / 2r x_0', r = h' / h
        d[1:-1] = -half
        b[1:-1] += half
    return np.stack([v.next_sigma / v.sigma, b, np.zeros_like(b), d], axis=1)
