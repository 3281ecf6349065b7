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
from gensdk_runtime.spec.model import ModelSpec
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


def arguments(model: ModelSpec, ability: str) -> tuple[Any, ...]:
    image = np.zeros((2, *model.output.shape), np.float32)
    given: dict[str, tuple[Any, ...]] = {
        "latents": (2, 0),
        "interpolate": (0, 1, 3),
        "walk": ((0, 1), 3),
        "traverse": (0, 0, 3),
        "arithmetic": ([[0, 1]], [[2]]),
        "log_likelihood": (image, 1),
        "reconstruct": (image, 1),
        "translate": (np.zeros((4, 4, 3), np.uint8),),
        "dream": (np.zeros((4, 4, 3), np.uint8),),
    }
    return given.get(ability, (image,))


@pytest.mark.parametrize("ability", ABILITIES)
@pytest.mark.parametrize("bundle", embedded_names())
def test_what_a_model_can_do_is_what_it_does(bundle: str, ability: str) -> None:
    with Generator.load(bundle, backend="onnxruntime") as model:
        try:
            getattr(model, ability)(*arguments(model.model, ability))
        except InputError:
            assert not model.can(ability)
        else:
            assert model.can(ability)


def test_an_unknown_ability_is_answered_with_the_nearest() -> None:
    with generator(MODELS["feedforward"]()) as model, pytest.raises(InputError, match="interpolate"):
        model.can("interpolat")
