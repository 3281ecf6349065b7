"""Diffusion models in a latent space: what their decoder and their encoder are given, and what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError, ManifestError, OutOfMemoryError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.starts import nearest
from gensdk_runtime.programs import diffusion_latents
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
from runtime.programs.test_diffusion_members import AROUND, decode, encode, step
from support.models import IMAGE, LATENT, MODELS, generator, latent_model

CLASSES = 3
STEPS: dict[str, Any] = {"num_inference_steps": 4, "strength": 0.8}


def stepped(feeds: Any) -> Any:
    """A step over latents, without the features that others share."""
    return {name: made for name, made in step(feeds).items() if name != "deep_features"}


def sampler(model: ModelSpec | None = None, **functions: Any) -> Generator:
    return generator(model or latent_model(CLASSES), {"step": stepped, **AROUND, **functions})


def changed(model: ModelSpec, **program: Any) -> dict[str, Any]:
    """A manifest's model with other fields of its program, and without those that are None."""
    data = model.model_dump(mode="json")
    data["program"].update(program)
    data["program"] = {name: value for name, value in data["program"].items() if value is not None}
    return data


def read(data: dict[str, Any]) -> ModelSpec:
    return ModelSpec.from_dict(data, what="model", error=ManifestError)


def pictures(n: int) -> Any:
    return np.random.default_rng(n).integers(0, 256, (n, IMAGE.height, IMAGE.width, IMAGE.channels), np.uint8)


def test_images_are_what_the_decoder_makes_of_the_last_latents() -> None:
    heard: list[StepEnd] = []
    with sampler() as model:
        assert model.latent_shape == LATENT
        samples = model.sample(
            3, seed=0, label=1, guidance_scale=2.0, num_inference_steps=5, callback_on_step_end=heard.append
        )
        last = np.tanh(heard[-1].x0)  # which the fake step gives as the next sample, once no noise is left
        assert samples.array.shape == (3, *IMAGE.shape)
        np.testing.assert_allclose(samples.array, decode({"latent": last})["image"], atol=1e-6)
        given = np.random.default_rng(0).standard_normal((2, *LATENT)).astype(np.float32)
        other = model.sample(2, seed=0, latents=given, num_inference_steps=5)
        assert not np.array_equal(other.array, model.sample(2, seed=0, num_inference_steps=5).array)
        with pytest.raises(InputError, match=r"expected latents of shape \[2, 2, 2, 3\]"):
            model.sample(2, latents=np.zeros((2, *IMAGE.shape), np.float32))


