"""Laws of solvers and time steps; equality with diffusers' schedulers is in test_solvers_diffusers.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import FlowSchedule, Schedule, make_schedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.programs.spacings import SPACINGS, Levels, levels, timesteps
from gensdk_runtime.spec.model import ScheduleSpec
from support.solver_steps import step

KINDS = ("linear", "scaled_linear", "cosine", "flow", "no signal")


def schedule(kind: str = "linear", total: int = 1000, **options: Any) -> Any:
    if kind == "no signal":  # at the last time step
        kind, options = "linear", {"rescale_betas_zero_snr": True, **options}
    return make_schedule(ScheduleSpec(kind=kind, num_train_timesteps=total, **options))  # type: ignore[arg-type]


def cases() -> list[Any]:
    """Each solver on each kind of schedule that takes it, at each spacing."""
    return [
        pytest.param(kind, solver, spacing, id=f"{kind}-{solver}-{spacing}")
        for kind in KINDS
        for solver in schedule(kind).solvers
        for spacing in SPACINGS
    ]


every_case = pytest.mark.parametrize(("kind", "solver", "spacing"), cases())


def table_of(
    plan: Schedule, solver: Any, spacing: Any, steps: int = 20, **options: Any
) -> tuple[SolverTable, Levels]:
    options = {"prediction_type": plan.prediction_types[0], **options}
    return (
        solver_table(plan, solver, steps, timestep_spacing=spacing, **options),
        levels(plan, solver, steps, spacing),
    )


def told(prediction: str, x0: Any, eps: Any, alpha: float, sigma: float) -> Any:
    """What a denoiser says of alpha x_0 + sigma eps."""
    return {"epsilon": eps, "v_prediction": alpha * eps - sigma * x0, "sample": x0, "flow": eps - x0}[prediction]


@every_case
def test_all_that_a_denoiser_may_tell_leads_to_the_same_states(kind: str, solver: Any, spacing: Any) -> None:
    plan = schedule(kind)
    assert len(plan.prediction_types) > 1
    options = [{"use_clipped_model_output": kept} for kept in ((True, False) if solver == "ddim" else (True,))]
    for option in options:
        tables = [table_of(plan, solver, spacing, prediction_type=p, **option)[0] for p in plan.prediction_types]
        now = levels(plan, solver, 20, spacing)
        random = np.random.default_rng(0)
        sample = random.normal(size=(2, 1, 4, 4))
        previous = np.zeros_like(sample)
        for i in range(20):
            x0, fresh = random.normal(size=(2, *sample.shape))
            eps = (sample - now.alpha[i] * x0) / now.sigma[i]
            says = [told(p, x0, eps, now.alpha[i], now.sigma[i]) for p in plan.prediction_types]
            after = [
                step(table.coefficients[i], sample, say, previous, fresh)
                for table, say in zip(tables, says, strict=True)
            ]
            for other in after[1:]:
                np.testing.assert_allclose(other, after[0], atol=1e-6)
            sample, previous = after[0]


@every_case
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_keeps_image_and_noise_in_their_proportion(
    kind: str, solver: Any, spacing: Any, eta: float
) -> None:
    """alpha x_0 + sigma eps becomes alpha' x_0 + sigma' eps', eps' of variance 1, however much noise is added."""
    plan = schedule(kind)
    options = {"eta": eta} if solver == "ddim" else {}
    table, now = table_of(plan, solver, spacing, clip_range=None, prediction_type="sample", **options)
    _, _, _, a, b, c, d, s = table.coefficients.T
    skips = solver == "lcm" and kind != "flow"  # there x_0 is c_skip sample + c_out x_0
    bound = 1e-9 + skips * 0.25 / ((10 * table.timesteps) ** 2 + 0.25)
    assert (np.abs(a * now.alpha + b + c + d - now.next_alpha) <= bound).all()
    assert (np.abs(np.hypot(a * now.sigma, s) - now.next_sigma) <= bound).all()
    assert s[-1] == 0
    assert s.any() == (solver in ("ddpm", "euler_ancestral", "lcm") or bool(options.get("eta")))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("spacing", [spacing for spacing in SPACINGS if spacing != "linspace"])
@pytest.mark.parametrize(("euler", "same"), [("euler", "ddim"), ("euler_ancestral", "ddpm")])
def test_eulers_methods_are_ddim_and_ddpm(euler: Any, same: Any, spacing: Any, kind: str) -> None:
    """On the same time steps; "linspace" gives Euler fractions of them."""
    ours, theirs = (solver_table(schedule(kind), name, 20, timestep_spacing=spacing) for name in (euler, same))
    np.testing.assert_allclose(ours.coefficients, theirs.coefficients, rtol=1e-9, atol=1e-12)


def test_euler_on_a_line_moves_along_the_velocity() -> None:
    """x + (t' - t) u, and x_0 = x - t u."""
    table = solver_table(schedule("flow"), "euler", 5, prediction_type="flow", clip_range=None)
    assert table.timesteps.tolist() == pytest.approx([1000, 800, 600, 400, 200])
    x, u, zero = np.random.default_rng(0).normal(size=(3, 4))
    for t, row in zip(table.timesteps / 1000, table.coefficients, strict=True):
        following, x0 = step(row, x, u, zero, zero)
        np.testing.assert_allclose(following, x - 0.2 * u, atol=1e-12)
        np.testing.assert_allclose(x0, x - t * u, atol=1e-12)


@given(shift=st.floats(0.1, 20), steps=st.integers(1, 100), spacing=st.sampled_from(SPACINGS))
def test_a_shift_above_one_goes_to_more_noise(shift: float, steps: int, spacing: Any) -> None:
    steps = min(steps, 50) if spacing == "skipping" else steps
    plain, shifted = (timesteps(FlowSchedule(1000, s), "euler", steps, spacing) for s in (1.0, shift))
    assert (np.sign(np.round(shifted - plain, 9)) * np.sign(shift - 1) >= 0).all()
    assert shifted[0] == pytest.approx(1000) or spacing == "leading"


@given(total=st.integers(2, 2000), data=st.data(), kind=st.sampled_from(KINDS), spacing=st.sampled_from(SPACINGS))
def test_timesteps_fall_within_the_schedule(total: int, data: Any, kind: str, spacing: Any) -> None:
    plan = schedule(kind, total)
    solver = data.draw(st.sampled_from(plan.solvers))
    most = total - 1 if solver == "dpmsolver++" and spacing in ("leading", "linspace") else total
    most = min(most, 50) if spacing == "skipping" else most
    steps = data.draw(st.integers(1, most))
    times = timesteps(plan, solver, steps, spacing)
    assert len(times) == steps
    assert times[0] <= total if kind == "flow" else times[0] < total
    assert times[-1] > 0 if kind == "flow" else times[-1] >= 0
    assert (np.diff(times) < 0).all()
    if kind != "flow" and spacing != "karras" and not (spacing == "linspace" and solver.startswith("euler")):
        assert not (times % 1).any()
    table = solver_table(plan, solver, steps, timestep_spacing=spacing, prediction_type=plan.prediction_types[0])
    assert np.isfinite(table.coefficients).all()


@given(total=st.integers(1, 2000), data=st.data())
def test_quadratic_time_steps_are_squares_where_there_is_room(total: int, data: Any) -> None:
    steps = data.draw(st.integers(1, max(1, int(((total - 1) / 2) ** 0.5))))
    plan = schedule("cosine", total)
    times = timesteps(plan, "dpmsolver++", steps, "quadratic")
    np.testing.assert_allclose(times, (np.arange(steps, 0, -1) / steps) ** 2 * (total - 1), atol=0.5)
    assert timesteps(plan, "ddim", total, "quadratic").tolist() == list(range(total))[::-1]


@given(steps=st.integers(1, 1000), spacing=st.sampled_from([name for name in SPACINGS if name != "skipping"]))
def test_ddim_with_eta_one_has_the_variance_of_ddpm(steps: int, spacing: Any) -> None:
    ddim = solver_table(schedule(), "ddim", steps, eta=1.0, timestep_spacing=spacing)
    ddpm = solver_table(schedule(), "ddpm", steps, timestep_spacing=spacing)
    np.testing.assert_allclose(ddim.noise_scale, ddpm.noise_scale, atol=1e-12)


@every_case
def test_a_perfect_denoiser_lands_on_its_image(kind: str, solver: Any, spacing: Any) -> None:
    plan = schedule(kind)
    table, now = table_of(plan, solver, spacing)
    random = np.random.default_rng(0)
    image, sample = random.uniform(-1, 1, (2, 1, 4, 4)), random.normal(size=(2, 1, 4, 4))
    previous = np.zeros_like(image)
    for i, row in enumerate(table.coefficients):
        eps = (sample - now.alpha[i] * image) / now.sigma[i]
        says = told(plan.prediction_types[0], image, eps, now.alpha[i], now.sigma[i])
        sample, previous = step(row, sample, says, previous, random.normal(size=image.shape))
    last = table.timesteps[-1]
    at_most = 2.0 if last < 1 else 1 / last**2  # of LCM's boundary condition, which keeps the sample at t = 0
    np.testing.assert_allclose(sample, image, atol=at_most if solver == "lcm" else 1e-9)


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++", "euler", "euler_ancestral"])
def test_an_offset_moves_leading_time_steps_alone(solver: Any) -> None:
    plain, moved = schedule(), schedule(steps_offset=1)
    for spacing in ("leading", "linspace", "trailing"):
        ours, theirs = (timesteps(plan, solver, 20, spacing) for plan in (moved, plain))
        np.testing.assert_array_equal(ours - theirs, float(spacing == "leading"))
    most = 999 - (solver == "dpmsolver++")
    assert timesteps(moved, solver, most, "leading")[0] == 999
    with pytest.raises(InputError, match=f"from 1 to {most} "):
        timesteps(moved, solver, most + 1, "leading")


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("solver", schedule().solvers)
def test_who_ends_at_the_first_time_step_of_the_training(solver: Any, spacing: Any) -> None:
    """As diffusers' own classes: DDIM by one setting, Euler's and DPM-Solver++ by another, the others never."""
    plan = schedule(set_alpha_to_one=False)
    other = schedule(final_sigmas_type="sigma_min")
    ends = [float(levels(each, solver, 10, spacing).next_sigma[-1]) for each in (plan, other)]
    sigma = float(np.sqrt(1 - plan.alphas_cumprod[0]))
    expected = {"ddim": [sigma, 0], "dpmsolver++": [0, sigma], "euler": [0, plan.ratios[0]]}
    assert ends == pytest.approx(expected.get(solver, [0, 0]))


@pytest.mark.parametrize("spacing", ["trailing", "quadratic"])
def test_dpm_solver_of_first_order_is_ddim(spacing: Any) -> None:
    """At the same time steps, going on from x_0."""
    first, ddim = (
        solver_table(schedule(), solver, 10, timestep_spacing=spacing, solver_order=1)
        for solver in ("dpmsolver++", "ddim")
    )
    np.testing.assert_allclose(first.coefficients, ddim.coefficients, atol=1e-9)
    second = solver_table(schedule(), "dpmsolver++", 10, timestep_spacing=spacing)
    assert np.abs(second.coefficients - first.coefficients).max() > 0.01


@pytest.mark.parametrize("solver", [solver for solver in schedule().solvers if solver != "ddim"])
def test_keeping_the_models_eps_is_for_ddim_alone(solver: Any) -> None:
    kept, derived = (
        solver_table(schedule(), solver, 10, use_clipped_model_output=clipped) for clipped in (False, True)
    )
    np.testing.assert_array_equal(kept.coefficients, derived.coefficients)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("linear", {"solver": "dimm"}, "did you mean 'ddim'"),
        ("linear", {"timestep_spacing": "trail"}, "did you mean 'trailing'"),
        ("linear", {"num_inference_steps": 0}, "from 1 to 1000, got 0"),
        ("linear", {"num_inference_steps": 1001}, "from 1 to 1000, got 1001"),
        (
            "linear",
            {"num_inference_steps": 51, "timestep_spacing": "skipping"},
            "from 1 to 50 with .* .skipping., got 51",
        ),
        ("linear", {"eta": 1.5}, r"eta in \[0, 1\], got 1.5"),
        ("linear", {"solver": "ddpm", "eta": 0.5}, "eta belongs to solver 'ddim'"),
        ("linear", {"prediction_type": "flow"}, "expected prediction_type epsilon or v_prediction or sample on"),
        ("flow", {"prediction_type": "flow"}, "expected solver euler or euler_ancestral or dpmsolver.. or lcm on"),
        ("flow", {"solver": "euler"}, "expected prediction_type flow or sample on this schedule, got 'epsilon'"),
    ],
)
def test_refusals_name_the_remedy(kind: str, arguments: dict[str, Any], message: str) -> None:
    known: dict[str, Any] = {"solver": "ddim", "num_inference_steps": 10, **arguments}
    with pytest.raises(InputError, match=message):
        solver_table(schedule(kind), **known)
