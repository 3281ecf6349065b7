"""Laws of walks through a latent space: their ends, their norms, and that a walk to nowhere stands still."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.methods.latents import lerp, slerp
from gensdk_runtime.spec.model import ModelSpec
from support.models import MODELS, autoregressive_model, diffusion_model, feedforward_model, generator

WITH_LATENT = ("feedforward", "diffusion", "sharing")
shares = st.floats(0, 1)
seeds = st.integers(0, 2**32)


def _vectors(seed: int, size: int = 7) -> tuple[Any, Any]:
    a, b = np.random.default_rng(seed).normal(size=(2, size))
    return a, b


def _uniform_model() -> ModelSpec:
    model = feedforward_model()
    graph = model.graphs[0]
    z = graph.inputs[0].model_copy(update={"distribution": "uniform"})
    return model.model_copy(update={"graphs": (graph.model_copy(update={"inputs": (z,)}),)})


@given(seed=seeds, t=shares)
def test_slerp_keeps_the_norm_and_turns_evenly(seed: int, t: float) -> None:
    a, b = _vectors(seed)
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    found = slerp(a, b, t)
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(a), rtol=1e-12)
    whole = np.arccos(np.clip(a @ b / (a @ a), -1, 1))
    part = np.arccos(np.clip(a @ found / (a @ a), -1, 1))
    np.testing.assert_allclose(part, t * whole, atol=1e-6)
    np.testing.assert_allclose(found, slerp(b, a, 1 - t), atol=1e-9)


@given(seed=seeds, t=shares)
def test_slerp_has_the_ends_of_a_line_and_its_limits(seed: int, t: float) -> None:
    a, b = _vectors(seed)
    for between in (lerp, slerp):
        np.testing.assert_array_equal(between(a, b, 0.0), a)
        np.testing.assert_array_equal(between(a, b, 1.0), b)
    np.testing.assert_allclose(slerp(a, a, t), a, atol=1e-12)
    np.testing.assert_allclose(slerp(a, 3 * a, t), lerp(a, 3 * a, t), atol=1e-12)
    nearly = a + 1e-13 * b
    np.testing.assert_allclose(slerp(a, nearly, t), lerp(a, nearly, t), atol=1e-11)
    np.testing.assert_allclose(slerp(np.zeros(7), b, t), t * b, atol=1e-12)
    np.testing.assert_array_equal(slerp(np.zeros(7), np.zeros(7), t), np.zeros(7))


@given(seed=seeds, t=shares, off=st.sampled_from([0.0, 1e-17, 1e-12, 1e-8]))
def test_slerp_between_opposites_stays_on_the_sphere(seed: int, t: float, off: float) -> None:
    a, b = _vectors(seed)
    found = slerp(a, -a + off * b, t)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(a), rtol=1e-6)
    assert np.isfinite(slerp(np.array([2.0]), np.array([-2.0]), t)).all()  # one dimension has no way round


@pytest.mark.parametrize("program", WITH_LATENT)
@pytest.mark.parametrize("num_classes", [None, 3])
@given(a=seeds, b=seeds, n=st.integers(2, 9), method=st.sampled_from(["slerp", "lerp", None]))
@settings(max_examples=10, deadline=None)
def test_the_ends_of_a_walk_are_the_samples_of_its_seeds(program, num_classes, a, b, n, method) -> None:
    options = {} if program == "feedforward" else {"num_inference_steps": 3, "eta": 1.0}
    with generator(MODELS[program](num_classes)) as model:
        walk = model.interpolate(a, b, n, method=method, **options)
        ends = model.sample(2, seed=[a, b], **options)
        assert len(walk) == n
        np.testing.assert_array_equal(walk.array[[0, -1]], ends.array)
        if num_classes:
            np.testing.assert_array_equal(walk.labels[[0, -1]], ends.labels)
        still = model.interpolate(a, a, n, method=method, **options)
        np.testing.assert_array_equal(still.array, np.repeat(ends.array[:1], n, axis=0))


def test_a_walk_through_several_seeds_meets_each_and_a_loop_closes() -> None:
    with generator(feedforward_model()) as model:
        at = model.sample(3, seed=[4, 5, 6]).array
        walk = model.walk([4, 5, 6], 5)
        assert len(walk) == 9
        np.testing.assert_array_equal(walk.array[[0, 4, 8]], at)
        loop = model.walk([4, 5, 6], 5, loop=True)
        assert len(loop) == 12
        np.testing.assert_array_equal(loop.array[[0, 4, 8]], at)
        np.testing.assert_array_equal(loop.array[:9], walk.array)
        assert loop.settings["latents"] == "given"


def test_given_latents_walk_as_their_seeds_do() -> None:
    with generator(feedforward_model()) as model:
        a, b = model.latents(2, [(0, 3), (7, 1)])
        by_latent, by_seed = model.interpolate(a, b, 6), model.interpolate((0, 3), (7, 1), 6)
        np.testing.assert_array_equal(by_latent.array, by_seed.array)
        np.testing.assert_array_equal(model.sample(2, seed=[(0, 3), (7, 1)]).array, by_seed.array[[0, -1]])


def test_arithmetic_is_the_sum_of_means() -> None:
    with generator(feedforward_model()) as model:
        z = model.latents(6, 0).astype(np.float64)
        expected = z[:3].mean(0) - z[3] + z[4:].mean(0)
        points = [(0, place) for place in range(6)]
        found = model.arithmetic([points[:3], points[4:]], [points[3:4]])
        expected_image = model.sample(1, latents=expected[None].astype(np.float32), seed=0).array
        np.testing.assert_allclose(found.array, expected_image, atol=1e-5)
        np.testing.assert_array_equal(model.arithmetic([[5], [9]], [[9]]).array.shape, (1, 1, 4, 6))
        with pytest.raises(InputError, match="no empty group"):
            model.arithmetic([[1], []])


def test_traversal_changes_one_value_alone() -> None:
    seen: list[Any] = []

    def keep(feeds: Any) -> Any:
        seen.append(feeds["z"].copy())
        return {"image": np.zeros((len(feeds["z"]), 1, 4, 6), np.float32)}

    with generator(feedforward_model(), {"generator": keep}) as model:
        model.traverse(3, 2, 7)
        z = model.latents(1, [3])[0]
    (path,) = seen
    np.testing.assert_allclose(path[:, 2], np.linspace(-3, 3, 7))
    np.testing.assert_array_equal(np.delete(path, 2, axis=1), np.repeat(np.delete(z, 2)[None], 7, axis=0))


def test_uniform_latents_are_walked_in_a_line() -> None:
    with generator(_uniform_model()) as model:
        assert 0 <= model.latents(9, 0).min() < model.latents(9, 0).max() < 1
        walk = model.interpolate(1, 2, 5)
        np.testing.assert_array_equal(walk.array[[0, -1]], model.sample(2, seed=[1, 2]).array)
        np.testing.assert_array_equal(walk.array, model.interpolate(1, 2, 5, method="lerp").array)
        with pytest.raises(InputError, match="use method='lerp'"):
            model.interpolate(1, 2, 5, method="slerp")


def _wrong(model: Generator, **arguments: Any) -> None:
    model.interpolate(**{"a": 1, "b": 2, "n": 4, **arguments})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n": 1}, "at least 2"),
        ({"n": 2.5}, "n as an int"),
        ({"n": 10**9}, "from 1 to"),
        ({"method": "slrp"}, "did you mean 'slerp'"),
        ({"a": -1}, "seed from 0"),
        ({"a": "x"}, "seed as an int"),
        ({"a": np.zeros(3, np.float32)}, r"latents of shape \[1, 5\]"),
        ({"b": np.full(5, np.nan)}, "NaN"),
        ({"seed": 3}, "brings its own seed"),
        ({"latents": np.zeros((4, 5))}, "brings its own latents"),
        ({"label": 1}, "no classes"),
    ],
)
def test_wrong_walks_are_told(arguments: dict[str, Any], match: str) -> None:
    with generator(feedforward_model()) as model, pytest.raises(InputError, match=match):
        _wrong(model, **arguments)


@pytest.mark.parametrize("call", ["latents", "interpolate", "traverse"])
def test_what_memory_does_not_hold_is_refused_before_it_is_taken(call: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("gensdk_runtime.host.memory.available_memory", lambda: 2**20)
    given: tuple[Any, ...] = {"latents": (), "interpolate": (0, 1), "traverse": (0, 0)}[call]
    many = (10**7, 0) if call == "latents" else (10**7,)
    with generator(feedforward_model()) as model, pytest.raises(InputError, match="of memory are free"):
        getattr(model, call)(*given, *many)


def test_wrong_traversals_are_told_and_some_models_have_no_latent() -> None:
    with generator(diffusion_model()) as model:
        for axis in (-1, 24, True, 1.5):
            with pytest.raises(InputError, match=r"axis from 0 to 23|axis as an int"):
                model.traverse(1, axis)
        for low, high in ((1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
            with pytest.raises(InputError, match=r"low below high|finite number"):
                model.traverse(1, 0, low=low, high=high)
        with pytest.raises(InputError, match="at least two points"):
            model.walk([1], 4)
    with generator(autoregressive_model()) as model, pytest.raises(InputError, match="no latent"):
        model.interpolate(1, 2, 4)