def test_values_outside_of_the_range_are_clipped() -> None:
    def loud(feeds: Any) -> Any:
        return {"image": 3 * decode(feeds)["image"]}

    with sampler(decoder=loud) as model:
        found = model.sample(2, seed=0).array
        with sampler() as quiet:
            np.testing.assert_array_equal(found, np.clip(3 * quiet.sample(2, seed=0).array, -1, 1))


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_batch_is_decoded_in_slices(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(feeds: Any) -> Any:
        sizes.append(len(feeds["latent"]))
        return decode(feeds)

    with sampler(decoder=counted) as model:
        whole = model.sample(5, seed=1, batch_size=5)
    assert sizes == [5]
    sizes.clear()
    monkeypatch.setattr(diffusion_latents, "SLICE_ELEMENTS", at_once * int(np.prod(IMAGE.shape)) + 1)
    with sampler(decoder=counted) as model:
        np.testing.assert_array_equal(model.sample(5, seed=1, batch_size=5).array, whole.array)
    assert max(sizes) == at_once
    assert sum(sizes) == 5


def test_a_decoder_that_lacks_memory_has_the_batch_run_in_halves() -> None:
    def small(feeds: Any) -> Any:
        if len(feeds["latent"]) > 2:
            raise OutOfMemoryError("no room")
        return decode(feeds)

    with sampler() as model:
        whole = model.sample(8, seed=1)
    with sampler(decoder=small) as model, pytest.warns(UserWarning, match="did not fit into memory"):
        np.testing.assert_array_equal(model.sample(8, seed=1).array, whole.array)


def test_an_image_goes_through_the_encoder_once() -> None:
    seen: list[Any] = []

    def counted(feeds: Any) -> Any:
        seen.extend(feeds["image"].copy())
        return encode(feeds)

    two = pictures(2)
    with sampler(encoder=counted) as model:
        each = model.sample(image=two[[0, 1, 0, 0, 1]], seed=2, **STEPS)
        assert len(seen) == 2
        for_all = model.sample(5, image=two[0], seed=2, **STEPS)
        assert len(seen) == 3
        np.testing.assert_array_equal(for_all.array[[0, 2, 3]], each.array[[0, 2, 3]])
        for batch_size in (1, 2):
            split = model.sample(image=two[[0, 1, 0, 0, 1]], seed=2, batch_size=batch_size, **STEPS)
            np.testing.assert_array_equal(split.array, each.array)


def test_encode_gives_what_samples_start_from() -> None:
    given = pictures(3)
    with sampler() as model:
        assert model.can("encode")
        assert not model.can("reconstruct")
        latents = model.encode(given)
        floats = given.transpose(0, 3, 1, 2) / 127.5 - 1
        np.testing.assert_allclose(latents, encode({"image": floats})["latent"], atol=1e-6)
        kept = model.sample(image=given, mask_image=np.zeros((4, 6)), seed=0, **STEPS)
        np.testing.assert_array_equal(kept.array, decode({"latent": latents})["image"])
        with pytest.raises(InputError, match=r"begins at noise; use sample\(image=..., strength=...\)"):
            model.reconstruct(given)
    with generator(MODELS["diffusion"]()) as model:
        assert not model.can("encode")
        with pytest.raises(InputError, match="has no encoder"):
            model.encode(given)


def test_masks_keep_places_of_the_latents() -> None:
    given, mask = pictures(2), np.zeros((4, 6))
    mask[:, 2:] = 1
    with sampler() as model:
        found = model.sample(image=given, mask_image=mask, seed=3, **STEPS)
        expected = decode({"latent": model.encode(given)})["image"]
        np.testing.assert_array_equal(found.array[..., :2], expected[..., :2])
        assert (found.array[..., 2:] != expected[..., 2:]).all()
        plain = model.sample(2, seed=3, num_inference_steps=4)
        anew = model.sample(image=given, mask_image=np.ones((4, 6)), seed=3, **{**STEPS, "strength": 1.0})
        np.testing.assert_array_equal(anew.array, plain.array)


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (5, 4), (3, 7), (1, 1)])
def test_masks_are_scaled_as_pytorch_does(size: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (3, 1, 16, 28)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(masks), size=size)
    np.testing.assert_array_equal(nearest(masks, *size), theirs.numpy())


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (((1.0, 0.0),), lambda x: x[:, :1]),
        (((0.5, -0.5),), lambda x: 0.5 * (x[:, :1] - x[:, 1:])),
        (((0.5, 0.25, 0.125),), lambda x: 0.5 * x[:, :1] + 0.25 * x[:, 1:] + 0.125),
        (None, lambda x: x),
    ],
    ids=["weights", "both", "bias", "none"],
)
def test_who_looks_at_steps_sees_a_preview(rows: Any, expected: Any) -> None:
    shown: list[StepEnd] = []
    latents: list[StepEnd] = []
    with sampler(latent_model(preview=rows)) as model:
        stopped = model.sample(2, seed=0, callback_on_step_end=lambda end: shown.append(end) or end.step == 2)
    with sampler(latent_model()) as model:
        same = model.sample(2, seed=0, callback_on_step_end=lambda end: latents.append(end) or end.step == 2)
    for seen, each in zip(shown, latents, strict=True):
        wanted = expected(each.x0)
        np.testing.assert_allclose(seen.x0, wanted if rows is None else np.clip(wanted, -1, 1), atol=1e-6)
    for samples in (stopped, same):
        assert samples.stopped
        np.testing.assert_array_equal(samples.array, decode({"latent": latents[2].x0})["image"])


