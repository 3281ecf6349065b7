"""One executor for all that runs graphs in batches: halves where memory is short, and what a model can do."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import GensdkWarning, InputError, OutOfMemoryError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs import ABILITIES
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.spec.model import ModelSpec
from support.abilities import arguments
from support.models import MODELS, generator

FITS = 4
"""Samples that fit into the memory of the backend below."""


class SmallSession(FakeSession):
    """Refuses larger batches than :data:`FITS`, as a device does."""

    failure: type[Exception] = OutOfMemoryError

    def _run(self, feeds: Any) -> Any:
        batch = self.graph.inputs[0].shape.index("batch") if "batch" in self.graph.inputs[0].shape else None
        if batch is not None and feeds[self.graph.inputs[0].name].shape[batch] > FITS:
            raise self.failure("no room")
        return super()._run(feeds)


class BareSession(SmallSession):
    """The same as NumPy says it."""

    failure = MemoryError


def small(model: ModelSpec, kind: type[SmallSession] = SmallSession) -> Generator:
    sessions = {graph.name: kind(graph, backend="fake", precision="fp32") for graph in model.graphs}
    return Generator.from_sessions(model, sessions)


@pytest.mark.parametrize("kind", [SmallSession, BareSession])
@pytest.mark.parametrize("program", MODELS)
def test_what_does_not_fit_is_run_in_halves_and_gives_the_same(program: str, kind: type[SmallSession]) -> None:
    model = MODELS[program](3)
    with generator(model) as whole, small(model, kind) as halved:
        expected = whole.sample(11, seed=4)
        with pytest.warns(GensdkWarning, match=r"a batch of 8 .* run in halves.*at most 4"):
            found = halved.sample(11, seed=4)
        np.testing.assert_array_equal(found.array, expected.array)
        assert found.seeds == expected.seeds
        assert len(found.timings.batches) == 3
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once; the smaller size is kept
            again = halved.sample(11, seed=4)
        np.testing.assert_array_equal(again.array, expected.array)
        assert len(again.timings.batches) == 3


@pytest.mark.parametrize("program", MODELS)
def test_a_batch_size_of_the_callers_own_is_kept(program: str) -> None:
    with small(MODELS[program]()) as model:
        assert len(model.sample(5, seed=0, batch_size=FITS).timings.batches) == 2
        with pytest.raises(OutOfMemoryError):
            model.sample(5, seed=0, batch_size=FITS + 1)


@pytest.mark.parametrize("program", MODELS)
def test_a_single_sample_that_does_not_fit_is_an_error(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.FITS", 0)
    with small(MODELS[program]()) as model, pytest.raises(OutOfMemoryError, match="no room"):
        model.sample(1, seed=0)


@pytest.mark.parametrize("program", MODELS)
def test_a_listening_caller_hears_of_whole_batches(program: str) -> None:
    with small(MODELS[program]()) as model, pytest.raises(OutOfMemoryError):
        model.sample(5, seed=0, callback_on_step_end=lambda step: None)


@pytest.mark.parametrize("ability", ABILITIES)
@pytest.mark.parametrize("bundle", embedded_names())
def test_what_a_model_can_do_is_what_it_does(bundle: str, ability: str) -> None:
    with Generator.load(bundle, backend="onnxruntime") as model:
        try:
            given, named = arguments(model.model, ability)
            getattr(model, ability)(*given, **named)
        except InputError:
            assert not model.can(ability)
        else:
            assert model.can(ability)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ZeroDivisionError, StopIteration])
@pytest.mark.parametrize("program", MODELS)
def test_a_callback_that_fails_leaves_the_generator_as_it_was(program: str, failure: type[BaseException]) -> None:
    def fail(end: StepEnd) -> None:
        raise failure

    with generator(MODELS[program](3)) as model:
        expected = model.sample(5, seed=2).array
        with pytest.raises(failure):
            model.sample(5, seed=2, callback_on_step_end=fail)
        np.testing.assert_array_equal(model.sample(5, seed=2).array, expected)


@pytest.mark.parametrize("program", MODELS)
def test_a_callback_may_sample_with_the_same_generator(program: str) -> None:
    heard: list[Any] = []

    def nested(end: StepEnd) -> None:
        end.x0[...] = np.nan  # which is the callback's own
        heard.append(model.sample(5, seed=2).array)

    with generator(MODELS[program](3)) as model:
        expected = model.sample(5, seed=2).array
        np.testing.assert_array_equal(model.sample(5, seed=2, callback_on_step_end=nested).array, expected)
    assert heard
    for each in heard:
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize("progress", ["no", 1, np.ones(2), float("nan")])
def test_a_progress_bar_is_there_or_not(progress: Any) -> None:
    with generator(MODELS["feedforward"]()) as model, pytest.raises(InputError, match="progress as True or False"):
        model.sample(1, progress=progress)


def test_an_unknown_ability_is_answered_with_the_nearest() -> None:
    with generator(MODELS["feedforward"]()) as model, pytest.raises(InputError, match="interpolate"):
        model.can("interpolat")


def test_every_model_can_sample() -> None:
    with generator(MODELS["feedforward"]()) as model:
        assert model.can("sample")
