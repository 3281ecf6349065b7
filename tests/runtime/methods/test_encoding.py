"""Models with a way back: encode, reconstruct, complete, classify; over small numpy functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import BackendError, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.models import IMAGE, feedforward_model, generator, image_tensor, label_tensor, tensor

PIXELS = IMAGE.height * IMAGE.width
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(PIXELS, 5)))[0].astype(np.float32)
"""Images are 0.2 B z, so that encoding and decoding again is a projection."""


def _model(
    classes: int | None = None, *, conditional: bool = False, latent: int = 5, judged: str = "image"
) -> ModelSpec:
    model = feedforward_model(classes)
    label = (label_tensor("batch"),) if conditional else ()
    encoder = GraphSpec(
        name="encoder",
        inputs=(image_tensor(judged), *label),
        outputs=(tensor("latent", "state", "batch", latent),),
    )
    classifier = GraphSpec(
        name="classifier", inputs=(image_tensor(judged),), outputs=(tensor("logits", "state", "batch", 4),)
    )
    program = FeedforwardSpec(graph="generator", encoder="encoder", classifier="classifier")
    return model.model_copy(update={"program": program, "graphs": (*model.graphs, encoder, classifier)})


def _decode(feeds: Any) -> Any:
    return {"image": np.clip(0.2 * feeds["z"] @ BASIS.T, -1, 1).reshape(-1, *IMAGE.shape)}


def _judged(feeds: Any) -> Any:
    """The images, by the name of today or by that of older bundles."""
    return feeds["image"] if "image" in feeds else feeds["images"]


def _encode(feeds: Any) -> Any:
    return {"latent": 5 * _judged(feeds).reshape(-1, PIXELS) @ BASIS}


def _logits(feeds: Any) -> Any:
    return {"logits": 900 * _judged(feeds).reshape(-1, PIXELS)[:, :4]}


def _linear(classes: int | None = None, **model: Any) -> Generator:
    functions = {"generator": _decode, "encoder": _encode, "classifier": _logits}
    return generator(_model(classes, **model), functions)


@pytest.mark.parametrize("judged", ["image", "images"])
def test_what_was_sampled_is_encoded_as_it_was_and_decoded_again(judged: str) -> None:
    with _linear(judged=judged) as model:
        samples = model.sample(11, seed=2)
        latents = model.encode(samples.array)
        assert latents.dtype == np.float32
        np.testing.assert_allclose(latents, model.latents(11, 2), atol=1e-5)
        np.testing.assert_array_equal(model.encode(samples.array, batch_size=4), latents)
        back = model.reconstruct(samples.array)
        np.testing.assert_allclose(back.array, samples.array, atol=1e-6)
        np.testing.assert_array_equal(model.reconstruct(samples.array, batch_size=3).array, back.array)
        assert back.settings["latents"] == "given"
        np.testing.assert_allclose(model.reconstruct(samples.images).array, samples.array, atol=2 / 255)


@pytest.mark.parametrize("form", ["plane", "batch", "channels"])
def test_missing_pixels_are_completed_and_known_ones_stay(form: str) -> None:
    mask = np.ones((3, 1, 4, 6), bool)
    mask[:, :, 1:3, 2:4] = False
    shaped: Any = {"plane": mask[0, 0], "batch": mask[:, 0], "channels": mask.astype(np.float32)}[form]
    with _linear() as model:
        true = model.sample(3, seed=5).array
        spoilt = np.where(mask, true, 0.77).astype(np.float32)
        done = model.reconstruct(spoilt, mask=shaped, num_iterations=400)
        np.testing.assert_array_equal(done.array[mask], true[mask])
        np.testing.assert_allclose(done.array, true, atol=1e-3)
        other = np.where(mask, true, -0.5).astype(np.float32)
        np.testing.assert_array_equal(model.reconstruct(other, mask=shaped, num_iterations=400).array, done.array)


def test_probabilities_sum_to_one_also_for_large_logits() -> None:
    with _linear() as model:
        images = model.sample(9, seed=1).array
        odds = model.classify(images)
        assert odds.shape == (9, 4)
        np.testing.assert_allclose(odds.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(odds.argmax(axis=1), images.reshape(9, -1)[:, :4].argmax(axis=1))
        np.testing.assert_array_equal(model.classify(images, batch_size=2), odds)


def test_labels_reach_the_encoder_that_wants_them() -> None:
    seen: list[Any] = []

    def encode(feeds: Any) -> Any:
        seen.append(feeds["label"].tolist())
        return _encode(feeds)

    images = np.zeros((5, *IMAGE.shape), np.float32)
    with generator(_model(3, conditional=True), {"encoder": encode}) as model:
        model.encode(images, [0, 1, 2, 0, 1], batch_size=3)
        assert seen == [[0, 1, 2], [0, 1]]
        with pytest.raises(InputError, match="pass label, one for each image"):
            model.encode(images)
        with pytest.raises(InputError, match="pass label, one for each of the 5 images"):
            model.reconstruct(images)


IMAGES = np.zeros((2, *IMAGE.shape), np.float32)


@pytest.mark.parametrize(
    ("images", "options", "match"),
    [
        (np.zeros((2, 1, 4, 5), np.float32), {}, r"float images \[n, 1, 4, 6\]"),
        (np.zeros((2, 4, 6, 3), np.uint8), {}, r"uint8 images \[n, 4, 6, 1\]"),
        (np.zeros((0, 1, 4, 6), np.float32), {}, "at least one image"),
        (np.full((1, 1, 4, 6), np.nan), {}, "NaN"),
        (np.full((1, 1, 4, 6), 1.5), {}, "within"),
        (IMAGES, {"mask": np.ones((5, 6))}, r"expected mask \[4, 6\]"),
        (IMAGES, {"mask": np.ones((3, 4, 6))}, "expected mask"),
        (IMAGES, {"mask": np.full((4, 6), np.nan)}, "expected mask from 0"),
        (IMAGES, {"mask": np.full((4, 6), 2)}, "expected mask from 0"),
        (IMAGES, {"mask": "all"}, "mask as an array of numbers"),
        (IMAGES, {"mask": np.ones((4, 6)), "num_iterations": 0}, "num_iterations from 1"),
        (IMAGES, {"num_iterations": 0}, "num_iterations from 1"),
        (IMAGES, {"label": 1}, "no classes"),
    ],
)
def test_wrong_images_and_masks_are_told(images: Any, options: dict[str, Any], match: str) -> None:
    with _linear() as model, pytest.raises(InputError, match=match):
        model.reconstruct(images, **options)


def test_a_model_without_an_encoder_says_so() -> None:
    with generator(feedforward_model()) as model:
        for call in (model.encode, model.reconstruct):
            with pytest.raises(InputError, match="no encoder"):
                call(IMAGES)
        with pytest.raises(InputError, match="no classifier"):
            model.classify(IMAGES)


def test_a_bundle_from_before_there_were_encoders_still_works() -> None:
    with Generator.load("digits-vae", backend="onnxruntime") as model:
        assert np.isfinite(model.sample(2, seed=0).array).all()
        with pytest.raises(InputError, match="no encoder"):
            model.encode(np.zeros((1, 8, 8), np.uint8), 3)


def test_nan_from_an_encoder_is_an_error() -> None:
    def lost(feeds: Any) -> Any:
        return {"latent": np.full((len(feeds["image"]), 5), np.nan, np.float32)}

    with (
        generator(_model(), {"encoder": lost}) as model,
        pytest.raises(BackendError, match="2 of 2 latents came out NaN"),
    ):
        model.encode(IMAGES)


def test_an_encoder_of_another_latent_is_refused() -> None:
    with pytest.raises(ManifestError, match="expected output 'latent'"):
        generator(_model(latent=6))
    with pytest.raises(ValueError, match="needs a graph 'back'"):
        ModelSpec.model_validate(
            {
                **feedforward_model().model_dump(),
                "program": {"kind": "feedforward", "graph": "generator", "encoder": "back"},
            }
        )


def test_a_classifier_says_how_many_classes_it_knows() -> None:
    model = _model()
    *others, classifier = model.graphs
    open_ended = classifier.model_copy(update={"outputs": (tensor("logits", "state", "batch", "classes"),)})
    with pytest.raises(ManifestError, match="'classifier' does not say how many logits"):
        generator(model.model_copy(update={"graphs": (*others, open_ended)}))


def test_an_input_is_a_condition_or_noise() -> None:
    model = feedforward_model(3)
    (graph,) = model.graphs
    z, label = graph.inputs
    both = graph.model_copy(update={"inputs": (z, label.model_copy(update={"role": "noise"}))})
    with pytest.raises(ManifestError, match="input 'label' of graph 'generator' is a condition and noise"):
        generator(model.model_copy(update={"graphs": (both,)}))
