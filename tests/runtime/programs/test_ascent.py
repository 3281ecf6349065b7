"""The ascent program over graphs in NumPy: paths, ends, refusals. (test_generator.py has the laws.)"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import BackendError, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.methods.inversion import Detection
from gensdk_runtime.spec.model import AscentSpec, FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from support.models import IMAGE, MODELS, ascent_model, feedforward_model, generator, image_tensor, tensor

PIXELS = int(np.prod(IMAGE.shape))
MATRIX = np.random.default_rng(0).normal(size=(5, PIXELS)).astype(np.float32) / 12


def inverting_model(**changes: Any) -> ModelSpec:
    """z [5] to an image, linear; the squared error of the image, and its gradient."""
    latent = TensorSpec(name="latent", dtype="float32", shape=("batch", 5), role="state")
    graphs = (
        GraphSpec(
            name="generator",
            inputs=(tensor("z", "noise", "batch", 5, distribution="normal"),),
            outputs=(image_tensor("image"),),
        ),
        GraphSpec(name="encoder", inputs=(image_tensor("image"),), outputs=(latent,)),
        GraphSpec(
            name="inversion",
            inputs=(tensor("variable", "state", "batch", 5), image_tensor("target")),
            outputs=(tensor("objective", "state", "batch"), tensor("gradient", "state", "batch", 5)),
        ),
    )
    spec = {
        "objectives": {"error": "inversion"},
        "decoder": "generator",
        "encoder": "encoder",
        "start": "zeros",
        "defaults": AscentSettings(optimizer="lbfgs", learning_rate=1.0, num_inference_steps=40),
    }
    return ModelSpec(
        name="linear",
        family="test",
        program=FeedforwardSpec(graph="generator"),
        inversion=AscentSpec.model_validate({**spec, **changes}),
        graphs=graphs,
        output=IMAGE,
        max_batch=4,
    )


def image_of(z: Array) -> Array:
    return (z @ MATRIX).reshape(-1, *IMAGE.shape)


def invert_linear(feeds: Feeds) -> dict[str, Array]:
    rest = image_of(feeds["variable"]) - feeds["target"]
    flat = rest.reshape(len(rest), -1)
    return {"objective": np.square(flat).sum(axis=1) / 2, "gradient": flat @ MATRIX.T}


def linear(**changes: Any) -> Generator:
    functions = {
        "generator": lambda feeds: {"image": image_of(feeds["z"])},
        "encoder": lambda feeds: {"latent": np.full((len(feeds["image"]), 5), 0.25, np.float32)},
        "inversion": invert_linear,
    }
    return generator(inverting_model(**changes), functions)


def targets(n: int = 7) -> tuple[Array, Array]:
    z = np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32)
    return z, np.clip(image_of(z), -1, 1)


@pytest.mark.parametrize("start", ["encoder", "noise", "zeros"])
def test_what_was_made_is_found_again(start: Any) -> None:
    z, images = targets()
    with linear() as model:
        found = model.invert(images, start=start)
    np.testing.assert_allclose(found.latents, z, atol=1e-2)
    np.testing.assert_allclose(found.images, images, atol=1e-3)
    np.testing.assert_allclose(found.objective, 0, atol=1e-4)
    assert found.residuals.shape == (7, *IMAGE.shape)
    assert len(found) == 7


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_a_batch_equals_one_by_one(optimizer: Any) -> None:
    _, images = targets()
    options = {"optimizer": optimizer, "learning_rate": 0.1, "num_inference_steps": 20, "patience": 3}
    with linear() as model:
        together = model.invert(images, start="noise", seed=3, **options)
        alone = [
            model.invert(images[i : i + 1], start="noise", seed=[(3, i)], batch_size=1, **options)
            for i in range(len(images))
        ]
        others = model.invert(np.concatenate([images[:1], -images[1:]]), start="noise", seed=3, **options)
    for name in ("latents", "objective", "steps"):
        joined = np.concatenate([getattr(each, name) for each in alone])
        np.testing.assert_allclose(getattr(together, name), joined, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(together.latents[0], others.latents[0], rtol=1e-6, atol=1e-6)


def test_the_best_place_is_kept_and_patience_ends_the_search() -> None:
    _, images = targets(3)
    wild = {"optimizer": "sgd", "learning_rate": 10.0, "num_inference_steps": 30}
    with linear() as model:
        first = model.invert(images, num_inference_steps=0)
        found = model.invert(images, patience=4, **wild)
        assert (found.objective <= first.objective).all()
        assert (found.steps < 30).all()
        assert (model.invert(images, **wild).steps == 30).all()


def test_one_step_from_the_origin_is_the_gradient() -> None:
    _, images = targets(2)
    one = AscentSettings(optimizer="sgd", learning_rate=1.0, num_inference_steps=1)
    with linear(keep="last", encoder=None, defaults=one) as model:
        found = model.invert(images)
    np.testing.assert_allclose(found.latents, images.reshape(2, -1) @ MATRIX.T, rtol=1e-5, atol=1e-6)


def test_steps_are_heard_and_can_end_the_search() -> None:
    heard: list[Any] = []
    _, images = targets(6)
    with linear() as model:
        model.invert(images, num_inference_steps=5, callback_on_step_end=lambda step: bool(heard.append(step)))
        stopped = model.invert(images, callback_on_step_end=lambda step: True)
    assert [step.step for step in heard] == [0, 1, 2, 3, 4] * 2
    assert heard[0].objective.shape == (4,)
    assert heard[0].x0.shape == (4, *IMAGE.shape)
    assert stopped.stopped
    assert len(stopped) == 4


def test_detection_tells_the_odd_from_the_usual() -> None:
    _, images = targets(6)
    odd = np.sign(np.random.default_rng(5).normal(size=images.shape)).astype(np.float32)
    with linear() as model:
        threshold = model.detect(images).normal_threshold(0.95)
        found = model.detect(np.concatenate([images[:2], odd[:2]]), threshold=threshold + 1e-3)
        assert found.anomalous.tolist() == [False, False, True, True]
        assert found.heat_maps.shape == (4, *IMAGE.shape[1:])
        assert (model.detect(images, fast=True).inversion.steps == 0).all()
        assert repr(found) == f"<Detection: 4 scores, 2 above {threshold + 1e-3:g}>"
        assert repr(found.inversion).startswith("<Inversion: 4 latents [")
        with pytest.raises(InputError, match="there is no threshold"):
            _ = model.detect(images).anomalous
        with pytest.raises(InputError, match="quantile between 0 and 1"):
            model.detect(images).normal_threshold(1.5)


@pytest.mark.parametrize("quantile", ["0.9", None, [0.5], True, math.nan, 0, 1, -1])
def test_a_quantile_is_a_number_between_0_and_1(quantile: Any) -> None:
    with linear() as model, pytest.raises(InputError, match="a quantile"):
        model.detect(targets(1)[1]).normal_threshold(quantile)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "noise"}, "fast means start='encoder', got noise"),
        ({"num_inference_steps": 3}, "fast means num_inference_steps=0, got 3"),
    ],
)
def test_what_is_fast_searches_no_further(options: dict[str, Any], said: str) -> None:
    images = targets(2)[1]
    with linear() as model:
        begun = model.invert(images, start="encoder", num_inference_steps=0)
        np.testing.assert_array_equal(model.detect(images, fast=True).scores, begun.objective)
        with pytest.raises(InputError, match=said):
            model.detect(images, fast=True, **options)
    without = generator(inverting_model(encoder=None), {"inversion": invert_linear})
    with without, pytest.raises(InputError, match="has none; leave fast out"):
        without.detect(images, fast=True)


@pytest.mark.parametrize("label", [0, "cat", [1, 2]])
def test_a_search_takes_no_label(label: Any) -> None:
    with linear() as model, pytest.raises(InputError, match="has no classes; leave label out"):
        model.encode(targets(2)[1], label)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf, np.float32("nan"), "310", True])
def test_nothing_is_judged_by_what_is_no_score(threshold: Any) -> None:
    _, images = targets(2)
    with linear() as model, pytest.raises(InputError, match="expected threshold as a"):
        model.detect(images, threshold=threshold)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("detect", {"fast": True, "num_inference_steps": 3}, "fast means num_inference_steps"),
        ("detect", {"fast": True, "start": "noise"}, "fast means start"),
        ("detect", {"thresold": 3}, "did you mean 'threshold'"),
        ("detect", {"batchsize": 3}, "did you mean 'batch_size'"),
        ("invert", {"batch": 3}, "did you mean 'batch_size'"),
        ("invert", {"solver": "ddim"}, "solver means nothing to an ascent model"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_nearest_of_the_method(
    method: str, given: dict[str, Any], message: str
) -> None:
    _, images = targets(2)
    with linear() as model, pytest.raises(InputError, match=message):
        getattr(model, method)(images, **given)


def test_scores_that_are_not_finite_are_no_scores() -> None:
    _, images = targets(3)
    with linear() as model:
        found = model.detect(images).inversion
    broken = replace(found, objective=np.float32([1, np.nan, 2]))
    with pytest.raises(BackendError, match="score nan for image 1"):
        Detection(broken)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.full((1, *IMAGE.shape), np.nan, np.float32), {}, "outside or NaN"),
        (np.full((1, *IMAGE.shape), 3.0, np.float32), {}, "outside or NaN"),
        (np.zeros((1, 1, 5, 5), np.float32), {}, "expected float images"),
        (np.zeros((0, *IMAGE.shape), np.float32), {}, "at least one image"),
        (np.zeros((2, 9, 9, 1), np.uint8), {}, "expected uint8 images"),
        (np.zeros((1, *IMAGE.shape), np.float32), {"start": "encodr"}, "did you mean 'encoder'"),
        (np.zeros((1, *IMAGE.shape), np.float32), {"optimizer": "adagrad"}, "optimizer"),
        (np.zeros((1, *IMAGE.shape), np.float32), {"learning_rate": float("nan")}, "learning_rate"),
        (np.zeros((1, *IMAGE.shape), np.float32), {"num_inference_steps": 10**9}, "num_inference_steps"),
        (np.zeros((1, *IMAGE.shape), np.float32), {"batch_size": 5}, "batch_size from 1 to 4"),
    ],
)
def test_bad_input_is_refused(images: Array, options: dict[str, Any], message: str) -> None:
    with linear() as model, pytest.raises(InputError, match=message):
        model.invert(images, **options)


def test_a_gradient_that_is_not_finite_is_an_error() -> None:
    def broken(feeds: Feeds) -> dict[str, Array]:
        return {"objective": np.zeros(len(feeds["variable"]), np.float32), "gradient": feeds["variable"] * np.nan}

    with (
        generator(ascent_model(), {"gradient": broken}) as model,
        pytest.raises(BackendError, match="2 of 2 samples"),
    ):
        model.sample(2, seed=0)


def test_other_models_neither_invert_nor_dream() -> None:
    with generator(feedforward_model()) as model:
        with pytest.raises(InputError, match="has no inversion"):
            model.invert(np.zeros((1, *IMAGE.shape), np.float32))
        with pytest.raises(InputError, match="does not dream"):
            model.dream(np.zeros((8, 8, 1), np.uint8))
        with pytest.raises(InputError, match="layer means nothing"):
            model.sample(1, layer="conv1")


def test_layers_and_channels_are_checked() -> None:
    with generator(MODELS["ascent"]()) as model:
        model.sample(1, seed=0, layer="layer", channel=2)
        with pytest.raises(InputError, match="did you mean 'layer'"):
            model.sample(1, layer="layr")
        with pytest.raises(InputError, match="channel of 'layer' from 0 to 2, got 3"):
            model.sample(1, channel=3)


def test_an_inversion_needs_its_graphs() -> None:
    data = inverting_model().model_dump(mode="json")
    data["inversion"]["decoder"] = "nowhere"
    with pytest.raises(ManifestError, match="needs a graph 'nowhere'"):
        ModelSpec.from_dict(data, what="model", error=ManifestError)
