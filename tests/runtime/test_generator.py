"""Laws of Generator.sample() for every program: over fakes here, over real graphs in test_embedded.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.backends import backend_names, create_backend
from gensdk_runtime.errors import BackendError, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.images import GRID_GAP
from gensdk_runtime.spec.conditions import LabelSpec
from support.image_bytes import settings_in
from support.models import IMAGE, LATENT, MODELS, diffusion_model, feedforward_model, generator, nan_images

programs = pytest.mark.parametrize("program", MODELS)
classes = pytest.mark.parametrize("num_classes", [None, 3])


@programs
@classes
@given(n=st.integers(1, 9), extra=st.integers(0, 12), seed=st.integers(0, 2**64 - 1), batch=st.integers(1, 8))
@settings(max_examples=15, deadline=None)
def test_head_of_a_larger_call(program, num_classes, n, extra, seed, batch) -> None:
    with generator(MODELS[program](num_classes)) as model:
        few = model.sample(n, seed=seed, batch_size=batch)
        many = model.sample(n + extra, seed=seed)
    np.testing.assert_array_equal(few.array, many.array[:n])
    assert few.seeds == many.seeds[:n]
    assert few.array.shape == (n, *IMAGE.shape)
    if num_classes:
        np.testing.assert_array_equal(few.labels, many.labels[:n])


@programs
@classes
def test_reported_seeds_give_the_same_samples_in_any_order(program, num_classes) -> None:
    with generator(MODELS[program](num_classes)) as model:
        samples = model.sample(6)
        order = [4, 0, 5]
        again = model.sample(3, seed=[samples.seeds[i] for i in order])
        ints = model.sample(2, seed=[11, 12])
        np.testing.assert_array_equal(again.array, samples.array[order])
        np.testing.assert_array_equal(ints.array[1:], model.sample(1, seed=12).array)


@programs
def test_eight_threads_give_what_one_gives(program) -> None:
    with generator(MODELS[program](3)) as model, ThreadPoolExecutor(8) as pool:
        alone = [model.sample(3, seed=seed).array for seed in range(16)]
        together = list(pool.map(lambda seed: model.sample(3, seed=seed).array, range(16)))
    np.testing.assert_array_equal(alone, together)


@programs
def test_callback_sees_every_step_and_can_stop(program) -> None:
    seen: list[Any] = []
    with generator(MODELS[program]()) as model:
        full = model.sample(10, seed=0, callback_on_step_end=lambda step: bool(seen.append(step)))
        steps = [step for step in seen if step.first == 0]
        assert [step.step for step in steps] == list(range(steps[0].num_steps))
        assert {step.first for step in seen} == {0, 8}
        shape = LATENT if program == "latent" else IMAGE.shape
        assert all(step.x0.shape == (step.count, *shape) for step in seen)
        assert not full.stopped
        stopped = model.sample(10, seed=0, callback_on_step_end=lambda step: True)
    assert stopped.stopped
    assert len(stopped) == len(stopped.seeds) == 8  # the second batch never began


@programs
def test_preview_is_a_copy(program) -> None:
    def spoil(step: Any) -> bool:
        step.x0[:] = 7.0
        return False

    with generator(MODELS[program]()) as model:
        expected = model.sample(2, seed=0).array
        np.testing.assert_array_equal(model.sample(2, seed=0, callback_on_step_end=spoil).array, expected)


def test_latents_replace_the_first_noise() -> None:
    with generator(diffusion_model()) as model:
        latents = np.random.default_rng(0).normal(size=(3, *IMAGE.shape)).astype(np.float32)
        first = model.sample(3, latents=latents, seed=0)
        np.testing.assert_array_equal(first.array, model.sample(3, latents=latents, seed=1).array)
        assert not np.array_equal(first.array, model.sample(3, seed=0).array)


@pytest.mark.parametrize("lockstep", [False, True])
def test_guidance_runs_two_passes_only_where_both_count(lockstep: bool) -> None:
    calls: list[tuple[float, ...]] = []

    def step(feeds: Any) -> Any:
        weights = feeds["guidance_weights"].reshape(len(feeds["label"]), -1)
        assert weights.shape[1] == (1 if lockstep else 2)
        assert (weights == weights[:, :1]).all()
        calls.append((len(weights), *weights[:, 0]))
        return {"next_sample": feeds["sample"], "next_previous_x0": feeds["previous_x0"]}

    with generator(diffusion_model(3, lockstep=lockstep), {"step": step}) as model:
        for arguments in ({"label": 1}, {"label": 1, "guidance_scale": 4.0}, {"guidance_scale": 4.0}):
            model.sample(2, seed=0, num_inference_steps=1, **arguments)
    assert calls == [(1, 1.0), (2, 4.0, -3.0), (1, 1.0)]


def test_class_names_and_drawn_labels() -> None:
    model = feedforward_model(3).with_condition(LabelSpec(num_classes=3, class_names=("cat", "dog", "owl")))
    with generator(model) as named:
        assert named.sample(2, label="dog").labels.tolist() == [1, 1]
        assert named.sample(3, label=["owl", 0, "1"]).labels.tolist() == [2, 0, 1]
        drawn = named.sample(300, seed=0).labels
        assert set(drawn.tolist()) == {0, 1, 2}
        with pytest.raises(InputError, match="did you mean 'dog'"):
            named.sample(1, label="dgo")


def test_a_name_of_two_classes_stands_for_neither() -> None:
    """ImageNet has two cranes; which one is meant, a name does not say."""
    spec = LabelSpec(num_classes=4, class_names=("crane", "owl", "kite, red", "crane"))
    with generator(feedforward_model(4).with_condition(spec)) as named:
        assert named.sample(3, label=["owl", "0", 3]).labels.tolist() == [1, 0, 3]
        with pytest.raises(InputError, match="2 classes are called 'crane'; pass the number of one, such as 0"):
            named.sample(1, label="crane")
        (condition,) = named._sampling.program.conditions
        assert condition.parsed("kite, red") == "kite, red"
        assert condition.parsed("owl, 3") == ["owl", "3"]


def test_nan_is_an_error_not_a_black_image() -> None:
    with (
        generator(feedforward_model(), {"generator": nan_images}) as model,
        pytest.raises(BackendError, match=r"3 of 3 samples came out NaN or infinite \(fake, fp32\)") as caught,
    ):
        model.sample(3)
    assert "use precision" not in str(caught.value), "it is fp32 already"


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (feedforward_model, {"n": 0}, "n from 1 to"),
        (feedforward_model, {"n": -4}, "n from 1 to"),
        (feedforward_model, {"n": 2.0}, "n as an int, got float"),
        (feedforward_model, {"n": 10**9}, "n from 1 to"),
        (feedforward_model, {"eta": 0.5}, "eta means nothing to a feedforward model"),
        (feedforward_model, {"label": 1}, "has no classes"),
        (feedforward_model, {"batch_size": 9}, "batch_size from 1 to 8"),
        (feedforward_model, {"latents": np.zeros((2, 5))}, r"shape \[1, 5\], got \[2, 5\]"),
        (feedforward_model, {"latents": np.full((1, 5), np.nan)}, "NaN or infinity"),
        (feedforward_model, {"latents": "noise"}, "as an array of numbers, got str"),
        (diffusion_model, {"num_inference_steps": 0}, "num_inference_steps"),
        (diffusion_model, {"num_inference_steps": 101}, "from 1 to 100, got 101"),
        (diffusion_model, {"solver": "eulr"}, "solver"),
        (diffusion_model, {"guidance_scale": 3.0}, "guidance_scale needs a model with classes"),
        (diffusion_model, {"eta": float("nan")}, "eta"),
        (lambda: diffusion_model(3), {"label": 3}, "label from 0 to 2, got 3"),
        (lambda: diffusion_model(3), {"label": True}, "label from 0 to 2"),
        (lambda: diffusion_model(3), {"label": [0, 1]}, "one label for each of the 1 samples, got 2"),
    ],
)
def test_refusals(make, arguments, message) -> None:
    with generator(make()) as model, pytest.raises(InputError, match=message):
        model.sample(**{"n": 1, "seed": 0, **arguments})


@programs
def test_a_graph_without_the_tensors_of_its_program_is_refused(program) -> None:
    model = MODELS[program]()
    graphs = tuple(
        graph.model_copy(update={"outputs": (graph.outputs[0].model_copy(update={"name": "other"}),)})
        for graph in model.graphs
    )
    with pytest.raises(ManifestError, match="which its program needs"):
        generator(model.model_copy(update={"graphs": graphs}))


def test_closed_is_closed() -> None:
    model = generator(feedforward_model())
    model.close()
    model.close()
    with pytest.raises(BackendError, match="closed"):
        model.sample(1)


@programs
def test_saved_forms_hold_images_and_settings(program, tmp_path) -> None:
    with generator(MODELS[program](3)) as model:
        samples = model.sample(5, seed=3)
    one = decode((samples.save(tmp_path / "folder") / "00002.png").read_bytes(), 1)[..., 0]
    np.testing.assert_array_equal(one, samples.images[2, :, :, 0])
    settings_of_one = settings_in(tmp_path / "folder" / "00002.png")
    assert settings_of_one["seeds"] == [list(samples.seeds[2])]
    grid = decode(samples.save(tmp_path / "grid.png", scale=1, columns=3).read_bytes(), 1)[..., 0]
    assert grid.shape == (2 * IMAGE.height + GRID_GAP, 3 * IMAGE.width + 2 * GRID_GAP)
    np.testing.assert_array_equal(grid[IMAGE.height + GRID_GAP :, : IMAGE.width], samples.images[3, :, :, 0])
    assert settings_in(tmp_path / "grid.png") == dict(samples.settings)
    with np.load(samples.save(tmp_path / "all.npz"), allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["array"], samples.array)
        assert [tuple(row) for row in stored["seeds"].tolist()] == [tuple(key) for key in samples.seeds]
    with pytest.raises(InputError, match=r"can't write \.gif"):
        samples.save(tmp_path / "x.gif")
    assert not (tmp_path / "x.gif").exists()


def test_backends_are_known_by_name() -> None:
    assert {"fake", "onnxruntime"} <= set(backend_names())
    with pytest.raises(InputError, match="did you mean 'onnxruntime'"):
        create_backend("onnxruntim")
    with pytest.raises(InputError, match="did you mean 'cuda'"):
        create_backend("onnxruntime:cud")
    with pytest.raises(InputError, match="threads from 1"):
        create_backend("onnxruntime", threads=0)


@pytest.mark.parametrize("backend", ["onnxruntime", "auto"])
def test_threads_may_be_numpys_numbers(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSDK_TUNE", "off")
    with Generator.load("digits-dcgan", backend=backend, threads=np.int64(1)) as model:  # type: ignore[arg-type]
        assert len(model.sample(2, seed=0)) == 2