def test_graphs_of_the_autoencoders_own_unit_are_scaled_outside() -> None:
    """z = latent / scale + shift for the decoder, and (z - shift) * scale of the encoder."""
    own: list[Any] = []

    def noted(feeds: Any) -> Any:
        own.append(feeds["latent"].copy())
        return decode(feeds)

    model = latent_model(CLASSES)
    data = changed(model, latent={"shape": list(LATENT), "scale": 0.25, "shift": 0.5})
    with sampler(read(data), decoder=noted) as scaled, sampler(model, decoder=noted) as plain:
        plain.sample(2, seed=0)
        scaled.sample(2, seed=0)
        np.testing.assert_allclose(own[1], own[0] / 0.25 + 0.5, rtol=1e-6)
        given = pictures(2)
        np.testing.assert_allclose(scaled.encode(given), (plain.encode(given) - 0.5) * 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ({"latent": None, "decoder": None, "encoder": None}, None),
        ({"encoder": None}, None),
        ({"decoder": None}, "has latent and decoder"),
        ({"latent": None}, "has latent and decoder"),
        ({"latent": None, "decoder": None}, "has latent and decoder"),
        ({"decoder": "missing"}, "missing"),
        ({"latent": {"shape": [2, 2]}}, "shape"),
        ({"latent": {"shape": [2, 2, 0]}}, "shape"),
        ({"latent": {"shape": [16384, 16384, 16384]}}, "elements"),
        ({"latent": {"shape": [2, 2, 3], "scale": 0.0}}, "scale"),
        ({"latent": {"shape": [2, 2, 3], "preview": [[1.0]]}}, "rows of 2 weights"),
        ({"latent": {"shape": [2, 2, 3], "preview": [[1.0, 2.0], [1.0, 2.0, 3.0]]}}, "rows of 2 weights"),
        ({"latent": {"shape": [2, 2, 3], "flavour": 1}}, "unknown key"),
        ({"defaults": {"clip_sample": True}}, "clip_sample is for images"),
    ],
    ids=str,
)
def test_what_a_manifest_may_say_of_a_latent_space(program: dict[str, Any], said: str | None) -> None:
    data = changed(latent_model(), **program)
    if said is None:
        model = read(data)
        assert read(model.model_dump(mode="json")) == model
    else:
        with pytest.raises(ManifestError, match=said):
            read(data)


@pytest.mark.parametrize(
    "program",
    [
        {"latent": {"shape": [2, 3, 2]}},
        {"latent": {"shape": [2, 2, 3], "preview": [[1.0, 2.0], [1.0, 2.0]]}},
        {"decoder": "encoder"},
        {"encoder": "decoder"},
    ],
    ids=str,
)
def test_graphs_that_do_not_fit_their_latent_space_are_refused(program: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="export"):
        generator(read(changed(latent_model(), **program)))


def test_manifests_of_other_models_say_nothing_of_latents() -> None:
    """As older versions wrote them, and as they read them."""
    program = MODELS["sharing"](3).program
    assert isinstance(program, DiffusionSpec)
    assert not {"latent", "decoder", "encoder"} & program.model_dump().keys()
    said = latent_model().program.model_dump(mode="json")
    assert said["latent"]["shape"] == list(LATENT)


def test_what_latents_do_not_allow_is_said_in_one_line() -> None:
    with sampler() as model, pytest.raises(InputError, match="clip_sample=True is for images") as failure:
        model.sample(1, clip_sample=True)
    assert "\n" not in str(failure.value)
    without = read(changed(latent_model(), encoder=None))
    with generator(without) as model:
        model.sample(1, seed=0)
        with pytest.raises(InputError, match="has no encoder, which an image goes through; export it with one"):
            model.sample(image=pictures(1))
