"""At which times a solver steps, and how much of image and noise there is at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.programs.schedules import Float64, FlowSchedule, NoiseSchedule, Schedule, levels_of
from gensdk_runtime.spec.settings import SolverName, TimestepSpacing

SPACINGS: tuple[str, ...] = get_args(TimestepSpacing)
IN_RATIOS = ("euler", "euler_ancestral", "dpmsolver++")
"""Solvers that count in sigma / alpha."""
RHO = 7.0
"""Of Karras et al. (2022), appendix D.1."""


@dataclass(frozen=True)
class Levels:
    """The falling `timesteps` [S], alpha and sigma at each of them and at the one after it [S]; the last goes to
    the image, where alpha is 1 and sigma 0, or to the first time step of the training."""

    timesteps: Float64
    alpha: Float64
    sigma: Float64
    next_alpha: Float64
    next_sigma: Float64

    def since(self, first: int) -> Levels:
        """The steps from number `first` on."""
        now = self.timesteps[first:], self.alpha[first:], self.sigma[first:]
        return Levels(*now, self.next_alpha[first:], self.next_sigma[first:])


def levels(schedule: Schedule, solver: SolverName, num_inference_steps: int, spacing: TimestepSpacing) -> Levels:
    """The time steps of a call; see :func:`timesteps` for what it raises."""
    times = timesteps(schedule, solver, num_inference_steps, spacing)
    if spacing == "karras" and isinstance(schedule, NoiseSchedule):
        alpha, sigma = levels_of(_karras(schedule.ratios[-1], schedule.ratios[0], num_inference_steps))
    else:
        alpha, sigma = schedule.levels(times, in_ratios=solver in IN_RATIOS)
    last_alpha, last_sigma = _last_levels(schedule, solver)
    if isinstance(schedule, FlowSchedule) and schedule.whole_timesteps and solver == "dpmsolver++":
        times = np.floor(times)  # what the denoiser is told; the noise is that of the fractions
    return Levels(times, alpha, sigma, np.append(alpha[1:], last_alpha), np.append(sigma[1:], last_sigma))


def _last_levels(schedule: Schedule, solver: SolverName) -> tuple[Float64, Float64]:
    """alpha and sigma after the last step: those of the image, or of the training's first time step, where the
    schedule says so to this solver; to the others diffusers doesn't either. Euler's method ends with what it steps
    in, x_t / alpha."""
    if isinstance(schedule, NoiseSchedule):
        keeps = schedule.final_sigmas_type == "sigma_min"
        if keeps and solver == "euler":
            return np.ones(1), schedule.ratios[:1]
        if (keeps and solver == "dpmsolver++") or (solver == "ddim" and not schedule.set_alpha_to_one):
            return schedule.levels(np.zeros(1))
    return np.ones(1), np.zeros(1)


def timesteps(
    schedule: Schedule, solver: SolverName, num_inference_steps: int, spacing: TimestepSpacing
) -> Float64:
    """The falling time steps [S], as diffusers counts them.

    "leading", "linspace" and "trailing" as in Lin et al. (2023), "Common Diffusion Noise Schedules", table 2;
    DPM-Solver++ leaves out the last of S + 1 points where the spacing would end at 0, as its authors do. "leading"
    lies `steps_offset` of the schedule later.
    "quadratic" is denser where there is little noise, t_i = (i / S)^2 (T - 1) for i = S .. 1: Song, Meng & Ermon
    (2020), appendix D.2, ending as DPM-Solver++'s authors do; points that would fall together move apart.
    "skipping": S of the `original_inference_steps` that a latent consistency model learned (Luo et al. 2023).
    "karras": evenly spaced in (sigma / alpha)^(1 / 7), Karras et al. (2022), eq. 5.

    All are whole on a noise schedule but "karras", and the Euler solvers' "linspace", as in k-diffusion. With
    `whole_timesteps` of the schedule DPM-Solver++ tells them to the denoiser rounded, some twice.
    Raises :class:`InputError` for an unknown spacing or a number of steps that the schedule doesn't hold.
    """
    if spacing not in SPACINGS:
        raise InputError(f"no timestep_spacing {spacing!r}{did_you_mean(str(spacing), SPACINGS)}")
    total, count = schedule.num_train_timesteps, num_inference_steps
    drops_last, most = _drops_last(solver, spacing), most_steps(schedule, solver, spacing)
    if not 1 <= count <= most:
        where = "" if most == total else f" with solver {solver!r} and timestep_spacing {spacing!r}"
        raise InputError(f"expected num_inference_steps from 1 to {most}{where}, got {count}")
    if isinstance(schedule, FlowSchedule):
        return _of_flow(schedule, count, spacing, drops_last=drops_last) * total
    points = count + 1 if drops_last else count
    if spacing == "trailing":
        return np.asarray(np.round(np.arange(count, 0, -1) * (total / count)) - 1, np.float64)
    if spacing == "quadratic":
        return _quadratic(total, count)[::-1]
    if spacing == "leading":
        return np.arange(points)[::-1][:count] * np.float64(total // points) + schedule.steps_offset
    if spacing == "skipping":
        return _skipping(total, count, schedule.original_inference_steps) - 1
    if spacing == "karras":
        between = _times_of(schedule, _karras(schedule.ratios[-1], schedule.ratios[0], count))
        return between.round() if schedule.whole_timesteps and solver == "dpmsolver++" else between
    evenly: Float64 = np.linspace(0, total - 1, points)[::-1][:count]
    return evenly if solver in ("euler", "euler_ancestral") else evenly.round()


def most_steps(schedule: Schedule, solver: SolverName, spacing: TimestepSpacing) -> int:
    """The most steps that a solver can take; 0 where the schedule is too short for any."""
    if spacing == "skipping":
        return schedule.original_inference_steps
    later = schedule.steps_offset if isinstance(schedule, NoiseSchedule) and spacing == "leading" else 0
    return schedule.num_train_timesteps - _drops_last(solver, spacing) - later


def _drops_last(solver: SolverName, spacing: TimestepSpacing) -> bool:
    return solver == "dpmsolver++" and spacing in ("leading", "linspace")


def _of_flow(schedule: FlowSchedule, count: int, spacing: TimestepSpacing, *, drops_last: bool) -> Float64:
    """Times in (0, 1]; those of noise schedules, in a continuous time whose steps 1 / T .. 1 are theirs."""
    total = schedule.num_train_timesteps
    least = float(schedule.shifted(np.array(1.0 / total)))  # shifted twice where it is last, as diffusers does
    if spacing == "trailing":
        times = np.arange(count, 0, -1) / count
    elif spacing == "quadratic":
        times = (np.arange(count, 0, -1) / count) ** 2
    elif spacing == "leading":
        points = count + 1 if drops_last else count
        times = (np.arange(points)[::-1][:count] * (total // points) + 1) / total
    elif spacing == "skipping":
        times = _skipping(total, count, schedule.original_inference_steps) / total
    elif drops_last and schedule.whole_timesteps:  # to the last bit: a floor is taken of them
        times = (1.0 - np.linspace(1.0, 1.0 / total, count + 1))[::-1][:-1]
    elif drops_last:
        times = np.linspace(1.0 - 1.0 / total, 0.0, count + 1)[:-1]
    else:
        times = np.linspace(1.0, least, count)
    shifted = schedule.shifted(times)
    return _karras(shifted[0], shifted[-1], count) if spacing == "karras" else shifted


def _quadratic(total: int, count: int) -> Float64:
    """Rising, each at least one above the one below, within 0 .. total - 1."""
    numbers = np.arange(count)
    squares = np.round(((numbers + 1) / count) ** 2 * (total - 1))
    apart = np.maximum.accumulate(squares - numbers) + numbers
    return np.minimum(apart, total - count + numbers)


def _skipping(total: int, count: int, original: int) -> Float64:
    """`count` of the `original` learned times, which lie at each total // original, within 1 .. total."""
    learned: Float64 = np.arange(original, 0, -1) * np.float64(total // original)
    return learned[np.floor(np.linspace(0, original, count, endpoint=False)).astype(np.int64)]


def _karras(most: float, least: float, count: int) -> Float64:
    """Karras et al. (2022), eq. 5: the noise of each step, falling."""
    ramp = np.linspace(0, 1, count)
    return np.asarray((most ** (1 / RHO) + ramp * (least ** (1 / RHO) - most ** (1 / RHO))) ** RHO)


def _times_of(schedule: NoiseSchedule, ratios: Float64) -> Float64:
    """The time steps, fractions of them too, at which sigma / alpha has these values; linear in its logarithm."""
    numbers = np.arange(schedule.num_train_timesteps, dtype=np.float64)
    return np.interp(np.log(ratios), np.log(schedule.ratios), numbers)
