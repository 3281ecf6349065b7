"""A prepared call gives what the same call of ``sample`` or ``translate`` gives, whatever ran before it."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.methods.prepared import Prepared
from gensdk_runtime.plan.executor import Executor
from gensdk_runtime.programs.diffusion_state import Cohort
from support.another_os import WINDOWS
from support.embedded import IMAGES
from support.engines_here import engines_here
from support.models import MODELS, generator
from support.streams import slow_generator

DIFFUSION = [
    {"num_inference_steps": 4},
    {"num_inference_steps": 5, "guidance_scale": 3.0, "label": 1},
    {"num_inference_steps": 5, "cache_interval": 2, "guidance_scale": 2.0, "label": 1},
    {"num_inference_steps": 7, "cache_interval": 3, "eta": 1.0},
    {"num_inference_steps": 3, "solver": "dpmsolver++"},
    {"num_inference_steps": 3, "solver": "euler_ancestral", "label": 2},
    {"num_inference_steps": 1},
]


@pytest.mark.parametrize("bundle", IMAGES)
def test_what_was_prepared_gives_what_sample_gives(bundle: str) -> None:
    with Generator.load(bundle, backend="onnxruntime") as model:
        asked: dict[str, Any] = {} if model.model.num_classes is None else {"label": 2}
        told: dict[str, Any] = {} if model.model.condition("prompt") is None else {"prompt": "green dragon"}
        for n in (1, 3):
            prepared = model.prepare(n, **asked)
            for seed in (0, 7):
                found, expected = prepared.draw(seed, **told), model.sample(n, seed=seed, **asked, **told)
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
        with pytest.raises(InputError, match="does not translate images"):
            model.prepare(num_inference_steps=2).translate(np.zeros((4, 6, 1), np.uint8))
        with pytest.raises(InputError, match="have one size; leave size out"):
            model.prepare(size=(8, 8))
        with pytest.raises(InputError, match=r"expected size as \(height, width\), got 8"):
            model.prepare(size=8)  # type: ignore[arg-type]
        for warm in (True, False):
            with pytest.raises(InputError, match="did you mean 'uint8'"):
                model.prepare(output_type="uint9", warm=warm)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="expected warm as True or False"):
            model.prepare(warm="no")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="seed is not an option of the program; pass it as an argument"):
            model.prepare(settings={"seed": 3})
        for name in ("seed", "image", "progress"):
            with pytest.raises(InputError, match=rf"prepare\(\) takes no {name}"):
                model.prepare(**{name: 3})
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
        with pytest.raises(InputError, match=r"expected prepare\(1\)"):
            model.prepare(2, size=size).translate(image)


@pytest.mark.parametrize("settings", DIFFUSION, ids=str)
def test_no_draw_depends_on_the_draws_before(settings: dict[str, Any]) -> None:
    with Generator.load("digits-ddpm", backend="onnxruntime") as model:
        prepared = model.prepare(2, **settings)
        given = np.random.default_rng(1).standard_normal((2, *(model.latent_shape or ()))).astype(np.float32)
        for seed, latents in ((3, None), (4, given), (3, None), ([(5, 1), 6], None), (3, given)):
            expected = model.sample(2, seed=seed, latents=latents, **settings)
            found = prepared.draw(seed, latents=latents)
            np.testing.assert_array_equal(found.array, expected.array)
            assert found.settings == expected.settings


def test_what_was_drawn_is_the_callers_own() -> None:
    with Generator.load("digits-ddpm", backend="onnxruntime") as model:
        prepared = model.prepare(num_inference_steps=2)
        first = prepared.draw(0)
        kept = first.array.copy()
        prepared.draw(1)
        np.testing.assert_array_equal(first.array, kept)


@pytest.mark.parametrize("program", MODELS)
def test_buffers_stay_with_what_was_prepared_and_go_back_with_it(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent: set[int] = set()
    lend, give_back = Session.lend, Session.give_back

    def lending(self: Session, *args: Any) -> Any:
        bound = lend(self, *args)
        lent.add(id(bound))
        return bound

    def giving_back(self: Session, bound: Any, **how: Any) -> None:
        lent.remove(id(bound))
        give_back(self, bound, **how)

    monkeypatch.setattr(Session, "lend", lending)
    monkeypatch.setattr(Session, "give_back", giving_back)
    with generator(MODELS[program](3)) as model:
        prepared = model.prepare(2)
        held = set(lent)
        assert bool(held) == (model.model.program.kind == "diffusion"), "whose states begin again"
        expected = prepared.draw(0)
        assert lent == held
        np.testing.assert_array_equal(model.sample(2, seed=0).array, expected.array)
        assert lent == held
        del prepared
        gc.collect()
        assert not lent


def test_a_run_that_fails_leaves_what_was_prepared_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    with Generator.load("digits-ddpm", backend="onnxruntime") as model:
        prepared = model.prepare(2, num_inference_steps=3)
        expected = prepared.draw(0).array
        with monkeypatch.context() as patch:

            def fails(self: Executor, *_: Any) -> None:
                raise BackendError("lost")

            patch.setattr("gensdk_runtime.programs.diffusion_state.Cohort.end_step", fails)
            with pytest.raises(BackendError, match="lost"):
                prepared.draw(1)
        np.testing.assert_array_equal(prepared.draw(0).array, expected)


def test_a_batch_that_does_not_fit_goes_on_in_halves() -> None:
    with Generator.load("digits-ddpm", backend="onnxruntime") as model:
        prepared = model.prepare(6, num_inference_steps=2)
        expected = prepared.draw(0).array
        model._executor.most = 3
        found = prepared.draw(0)
        assert len(found.timings.batches) == 2
        np.testing.assert_array_equal(found.array, expected)


@pytest.mark.skipif(WINDOWS, reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_draws_the_same() -> None:
    with Generator.load("digits-ddpm", backend="onnxruntime", threads=1) as model:
        prepared = model.prepare(2, num_inference_steps=3)
        expected = prepared.draw(0).array
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(prepared.draw(0).array, expected) else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(prepared.draw(0).array, expected)


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


@pytest.mark.parametrize("kind", ["rtx", "classic"])
def test_what_was_prepared_ends_with_its_generator(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever still holds it: memory of a GPU is not left to the garbage collector."""
    host = engines_here(kind, monkeypatch, tmp_path)
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(2, num_inference_steps=4, cache_interval=2)
        prepared.draw(1)
        assert host.cuda.taken
    del model
    gc.collect()
    assert host.cuda.taken == 0
    assert not host.cuda.objects
    with pytest.raises(BackendError, match="closed"):
        prepared.draw(2)
    assert host.cuda.taken == 0


