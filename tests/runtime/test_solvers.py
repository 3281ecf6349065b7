"""Solver laws, and equality with diffusers' schedulers step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import NoiseSchedule, make_schedule
from gensdk_runtime.programs.solvers import SOLVERS, SPACINGS, SolverTable, solver_table, timesteps
from gensdk_runtime.spec.manifest import PredictionType, ScheduleSpec

THEIR_SPACINGS = ("leading", "linspace", "trailing")
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PEERS = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler, "dpmsolver++": DPMSolverMultistepScheduler}


def schedule(kind: str = "linear", total: int = 1000) -> NoiseSchedule:
    return make_schedule(ScheduleSpec(kind=kind, num_train_timesteps=total))  # type: ignore[arg-type]


def walk(table: SolverTable, start: Any, eps: Any, noise: Any) -> list[Any]:
    """The states after each step, in float64, by the formula of the module's docstring."""
    sample, previous, states = start, np.zeros_like(start), []
    for i, row in enumerate(table.coefficients):
        sample, previous = step(row, sample, eps[i], previous, noise[i])
        states.append(sample)
    return states


def step(row: Any, sample: Any, told: Any, previous: Any, noise: Any) -> tuple[Any, Any]:
    """The next sample and x_0, where the denoiser told `told`."""
    x, e, clip, a, b, c, d, s = row
    x0 = np.clip(x * sample + e * told, -clip, clip)
    return a * sample + b * x0 + c * told + d * previous + s * noise, x0


@dataclass(frozen=True)
class Case:
    """One combination of settings that gensdk takes and that diffusers has too."""

    solver: Any
    spacing: Any
    steps: int
    kind: str
    prediction: Any
    clip: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """What gensdk's table and diffusers' step() both take, by the same names."""

    def __str__(self) -> str:
        clip = "clip" if self.clip else "free"
        of_ddim = [f"{name}={value}" for name, value in self.options.items()]
        return "-".join([self.solver, self.spacing, str(self.steps), self.kind, self.prediction, clip, *of_ddim])

    def ours(self) -> SolverTable:
        return solver_table(
            schedule(self.kind),
            self.solver,
            self.steps,
            timestep_spacing=self.spacing,
            clip_range=self.clip,
            prediction_type=self.prediction,
            **self.options,
        )

    def theirs(self) -> Any:
        """The scheduler, with its time steps set; by a list where diffusers has no such spacing."""
        settings: dict[str, Any] = {"beta_schedule": BETAS[self.kind], "prediction_type": self.prediction}
        if self.spacing in THEIR_SPACINGS:
            settings["timestep_spacing"] = self.spacing
        if self.solver == "dpmsolver++":
            settings |= {"algorithm_type": "dpmsolver++", "solver_order": 2}
        else:
            settings |= {"clip_sample": self.clip is not None, "clip_sample_range": self.clip or 1.0}
        scheduler = PEERS[self.solver](**settings)
        if self.kind == "cosine" or self.spacing == "quadratic":
            # abar falls to 2e-9 and close steps cancel, where float32 cumulative products keep four digits
            scheduler.alphas_cumprod = torch.from_numpy(schedule(self.kind).alphas_cumprod)
        if self.spacing in THEIR_SPACINGS:
            scheduler.set_timesteps(self.steps)
        elif self.solver == "ddim":  # its set_timesteps takes no list
            scheduler.timesteps, scheduler.num_inference_steps = torch.from_numpy(self.times()), self.steps
        else:
            scheduler.set_timesteps(timesteps=self.times().tolist())
        return scheduler

    def times(self) -> Any:
        return timesteps(1000, self.steps, self.spacing, self.solver).copy()


