"""Solvers as applications meet them: the embedded digits-ddpm, and an old one that takes whole time steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.schedules import NoiseSchedule
from gensdk_runtime.spec.model import DiffusionSpec, ScheduleSpec
from support.old_bundles import bundle as old_bundle


@pytest.fixture(scope="module")
def digits() -> Iterator[Generator]:
    with Generator.load("digits-ddpm", backend="onnxruntime", threads=1) as generator:
        yield generator


@pytest.mark.parametrize("solver", NoiseSchedule.solvers)
def test_every_solver_draws_digits(digits: Generator, solver: Any) -> None:
    samples = digits.sample(4, seed=0, label=[3, 3, 8, 8], solver=solver, num_inference_steps=20)
    spacing = "skipping" if solver == "lcm" else "trailing"
    assert (samples.settings["solver"], samples.settings["timestep_spacing"]) == (solver, spacing)
    assert np.isfinite(samples.array).all()
    assert 0.3 < samples.array.std() < 0.9, "dark strokes on a bright ground, or the other way round"


@pytest.mark.parametrize(("euler", "same"), [("euler", "ddim"), ("euler_ancestral", "ddpm")])
def test_eulers_methods_draw_what_ddim_and_ddpm_draw(digits: Generator, euler: Any, same: Any) -> None:
    ours, theirs = (digits.sample(2, seed=0, solver=name, num_inference_steps=10) for name in (euler, same))
    np.testing.assert_allclose(ours.array, theirs.array, atol=1e-4)


FRACTIONS = [
    {"solver": "euler", "timestep_spacing": "karras"},
    {"solver": "euler", "timestep_spacing": "linspace", "num_inference_steps": 7},
]


@pytest.mark.parametrize("settings", FRACTIONS)
def test_fractions_of_time_steps_are_drawn_where_the_graphs_take_them(
    digits: Generator, settings: dict[str, Any]
) -> None:
    samples = digits.sample(4, seed=0, label=[3, 3, 8, 8], **settings)
    assert 0.3 < samples.array.std() < 0.9
    with (
        Generator.load(old_bundle("digits-ddpm"), backend="onnxruntime", threads=1) as old,
        pytest.raises(InputError, match="needs fractions of time steps, which this bundle's"),
    ):
        old.sample(1, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"solver": "lcm", "num_inference_steps": 51},
            "1 to 50 with solver 'lcm' and timestep_spacing 'skipping', got 51",
        ),
        ({"solver": "eulre"}, "euler"),
    ],
)
def test_what_the_schedule_does_not_take_is_refused(
    digits: Generator, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        digits.sample(1, **settings)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("schedule", "prediction", "message"),
    [
        ("flow", "epsilon", "no prediction_type 'epsilon' on a schedule 'flow'"),
        ("flow", "v_prediction", "no prediction_type 'v_prediction' on a schedule 'flow'"),
        ("linear", "flow", "no prediction_type 'flow' on a schedule 'linear'"),
    ],
)
def test_a_manifest_says_what_a_schedule_can_take(schedule: Any, prediction: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionSpec(graph="step", schedule=ScheduleSpec(kind=schedule), prediction_type=prediction)


@pytest.mark.parametrize("kind", ["flow", "linear"])
def test_a_schedule_says_nothing_that_older_versions_do_not_know_without_need(kind: Any) -> None:
    assert {"betas", "shift", "original_inference_steps"}.isdisjoint(ScheduleSpec(kind=kind).model_dump())
    spec = ScheduleSpec(kind="flow", shift=3.0, original_inference_steps=20)
    assert ScheduleSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValueError, match="shift where its kind is 'flow'"):
        ScheduleSpec(shift=3.0)
