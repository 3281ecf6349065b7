"""Samples of diffusion models that start from images, and of which a part is kept."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gensdk_runtime import noise
from gensdk_runtime.conditions.given_masks import checked_masks
from gensdk_runtime.errors import GensdkWarning, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.programs.run import Run, StepEnd
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.solvers import first_step
from gensdk_runtime.spec.settings import DiffusionSettings, SolverName
from runtime.programs.test_diffusion_members import CLASSES, DIFFUSION, program
from support.members import a_run, member_options
from support.models import IMAGE, MODELS, SCHEDULE, generator

models = pytest.mark.parametrize("model", DIFFUSION)
of_pixels = pytest.mark.parametrize("model", [name for name in DIFFUSION if name != "latent"])
SOLVERS = make_schedule(SCHEDULE).solvers
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def pictures(n: int, seed: int = 0) -> Any:
    """uint8 [n, H, W, C]."""
    shape = (n, IMAGE.height, IMAGE.width, IMAGE.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def half(n: int) -> Any:
    """Masks [n, H, W] of which each paints another half anew."""
    rows = np.arange(IMAGE.height)[:, None] + np.arange(n)[:, None, None]
    return np.broadcast_to(rows % 2, (n, IMAGE.height, IMAGE.width))


def started(made: DiffusionProgram, seed: int, n: int, *, masked: bool, padded: int = 0) -> Run:
    run = a_run(made, seed, n, padded)
    places = np.minimum(np.arange(n + padded), n - 1)
    images = np.random.default_rng(seed).uniform(-1, 1, (n, *made.latent_shape)).astype(np.float32)[places]
    run.conditions = {**run.conditions, "image": images}
    if masked:
        anew = half(n)[places][:, None, : images.shape[2], : images.shape[3]] == 1
        run.conditions = {**run.conditions, "mask_image": anew}
    return run


def alone(made: DiffusionProgram, run: Run, place: int, how: DiffusionSettings) -> Any:
    some = slice(place, place + 1)
    latents = None if run.latents is None else run.latents[some]
    conditions = {kind: values[some] for kind, values in run.conditions.items()}
    single = Run(run.keys[some], np.empty((1, *made.model.output.shape), np.float32), conditions, latents)
    made.run(single, how)
    return single.data[0]


@models
@pytest.mark.parametrize("classes", [None, CLASSES], ids=["plain", "labels"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_runs_with_images_with_masks_and_without_go_on_as_one_batch(
    model: str, classes: int | None, data: st.DataObject
) -> None:
    """Each sample is what it is alone: whatever settings, images, masks and steps the others are at."""
    made = program(model, classes)
    runs, states = [], []
    for seed in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["plain", "image", "mask"]))
        how = made.resolve(data.draw(member_options(made)))
        n, padded = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1))
        run = a_run(made, seed, n, padded) if kind == "plain" else None
        if run is None:
            least = -(-100 // how.num_inference_steps) / 100
            how = how.model_copy(update={"strength": data.draw(st.floats(least, 1.0))})
            run = started(made, seed, n, masked=kind == "mask", padded=padded)
        states.append(made.begin(run, how))
        for _ in range(data.draw(st.integers(0, how.num_inference_steps))):
            states[-1].step()
        runs.append((run, how))
    first, *others = states
    with first:
        for other in others:
            first.join(other)
        while first.step():
            pass
    for run, how in runs:
        expected = [alone(made, run, place, how) for place in range(len(run.data))]
        np.testing.assert_array_equal(run.data, np.stack(expected))
    assert all(len(run.data) for run, _ in runs)


@models
def test_members_of_one_run_have_a_strength_of_their_own(model: str) -> None:
    made = program(model, CLASSES)
    run = started(made, 3, 4, masked=True)
    run.latents = np.random.default_rng(0).standard_normal((4, *made.latent_shape)).astype(np.float32)
    each = [made.resolve({"num_inference_steps": 5, "strength": strength}) for strength in (0.4, 1.0, 0.4, 0.8)]
    made.run(run, each)
    np.testing.assert_array_equal(run.data, [alone(made, run, place, each[place]) for place in range(4)])


@models
@every_solver
def test_all_of_the_noise_and_all_painted_anew_is_the_sample_of_the_seed(model: str, solver: Any) -> None:
    with generator(MODELS[model](CLASSES)) as sampler:
        how: dict[str, Any] = {"seed": 3, "label": 1, "guidance_scale": 2.0, "solver": solver}
        how["num_inference_steps"] = 5
        plain = sampler.sample(3, **how)
        ones = np.ones((IMAGE.height, IMAGE.width))
        for mask in (None, ones):
            found = sampler.sample(3, image=pictures(3), mask_image=mask, strength=1.0, **how)
            np.testing.assert_array_equal(found.array, plain.array)


@of_pixels
@every_solver
@pytest.mark.parametrize("output_type", ["float32", "uint8"])
@pytest.mark.parametrize("strength", [0.25, 0.8, 1.0])
def test_what_is_kept_comes_back_as_it_was_given(
    model: str, solver: Any, output_type: Any, strength: float
) -> None:
    given, masks = pictures(3), half(3).astype(np.uint8) * 255
    how: dict[str, Any] = {"seed": 5, "num_inference_steps": 4, "solver": solver, "strength": strength}
    with generator(MODELS[model]()) as sampler:
        whole = sampler.sample(image=given, mask_image=np.zeros_like(masks), output_type=output_type, **how)
        np.testing.assert_array_equal(whole.images, given)
        found = sampler.sample(image=given, mask_image=masks[..., None], output_type=output_type, **how)
        np.testing.assert_array_equal(found.images[masks == 0], given[masks == 0])
        assert (found.images[masks == 255] != given[masks == 255]).any()
        floats = np.random.default_rng(1).uniform(-1, 1, (3, *IMAGE.shape)).astype(np.float32) ** 9
        exact = sampler.sample(image=floats, mask_image=masks, **how).array
        np.testing.assert_array_equal(exact[masks[:, None] == 0], floats[masks[:, None] == 0])


@models
@pytest.mark.parametrize("mask", [None, half(5)], ids=["image", "mask"])
@pytest.mark.parametrize("n", [5], ids=str)
def test_no_split_changes_a_sample(model: str, mask: Any, n: int) -> None:
    how: dict[str, Any] = {"seed": 5, "num_inference_steps": 6, "strength": 0.5, "solver": "ddim", "eta": 0.5}
    given = pictures(n)
    with generator(MODELS[model](CLASSES)) as sampler:
        whole = sampler.sample(n, image=given, mask_image=mask, **how)
        for batch_size in (1, 2, 3):
            split = sampler.sample(n, image=given, mask_image=mask, batch_size=batch_size, **how)
            np.testing.assert_array_equal(split.array, whole.array)
        for place in range(n):
            own = {**how, "seed": [(5, place)]}
            one = None if mask is None else mask[place]
            single = sampler.sample(image=given[place], mask_image=one, **own)
            np.testing.assert_array_equal(single.array[0], whole.array[place])
        for_all = sampler.sample(n, image=given[0], mask_image=None if mask is None else mask[0], **how)
        each = sampler.sample(n, image=given[[0] * n], mask_image=None if mask is None else mask[[0] * n], **how)
        np.testing.assert_array_equal(for_all.array, each.array)


@models
def test_it_starts_from_the_image_with_the_noise_of_the_first_step(model: str) -> None:
    """sqrt(abar) x_0 + sqrt(1 - abar) eps, with the noise of the seed, or what is given in its place."""
    made = program(model, None)
    how = made.resolve({"num_inference_steps": 5, "strength": 0.6})
    times = made.table(made.resolve({"num_inference_steps": 5})).timesteps
    assert first_step(5, 0.6) == 2
    np.testing.assert_array_equal(made.table(how).timesteps, times[2:])
    abar = make_schedule(SCHEDULE).alphas_cumprod[int(times[2])]  # type: ignore[union-attr]
    shape = made.latent_shape
    for latents in (None, np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32)):
        run = started(made, 1, 2, masked=False)
        run.latents = latents
        fed: list[Any] = []
        session = made.sessions[made.spec.graph]
        inner = session._run  # type: ignore[attr-defined]
        session._run = lambda feeds, inner=inner, fed=fed: fed.append(feeds["sample"].copy()) or inner(feeds)  # type: ignore[attr-defined]
        made.run(run, how)
        session._run = inner  # type: ignore[attr-defined]
        eps = noise.normal(run.keys, noise.LATENT_STREAM, shape) if latents is None else latents
        expected = np.sqrt(abar) * run.conditions["image"] + np.sqrt(1 - abar) * eps
        np.testing.assert_allclose(fed[0], expected, atol=1e-6)
        assert len(fed) == (3 if "sharing" not in model else len(fed))


def test_a_listener_hears_of_the_steps_that_are_made_and_may_end_them() -> None:
    heard: list[StepEnd] = []
    given, mask = pictures(2), half(2)
    with generator(MODELS["diffusion"]()) as sampler:
        how: dict[str, Any] = {"seed": 0, "image": given, "mask_image": mask, "num_inference_steps": 10}
        sampler.sample(callback_on_step_end=heard.append, strength=0.5, **how)
        assert [(each.step, each.num_steps) for each in heard] == [(step, 5) for step in range(5)]
        stopped = sampler.sample(callback_on_step_end=lambda end: end.step == 2, strength=0.5, **how)
    assert stopped.stopped
    np.testing.assert_array_equal(stopped.array, heard[2].x0)
    np.testing.assert_array_equal(stopped.images[mask == 0], given[mask == 0])


@pytest.mark.parametrize("mask", [None, half(2)], ids=["image", "mask"])
def test_the_record_draws_again_what_starts_from_the_same(mask: Any) -> None:
    given = pictures(2)
    with generator(MODELS["diffusion"](CLASSES)) as sampler:
        first = sampler.sample(image=given, mask_image=mask, seed=4, label=1, num_inference_steps=4)
        assert first.settings["strength"] == 0.8
        assert first.settings["image"] == "given"
        assert ("mask_image" in first.settings) == (mask is not None)
        again = sampler.sample(image=given, mask_image=mask, settings=first.settings)
        np.testing.assert_array_equal(again.array, first.array)
        assert again.settings == first.settings
        with pytest.raises(InputError, match="drawn from image; pass image too"):
            sampler.sample(settings=first.settings)
        assert not {"strength", "image", "mask_image"} & sampler.sample(seed=4).settings.keys()


@pytest.mark.parametrize("mask", [None, half(2)], ids=["image", "mask"])
def test_prepared_calls_give_what_sample_gives(mask: Any) -> None:
    given = pictures(2)
    with generator(MODELS["diffusion"](CLASSES)) as sampler:
        for options in ({}, {"strength": 0.5}):
            how: dict[str, Any] = {"num_inference_steps": 4, "label": 2, **options}
            prepared = sampler.prepare(2, **how)
            for seed in (0, 1, 0):
                found = prepared.draw(seed, image=given, mask_image=mask)
                expected = sampler.sample(2, seed=seed, image=given, mask_image=mask, **how)
                np.testing.assert_array_equal(found.array, expected.array)
                assert found.settings == expected.settings
        plain = sampler.prepare(2, num_inference_steps=4)
        plain.draw(1, image=given)
        np.testing.assert_array_equal(plain.draw(0).array, sampler.sample(2, seed=0, num_inference_steps=4).array)
        with pytest.raises(InputError, match="strength is for samples that start from an image"):
            prepared.draw(0)
        with pytest.raises(InputError, match=r"prepare\(\) takes no mask_image"):
            sampler.prepare(mask_image=half(1))  # type: ignore[call-arg]


def test_as_many_are_drawn_as_are_given() -> None:
    with generator(MODELS["diffusion"]()) as sampler:
        assert len(sampler.sample(image=pictures(1)[0], seed=0)) == 1
        assert len(sampler.sample(image=pictures(3), seed=0)) == 3
        assert len(sampler.sample(image=pictures(1), mask_image=half(4), seed=0)) == 4
        grey = [Image.fromarray(each[..., 0]) for each in pictures(3)]
        found = sampler.sample(image=grey, mask_image=Image.new("1", (IMAGE.width, IMAGE.height)), seed=0)
        np.testing.assert_array_equal(found.images, pictures(3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"strength": 0.5}, "strength is for samples that start from an image; pass image too"),
        ({"image": pictures(1), "strength": 0.01}, "strength of at least 1 / 20 for as many steps, got 0.01"),
        ({"image": pictures(1), "strength": 1.5}, "strength: expected number, 0 < value <= 1, got 1.5"),
        ({"image": pictures(1), "strength": 0}, "strength: expected number, 0 < value <= 1, got 0"),
        ({"mask_image": half(1)}, "mask_image needs an image"),
        ({"image": pictures(1)[:, 1:]}, r"expected uint8 images \[n, 4, 6, 1\], got \[1, 3, 6, 1\]"),
        ({"image": pictures(2), "n": 3}, "expected one image, or one for each of the 3 samples, got 2"),
        ({"image": pictures(1) * np.nan}, "within"),
        ({"image": pictures(2), "mask_image": half(3)}, "expected one mask_image, or one for each of the 2"),
        ({"image": pictures(1), "mask_image": half(1)[:, 1:]}, r"expected mask_image \[4, 6\] or \[n, 4, 6\]"),
        ({"image": pictures(1), "mask_image": half(1) * np.nan}, "got values outside or NaN"),
        ({"image": pictures(1), "mask_image": half(1) * 2.0}, "from 0 .kept. to 1, or 255 in bytes"),
        ({"image": pictures(1), "mask_image": "mask.png"}, "mask_image"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments: dict[str, Any], said: str) -> None:
    if (image := arguments.get("image")) is not None and image.dtype == np.float64:
        arguments = {**arguments, "image": image.transpose(0, 3, 1, 2)}
    with generator(MODELS["diffusion"]()) as sampler, pytest.raises(InputError, match=said) as failure:
        sampler.sample(**arguments)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DIFFUSION])
def test_other_models_start_from_no_image(name: str) -> None:
    with generator(MODELS[name]()) as sampler:
        for given in ({"image": pictures(1)}, {"mask_image": half(1)}, {"strength": 0.5}):
            with pytest.raises(InputError, match=next(iter(given))):
                sampler.sample(1, **given)


def test_soft_masks_are_cut_in_the_middle_and_that_is_told() -> None:
    soft = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    with pytest.warns(GensdkWarning, match="mask_image has values between 0 and 1"):
        np.testing.assert_array_equal(checked_masks(soft, 4, 6)[0, 0], soft >= 0.5)
    in_bytes = np.rint(soft * 255).astype(np.uint8)
    with pytest.warns(GensdkWarning, match="between 0 and 255"):
        np.testing.assert_array_equal(checked_masks(in_bytes, 4, 6)[0, 0], in_bytes >= 128)
    for full, dtype in ((1, np.bool_), (1, np.uint8), (255, np.uint8), (1, np.float16), (1, np.int64)):
        hard = (half(2) * full).astype(dtype)
        np.testing.assert_array_equal(checked_masks(hard[:, None], 4, 6)[:, 0], half(2) == 1)


def test_a_bundle_has_no_default_strength() -> None:
    data = MODELS["diffusion"]().model_dump(mode="json")
    data["program"]["defaults"]["strength"] = 0.5
    with pytest.raises(ManifestError, match="strength belongs to the image"):
        type(MODELS["diffusion"]()).from_dict(data, what="model", error=ManifestError)


@pytest.mark.parametrize("solver", [name for name in get_args(SolverName) if name != "lcm"])
def test_an_embedded_model_stays_near_its_image(solver: Any) -> None:
    """The less noise, the nearer: on the digits that come with gensdk, which are no latent consistency model."""
    with Generator.load("digits-ddpm", backend="onnxruntime") as sampler:
        given = sampler.sample(8, seed=9, label=7).array
        how: dict[str, Any] = {"solver": solver, "num_inference_steps": 20}
        apart = [
            float(np.abs(sampler.sample(8, seed=1, image=given, strength=strength, **how).array - given).mean())
            for strength in (0.05, 0.4, 1.0)
        ]
        assert apart[0] < 0.15
        assert apart[0] < apart[1] < apart[2]