def valid_cases() -> list[Case]:
    """Every combination but those that one of the two doesn't have.

    - `eta` and `use_clipped_model_output` belong to DDIM: gensdk refuses another solver's eta, and DDPM and
      DPM-Solver++ go on from x_0 alone, so the second changes nothing in their tables.
    - DPM-Solver++ isn't clipped: diffusers' one has no `clip_sample`.
    """
    of_solver: dict[str, list[dict[str, Any]]] = {
        "ddim": [
            {"clip": clip, "options": {"eta": eta, "use_clipped_model_output": clipped}}
            for clip in (1.0, None)
            for eta in (0.0, 0.7, 1.0)
            for clipped in (True, False)
        ],
        "ddpm": [{"clip": 1.0}, {"clip": None}],
        "dpmsolver++": [{}],
    }
    return [
        Case(solver, spacing, steps, kind, prediction, **settings)
        for solver in SOLVERS
        for settings in of_solver[solver]
        for spacing in SPACINGS
        for steps in (1, 2, 7, 10, 25, 50)
        for kind in BETAS
        for prediction in get_args(PredictionType)
    ]


@pytest.mark.parametrize("kind", BETAS)
def test_schedules_are_those_of_diffusers(kind: str) -> None:
    theirs = DDPMScheduler(beta_schedule=BETAS[kind])
    np.testing.assert_allclose(schedule(kind).betas, theirs.betas.numpy(), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(schedule(kind).alphas_cumprod, theirs.alphas_cumprod.numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("case", valid_cases(), ids=str)
def test_equals_diffusers_step_by_step(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same time steps, and the same states from the same noise and answers, step by step."""
    theirs, ours = case.theirs(), case.ours()
    assert theirs.timesteps.tolist() == ours.timesteps.tolist()
    steps = len(ours)
    rng = np.random.default_rng(steps)
    start, told, noise = rng.normal(size=(3, 3, 4, 4)), *rng.normal(size=(2, steps, 3, 3, 4, 4))
    state = torch.from_numpy(start)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: fresh)
    for i, mine in enumerate(walk(ours, start, told, noise)):
        fresh = torch.from_numpy(noise[i])
        extra = {**case.options, "variance_noise": fresh} if case.solver == "ddim" else {}
        follow_the_list(theirs, i)
        state = theirs.step(torch.from_numpy(told[i]), int(ours.timesteps[i]), state, **extra).prev_sample
        scale = max(1.0, float(np.abs(mine).max()))  # unclipped states grow to 1 / alpha_T
        np.testing.assert_allclose(mine / scale, state.double().numpy() / scale, atol=1e-5)


def follow_the_list(theirs: Any, i: int) -> None:
    """Makes diffusers' DDIM step from its i-th time step to the next in its list.

    It goes to t - T // S, which the lists of uneven spacings don't hold; T and S are used for nothing else.
    """
    if not isinstance(theirs, DDIMScheduler):
        return
    now, after = [*theirs.timesteps.tolist(), -1][i : i + 2]
    if max(now - theirs.config.num_train_timesteps // theirs.num_inference_steps, -1) != after:
        theirs.register_to_config(num_train_timesteps=now - after)
        theirs.num_inference_steps = 1


@pytest.mark.parametrize("solver", [solver for solver in SOLVERS if solver != "ddim"])
def test_keeping_the_models_eps_is_for_ddim_alone(solver: Any) -> None:
    kept, derived = (
        solver_table(schedule(), solver, 10, use_clipped_model_output=clipped) for clipped in (False, True)
    )
    np.testing.assert_array_equal(kept.coefficients, derived.coefficients)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_eps_and_the_v_that_it_means_lead_to_the_same_states(solver: Any, spacing: Any) -> None:
    plan = schedule("cosine")
    of_eps, of_v = (
        solver_table(plan, solver, 20, timestep_spacing=spacing, prediction_type=kind)  # type: ignore[arg-type]
        for kind in ("epsilon", "v_prediction")
    )
    assert len(of_eps) == len(of_v) == 20
    random = np.random.default_rng(0)
    ours = theirs = random.normal(size=(2, 1, 4, 4))
    previous = [np.zeros_like(ours)] * 2
    for t, row, other in zip(of_eps.timesteps, of_eps.coefficients, of_v.coefficients, strict=True):
        eps, fresh = random.normal(size=(2, *ours.shape))
        alpha, sigma = np.sqrt(plan.alphas_cumprod[t]), np.sqrt(1 - plan.alphas_cumprod[t])
        ours, previous[0] = step(row, ours, eps, previous[0], fresh)
        theirs, previous[1] = step(other, theirs, (eps - sigma * theirs) / alpha, previous[1], fresh)
        np.testing.assert_allclose(theirs, ours, atol=1e-6)


@given(
    total=st.integers(2, 2000),
    data=st.data(),
    solver=st.sampled_from(SOLVERS),
    spacing=st.sampled_from(SPACINGS),
)
def test_timesteps_fall_within_the_schedule(total: int, data: Any, solver: Any, spacing: Any) -> None:
    most = total - 1 if solver == "dpmsolver++" and spacing in ("leading", "linspace") else total
    steps = data.draw(st.integers(1, most))
    times = timesteps(total, steps, spacing, solver)
    assert len(times) == steps
    assert times[0] < total
    assert times[-1] >= 0
    assert (np.diff(times) < 0).all()
    table = solver_table(schedule("cosine", total), solver, steps, timestep_spacing=spacing)
    assert np.isfinite(table.coefficients).all()


@given(total=st.integers(1, 2000), data=st.data())
def test_quadratic_time_steps_are_squares_where_there_is_room(total: int, data: Any) -> None:
    steps = data.draw(st.integers(1, max(1, int(((total - 1) / 2) ** 0.5))))
    times = timesteps(total, steps, "quadratic", "dpmsolver++")
    np.testing.assert_allclose(times, (np.arange(steps, 0, -1) / steps) ** 2 * (total - 1), atol=0.5)
    assert timesteps(total, total, "quadratic", "ddim").tolist() == list(range(total))[::-1]


@given(steps=st.integers(1, 1000), spacing=st.sampled_from(SPACINGS))
def test_ddim_with_eta_one_has_the_variance_of_ddpm(steps: int, spacing: Any) -> None:
    ddim = solver_table(schedule(), "ddim", steps, eta=1.0, timestep_spacing=spacing)
    ddpm = solver_table(schedule(), "ddpm", steps, timestep_spacing=spacing)
    np.testing.assert_allclose(ddim.noise_scale, ddpm.noise_scale, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_perfect_denoiser_lands_on_its_image(solver: Any, kind: str) -> None:
    plan = schedule(kind)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 1, 4, 4))
    table = solver_table(plan, solver, 20)
    sample = np.random.default_rng(1).normal(size=image.shape)
    previous = np.zeros_like(image)
    for t, (x, e, clip, a, b, c, d, s) in zip(table.timesteps, table.coefficients, strict=True):
        abar = plan.alphas_cumprod[t]
        eps = (sample - np.sqrt(abar) * image) / np.sqrt(1 - abar)
        x0 = np.clip(x * sample + e * eps, -clip, clip)
        sample = a * sample + b * x0 + c * eps + d * previous + s * np.zeros_like(image)
        previous = x0
    np.testing.assert_allclose(sample, image, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "dimm"}, "did you mean 'ddim'"),
        ({"timestep_spacing": "trail"}, "did you mean 'trailing'"),
        ({"num_inference_steps": 0}, "from 1 to 1000, got 0"),
        ({"num_inference_steps": 1001}, "from 1 to 1000, got 1001"),
        ({"eta": 1.5}, r"eta in \[0, 1\], got 1.5"),
        ({"solver": "ddpm", "eta": 0.5}, "eta belongs to solver 'ddim'"),
    ],
)
def test_refusals_name_the_remedy(arguments: dict[str, Any], message: str) -> None:
    known: dict[str, Any] = {"solver": "ddim", "num_inference_steps": 10, **arguments}
    with pytest.raises(InputError, match=message):
        solver_table(schedule(), **known)
