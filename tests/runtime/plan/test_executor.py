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
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.spec.model import ModelSpec
from support.abilities import arguments
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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": 3}, "seed is given to draw"),
        ({"latents": np.zeros((1, 32))}, "latents is given to draw"),
        ({"image": np.zeros((1, 8, 8, 1), np.uint8)}, "image is no option"),
        ({"size": (8, 8)}, "of one size; leave size out"),
        ({"output_type": "int8"}, "did you mean 'uint8'"),
        ({"warm": "no"}, "expected warm as True or False"),
        ({"progress": True}, "progress is no option, but an argument of sample"),
    ],
)
@pytest.mark.parametrize("warm", [True, False])
def test_prepare_takes_what_it_can_keep(wrong: dict[str, Any], said: str, warm: bool) -> None:
    with (
        Generator.load("digits-dcgan", backend="onnxruntime") as model,
        pytest.raises(InputError, match=said),
    ):
        model.prepare(**{"warm": warm, **wrong})


@pytest.mark.parametrize("label", [[1, 2], np.array([1, 2])])
def test_what_was_prepared_stays_as_it_was(label: Any) -> None:
    """Also where it is planned anew after the caller changed what was passed."""
    options = {"num_inference_steps": 2}
    with Generator.load("digits-ddpm", backend="onnxruntime") as model:
        prepared = model.prepare(2, label=label, settings=options)
        before = prepared.draw(0)
        label[:] = [0, 0]
        options["num_inference_steps"] = 1
        model._executor.runners.generation += 1
        after = prepared.draw(0)
    np.testing.assert_array_equal(after.array, before.array)
    assert after.settings == before.settings


def test_what_is_prepared_is_checked_at_once() -> None:
    with generator(MODELS["diffusion"](3)) as model:
        with pytest.raises(InputError, match="num_inference_steps"):
            model.prepare(num_inference_steps=0)
        with pytest.raises(InputError, match="was not prepared to translate"):
            model.prepare(num_inference_steps=2).translate(np.zeros((4, 6, 1), np.uint8))
        prepared = model.prepare(num_inference_steps=2)
    with pytest.raises(BackendError, match="closed"):
        prepared.draw(0)


@pytest.mark.parametrize("size", [(16, 24), (33, 17)])
def test_a_prepared_translation_is_translate(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with slow_generator(lambda first: None) as model:
        with pytest.raises(InputError, match="image is given to draw"):
            model.prepare(size=size, image=image[None])  # type: ignore[call-arg]
        prepared = model.prepare(size=size)
        np.testing.assert_array_equal(prepared.translate(image), model.translate(image))
        with pytest.raises(
            InputError, match=rf"expected an image uint8 \[{size[0]}, {size[1]}, 3\], as was prepared"
        ):
            prepared.translate(image[1:])
        with pytest.raises(InputError, match="as was prepared"):
            prepared.translate(image.astype(np.float32))
