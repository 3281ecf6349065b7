"""One executor for all that runs graphs in batches: halves where memory is short, and what a model can do."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import BackendError, GensdkWarning, InputError, OutOfMemoryError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs import ABILITIES
from gensdk_runtime.spec.model import ModelSpec
from support.models import MODELS, generator
from support.streams import slow_generator

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


@pytest.mark.parametrize("bundle", embedded_names())
def test_what_was_prepared_gives_what_sample_gives(bundle: str) -> None:
    with Generator.load(bundle, backend="onnxruntime") as model:
        for n in (1, 3):
            prepared = model.prepare(n, label=2)
            for seed in (0, 7):
                found, expected = prepared.draw(seed), model.sample(n, seed=seed, label=2)
                np.testing.assert_array_equal(found.array, expected.array)
                assert found.seeds == expected.seeds
                assert found.settings == expected.settings
        assert prepared.draw().seeds != prepared.draw().seeds


def test_threads_share_what_was_prepared() -> None:
    with Generator.load("digits-dcgan", backend="onnxruntime") as model, ThreadPoolExecutor(8) as pool:
        prepared = model.prepare(2, label=1)
        alone = [prepared.draw(seed).array for seed in range(32)]
        together = list(pool.map(lambda seed: prepared.draw(seed).array, range(32)))
    np.testing.assert_array_equal(alone, together)


def test_what_is_prepared_is_checked_at_once() -> None:
    with generator(MODELS["diffusion"](3)) as model:
        with pytest.raises(InputError, match="num_inference_steps"):
            model.prepare(num_inference_steps=0)
        with pytest.raises(InputError, match="was not prepared to translate"):
            model.prepare(num_inference_steps=2).translate(np.zeros((4, 6, 1), np.uint8))
        with pytest.raises(InputError, match="have one size; leave size out"):
            model.prepare(size=(4, 6))
        with pytest.raises(InputError, match="seed is an argument of other calls"):
            model.prepare(seed=3)  # type: ignore[call-arg]
        prepared = model.prepare(num_inference_steps=2)
    with pytest.raises(BackendError, match="closed"):
        prepared.draw(0)


@pytest.mark.parametrize("size", [(16, 24), (33, 17)])
def test_a_prepared_translation_is_translate(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with slow_generator(lambda first: None) as model:
        prepared = model.prepare(size=size)
        np.testing.assert_array_equal(prepared.translate(image), model.translate(image))
        with pytest.raises(
            InputError, match=rf"expected an image uint8 \[{size[0]}, {size[1]}, 3\], as was prepared"
        ):
            prepared.translate(image[1:])
        with pytest.raises(InputError, match="as was prepared"):
            prepared.translate(image.astype(np.float32))