def test_a_run_that_ends_after_its_lease_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Generator.load("digits-ddpm", backend="onnxruntime", threads=1) as model:
        prepared = model.prepare(2, num_inference_steps=2)
        _, lease = prepared._request()
        expected = prepared.draw(0).array
        with monkeypatch.context() as patch:
            end_step = Cohort.end_step

            def closes(self: Cohort, *given: Any) -> Any:
                lease.close()
                return end_step(self, *given)

            patch.setattr(Cohort, "end_step", closes)
            np.testing.assert_array_equal(prepared.draw(0).array, expected)
        assert not lease._kept
        model.close()
        assert model._executor.lease()._closed, "as one that begins when all is over"


def test_threads_that_draw_while_it_closes_end() -> None:
    for _ in range(4):
        model = Generator.load("digits-ddpm", backend="onnxruntime", threads=1)
        prepared = model.prepare(1, num_inference_steps=2)
        _, lease = prepared._request()

        def draw(prepared: Prepared = prepared) -> str:
            try:
                while True:
                    prepared.draw(0)
            except BackendError as failure:
                return str(failure)

        with ThreadPoolExecutor(3) as pool:
            drawing = [pool.submit(draw) for _ in range(3)]
            model.close()
            assert all("closed" in each.result(60) for each in drawing)
        assert not lease._kept
