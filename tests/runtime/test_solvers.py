"""Solver laws, and equality with diffusers' schedulers step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import NoiseSchedule, make_schedule
from gensdk_runtime.programs.solvers import SOLVERS, SPACINGS, SolverTable, solver_table, timesteps
from gensdk_runtime.spec.manifest import ScheduleSpec

THEIR_SPACINGS = ("leading", "linspace", "trailing")
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


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


def peer(solver: str, kind: str, spacing: str, clip: bool, **options: Any) -> Any:
    common: dict[str, Any] = {"beta_schedule": BETAS[kind], "timestep_spacing": spacing, **options}
    if solver == "dpmsolver++":
        scheduler: Any = DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)
    elif solver == "ddim":
        scheduler = DDIMScheduler(**common, clip_sample=clip)
    else:
        scheduler = DDPMScheduler(**common, clip_sample=clip)
    if kind == "cosine":  # abar falls to 2e-9, where float32 cumulative products keep four digits
        scheduler.alphas_cumprod = torch.from_numpy(schedule(kind).alphas_cumprod)
    return scheduler


@pytest.mark.parametrize("kind", BETAS)
def test_schedules_are_those_of_diffusers(kind: str) -> None:
    theirs = DDPMScheduler(beta_schedule=BETAS[kind])
    np.testing.assert_allclose(schedule(kind).betas, theirs.betas.numpy(), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(schedule(kind).alphas_cumprod, theirs.alphas_cumprod.numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 10, 25, 50])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("spacing", THEIR_SPACINGS)
@pytest.mark.parametrize(("eta", "clipped"), [(0.0, True), (0.0, False), (0.7, True), (1.0, False)])
def test_equals_diffusers_step_by_step(
    solver: Any, spacing: Any, steps: int, kind: str, eta: float, clipped: bool
) -> None:
    if solver != "ddim" and (eta or not clipped):
        return
    clip = solver != "dpmsolver++"  # diffusers' multistep solver doesn't clip
    theirs = peer(solver, kind, spacing, clip)
    theirs.set_timesteps(steps)
    ours = solver_table(
        schedule(kind),
        solver,
        steps,
        eta=eta,
        timestep_spacing=spacing,
        clip_range=1.0 if clip else None,
        use_clipped_model_output=clipped,
    )
    assert theirs.timesteps.tolist() == ours.timesteps.tolist()
    if solver == "ddim" and spacing == "linspace" and steps > 1:
        return  # diffusers takes t - T // S as the step before t there, not the one in its list
    extra: dict[str, Any] = {"eta": eta, "use_clipped_model_output": clipped} if solver == "ddim" else {}
    assert_equal_states(theirs, ours, **extra)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_denoiser_that_predicts_v_gives_what_diffusers_gives(solver: Any, clipped: bool) -> None:
    if solver != "ddim" and not clipped:
        return
    clip = solver != "dpmsolver++"
    theirs = peer(solver, "linear", "trailing", clip, prediction_type="v_prediction")
    theirs.set_timesteps(10)
    ours = solver_table(
        schedule(),
        solver,
        10,
        clip_range=1.0 if clip else None,
        use_clipped_model_output=clipped,
        prediction_type="v_prediction",
    )
    assert_equal_states(theirs, ours, **({"use_clipped_model_output": clipped} if solver == "ddim" else {}))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_eps_and_the_v_that_it_means_lead_to_the_same_states(solver: Any, spacing: Any) -> None:
    plan = schedule("cosine")
    of_eps, of_v = (
        solver_table(plan, solver, 20, timestep_spacing=spacing, prediction_type=kind)  # type: ignore[arg-type]
        for kind in ("epsilon", "v_prediction")
    )
    random = np.random.default_rng(0)
    ours = theirs = random.normal(size=(2, 1, 4, 4))
    previous = [np.zeros_like(ours)] * 2
    for t, row, other in zip(of_eps.timesteps, of_eps.coefficients, of_v.coefficients, strict=True):
        eps, fresh = random.normal(size=(2, *ours.shape))
        alpha, sigma = np.sqrt(plan.alphas_cumprod[t]), np.sqrt(1 - plan.alphas_cumprod[t])
        ours, previous[0] = step(row, ours, eps, previous[0], fresh)
        theirs, previous[1] = step(other, theirs, (eps - sigma * theirs) / alpha, previous[1], fresh)
        np.testing.assert_allclose(theirs, ours, atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 10, 25, 50])
@pytest.mark.parametrize("solver", ["ddpm", "dpmsolver++"])
def test_quadratic_spacing_equals_diffusers_with_these_time_steps(solver: Any, steps: int, kind: str) -> None:
    """diffusers has no such spacing, but takes a list of time steps (only its DDIM takes none)."""
    clip = solver == "ddpm"
    ours = solver_table(
        schedule(kind), solver, steps, timestep_spacing="quadratic", clip_range=1.0 if clip else None
    )
    theirs = peer(solver, kind, "linspace", clip)
    theirs.alphas_cumprod = torch.from_numpy(schedule(kind).alphas_cumprod)  # close steps cancel in float32
    theirs.set_timesteps(timesteps=ours.timesteps.tolist())
    assert_equal_states(theirs, ours)


def assert_equal_states(theirs: Any, ours: SolverTable, **extra: Any) -> None:
    """The same states from the same noise and answers, step by step."""
    steps = len(ours)
    rng = np.random.default_rng(steps)
    start, eps, noise = rng.normal(size=(3, 3, 4, 4)), *rng.normal(size=(2, steps, 3, 3, 4, 4))
    state = torch.from_numpy(start)
    for i, mine in enumerate(walk(ours, start, eps, noise)):
        if extra.get("eta"):
            extra["variance_noise"] = torch.from_numpy(noise[i])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "diffusers.schedulers.scheduling_ddpm.randn_tensor",
                lambda *_, i=i, **__: torch.from_numpy(noise[i]),
            )
            state = theirs.step(torch.from_numpy(eps[i]), int(ours.timesteps[i]), state, **extra).prev_sample
        scale = max(1.0, float(np.abs(mine).max()))  # unclipped states grow to 1 / alpha_T
        np.testing.assert_allclose(mine / scale, state.double().numpy() / scale, atol=1e-5)


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
