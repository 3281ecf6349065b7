"""Batches of a diffusion program whose members differ: what they may be set to, and what each is alone."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.programs.run import Run
from gensdk_runtime.spec.settings import DiffusionSettings, SolverName, TimestepSpacing


def member_options(program: DiffusionProgram) -> st.SearchStrategy[dict[str, Any]]:
    """What the settings of one may be: whatever solver, steps and spacing go together."""
    choices: dict[str, Any] = {
        "solver": st.sampled_from(get_args(SolverName)),
        "num_inference_steps": st.integers(1, 7),
        "timestep_spacing": st.sampled_from(get_args(TimestepSpacing)),
        "clip_sample": st.booleans(),
    }
    if program.model.num_classes or program.spec.context_graph is not None:
        choices["guidance_scale"] = st.sampled_from([1.0, 1.5, 4.0])
    if program.spec.shallow_graph is not None:
        choices["cache_interval"] = st.integers(1, 3)
    noisy = st.fixed_dictionaries({**choices, "solver": st.just("ddim"), "eta": st.sampled_from([0.3, 1.0])})

    def goes_together(options: dict[str, Any]) -> bool:
        try:
            program.resolve(options)
        except InputError:
            return False
        return True

    return (st.fixed_dictionaries(choices) | noisy).filter(goes_together)


def a_run(program: DiffusionProgram, seed: int, n: int, padded: int = 0) -> Run:
    """`n` samples, of which some have no label where the model has classes; `padded` with the last one."""
    classes = program.model.num_classes
    places = np.minimum(np.arange(n + padded), n - 1)
    keys = tuple(SampleKey(seed, int(place)) for place in places)
    conditions = {kind: values[places] for kind, values in examples_of(program.model, n, first=seed).items()}
    if classes:
        conditions["label"] = (places + seed) % (classes + 1)
    return Run(keys, np.full((n, *program.model.output.shape), np.nan, np.float32), conditions)


def alone(program: DiffusionProgram, run: Run, place: int, settings: DiffusionSettings) -> NDArray[np.float32]:
    """One member of a run as a batch of its own."""
    conditions = {kind: values[place : place + 1] for kind, values in run.conditions.items()}
    single = Run(run.keys[place : place + 1], np.empty((1, *program.model.output.shape), np.float32), conditions)
    program.run(single, settings)
    return single.data[0]


def assert_each_is_alone(program: DiffusionProgram, run: Run, each: list[DiffusionSettings]) -> None:
    """Every sample of the run, to the bit."""
    for place, image in enumerate(run.data):
        np.testing.assert_array_equal(image, alone(program, run, place, each[place]))


def assert_halves_are_each_as_alone(program: DiffusionProgram, data: st.DataObject) -> None:
    """Runs that differ in solver, steps, guidance, features and step index go on as one batch."""
    halves, states = [], []
    for seed in range(data.draw(st.integers(2, 3))):
        run = a_run(program, seed, data.draw(st.integers(1, 3)))
        settings = program.resolve(data.draw(member_options(program)))
        states.append(program.begin(run, settings))
        for _ in range(data.draw(st.integers(0, settings.num_inference_steps))):
            states[-1].step()
        halves.append((run, settings))
    first, *others = states
    with first:
        for other in others:
            first.join(other)
            for _ in range(data.draw(st.integers(0, 2))):
                first.step()
        while first.step():
            pass
    for run, settings in halves:
        assert_each_is_alone(program, run, [settings] * len(run))
