"""The runs that prove a diffusion model: within what its schedule holds, however short that is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.proving import proving_options
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.solvers import SOLVERS, solver_table
from gensdk_runtime.programs.spacings import SPACINGS, most_steps
from gensdk_runtime.spec.model import DiffusionSpec, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from support.models import diffusion_model

PREDICTIONS: dict[str, Any] = {"linear": "epsilon", "flow": "flow"}


def spec_of(kind: Any, total: int, original: int) -> ScheduleSpec:
    return ScheduleSpec(
        kind=kind, num_train_timesteps=total, original_inference_steps=original, beta_start=0.1, beta_end=0.2
    )


@given(
    kind=st.sampled_from(["linear", "flow"]),
    total=st.integers(1, 12),
    original=st.integers(1, 12),
    solver=st.sampled_from(SOLVERS),
    spacing=st.sampled_from(SPACINGS),
    steps=st.none() | st.integers(1, 30),
)
def test_every_run_can_be_made(
    kind: str, total: int, original: int, solver: Any, spacing: Any, steps: int | None
) -> None:
    spec = spec_of(kind, total, original)
    schedule = make_schedule(spec)
    solver = solver if solver in schedule.solvers else "euler"
    if not most_steps(schedule, solver, spacing):
        solver = "euler"  # such defaults can't be
    defaults = DiffusionSettings(solver=solver, timestep_spacing=spacing)
    program = DiffusionSpec(graph="step", schedule=spec, prediction_type=PREDICTIONS[kind], defaults=defaults)
    model = diffusion_model().model_copy(update={"program": program})
    runs = proving_options(model, steps)
    assert runs[0]["solver"] == solver
    for options in runs:
        table = solver_table(
            schedule,
            options["solver"],
            options["num_inference_steps"],
            timestep_spacing=spacing,
            prediction_type=PREDICTIONS[kind],
        )
        assert len(table) == options["num_inference_steps"]


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("total", [1, 2, 7, 60])
def test_the_most_steps_are_taken_and_one_more_is_refused(kind: str, spacing: Any, total: int) -> None:
    schedule = make_schedule(spec_of(kind, total, 3))
    assert schedule.solvers
    for solver in schedule.solvers:
        most = most_steps(schedule, solver, spacing)
        taken: dict[str, Any] = {"timestep_spacing": spacing, "prediction_type": PREDICTIONS[kind]}
        if most:
            assert len(solver_table(schedule, solver, most, **taken)) == most
        with pytest.raises(InputError, match=f"num_inference_steps from 1 to {most}"):
            solver_table(schedule, solver, most + 1, **taken)
