"""Whatever is passed to a Generator or to Samples works, or is refused in one line: no raw error of Python's."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gensdk_runtime.arguments import as_array
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import GensdkError, GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host import memory
from gensdk_runtime.programs.run import StepEnd
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import AscentSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.inverting_bundle import write_inverting_bundle
from support.models import IMAGE, ascent_model, feedforward_model, image_tensor, tensor
from support.models import generator as fake_generator
from support.refusals import refusal_of


class NoArray:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("on a device")


class NoText:
    def __repr__(self) -> str:
        raise ValueError("no text")


ODD: list[Any] = [
    *(None, True, False, 0, 3, -1, 3.5, float("nan"), float("inf"), 10**30, 10**5000, 2**64, 3 + 4j),
    *("", "x", "1", "\n\x1b[0m", "a" * 5000, b"x", Path("x"), object(), int, slice(1), Ellipsis),
    *(
        [],
        [1],
        [1, 2],
        (0, 17),
        ("0", 1),
        [(0, 1, 2)],
        [(0, -1)],
        [[1, 2], [3]],
        [None],
        {},
        {1: 2},
        {1, 2},
        range(2),
    ),
    *(np.int64(1), np.float32(1.5), np.bool_(True), np.uint64(2**64 - 1)),
    *(np.array(1), np.array([]), np.array([1]), np.array(["a"]), np.array([object()]), np.array([[0.5, 1]])),
    *(np.zeros((2, 9, 9), np.uint8), np.full((1, 1, 9, 9), np.nan, np.float32), np.zeros((1, 1, 9, 9), complex)),
    *(Image.new("RGB", (9, 9)), Image.new("I;16", (9, 9)), Image.new("P", (9, 9))),
    *(torch.zeros(1, 1, 9, 9, requires_grad=True), torch.zeros(2, dtype=torch.int64), NoArray(), NoText()),
]


def dreaming_model() -> ModelSpec:
    """Gradient steps on an image, by a graph that takes one size alone."""
    source = SourceSpec(channels=1, height=IMAGE.height, width=IMAGE.width, margin=0)
    return ascent_model().model_copy(update={"conditions": (source,)})


def searching_model() -> ModelSpec:
    """Finds the latents of images, from noise."""
    model = feedforward_model()
    gradient = GraphSpec(
        name="inversion",
        inputs=(tensor("variable", "state", "batch", 5), image_tensor("target")),
        outputs=(tensor("objective", "state", "batch"), tensor("gradient", "state", "batch", 5)),
    )
    search = AscentSpec(objectives={"error": "inversion"}, decoder="generator")
    return model.model_copy(update={"graphs": (*model.graphs, gradient), "inversion": search})


FAKES = {"dreaming": dreaming_model, "searching": searching_model}


@pytest.fixture(scope="module", params=["digits-vae", "digits-ddpm", "translation", *FAKES])
def generator(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    name = request.param
    if name in FAKES:
        with fake_generator(FAKES[name]()) as made:
            yield made
        return
    if name == "translation":
        name = write_inverting_bundle(tmp_path_factory.mktemp("bundle") / "negative.gsdk")
    with Generator.load(name, backend="onnxruntime", threads=1) as loaded:
        yield loaded


def bases(model: Any) -> dict[str, dict[str, Any]]:
    """Arguments that work, for each method: or would, if the model had it."""
    if model.name == "ascent":
        picture, few = np.zeros((9, 9, 1), np.uint8), {"num_inference_steps": 1}
        return {"dream": {"image": picture, "octaves": 1, **few}, "prepare": {"size": (3, 4), **few}}
    if model.inversion is not None:
        few = {"images": np.zeros((1, 4, 6, 1), np.uint8), "num_inference_steps": 1}
        return {"invert": few, "detect": few, "encode": {"images": few["images"]}}
    if model.source is not None:
        picture = np.zeros((9, 9, 3), np.uint8)
        return {"sample": {"image": picture[None]}, "translate": {"images": picture}}
    if model.family == "ddpm":
        return {"sample": {"n": 1, "seed": 0, "num_inference_steps": 1}, "prepare": {"num_inference_steps": 1}}
    _, height, width = model.output.shape
    images = np.zeros((1, height, width, 1), np.uint8)
    return {
        "sample": {"n": 1, "seed": 0},
        "encode": {"images": images, "label": 0},
        "reconstruct": {"images": images, "label": 0, "num_iterations": 1},
        "classify": {"images": images},
        "latents": {"n": 1, "seed": 0},
        "interpolate": {"a": 0, "b": 1, "n": 2},
        "walk": {"points": [0, 1], "n": 2},
        "traverse": {"point": 0, "axis": 0, "n": 2},
        "arithmetic": {"plus": [[0]]},
        "log_likelihood": {"images": images},
        "invert": {"images": images},
        "detect": {"images": images},
        "dream": {"image": images[0]},
    }


def works_or_one_line(call: Callable[[], Any], what: str) -> None:
    assert len(refusal_of(call, GensdkError, what=what)) < 700, what


def test_arguments_of_every_method(generator: Generator) -> None:
    calls = [
        (getattr(generator, name), {**base, argument: value}, f"{name}({argument}={place})")
        for name, base in bases(generator.model).items()
        for argument in inspect.signature(getattr(generator, name)).parameters
        for place, value in enumerate(ODD)
        if argument != "options"
        if argument != "callback_on_step_end" or value is not int  # a function, whose own error is the caller's
    ]
    assert calls
    for method, given, what in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GensdkWarning)  # what was done otherwise than asked is said
            works_or_one_line(lambda call=method, given=given: call(**given), what)


MODES = ("1", "L", "P", "RGB", "HSV", "YCbCr", "CMYK")


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_is_its_colours_whatever_mode_it_is_in(mode: str, tmp_path: Path) -> None:
    """And upright: NumPy takes the numbers of a palette, or hues, for colours."""
    colours = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    picture = Image.fromarray(colours).convert(mode)
    picture.getexif()[0x0112] = 3  # upside down
    shown = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    with Generator.load(write_inverting_bundle(tmp_path / "negative.gsdk"), backend="onnxruntime") as model:
        expected = model.translate(shown)
        np.testing.assert_array_equal(model.translate(picture), expected)
        for given in (picture, [picture], (picture,)):
            np.testing.assert_array_equal(model.sample(image=given, output_type="uint8").images[0], expected)
        with pytest.raises(InputError, match="expected images of one size"):
            model.sample(image=[picture, picture.resize((8, 8))])


def test_a_path_is_no_image(tmp_path: Path) -> None:
    with Generator.load(write_inverting_bundle(tmp_path / "negative.gsdk"), backend="onnxruntime") as loaded:
        with pytest.raises(InputError, match="expected images as an array of numbers, got str"):
            loaded.translate("photo.png")  # type: ignore[call-overload]
        with pytest.raises(InputError, match="expected images as an array of numbers, got str"):
            loaded.sample(image="photo.png")


def test_arguments_of_loading() -> None:
    for argument in ("bundle", "backend", "precision", "threads", "trust_engines"):
        for place, value in enumerate(ODD):
            given = {"bundle": "digits-vae", "backend": "onnxruntime", argument: value}
            works_or_one_line(lambda given=given: Generator.load(**given).close(), f"load({argument}={place})")


@pytest.mark.parametrize("trust", ["no", "0", 0, 1, None, np.int64(1), [True]])
def test_trust_is_yes_or_no(trust: Any) -> None:
    """What is no bool is no word of the user's: "no" is true."""
    for load in (Generator.load, Bundle.open):
        with pytest.raises(InputError, match="expected trust_engines as True or False"):
            load("digits-vae", trust_engines=trust)


@pytest.mark.parametrize("size", [(3, 5), (4, 6), (4, 9), (9, 9), (14, 19)])
def test_a_graph_of_one_size_climbs_on_images_of_any(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    larger = size[0] > IMAGE.height or size[1] > IMAGE.width
    with fake_generator(dreaming_model()) as model, warnings.catch_warnings():
        warnings.simplefilter("ignore", GensdkWarning)  # larger ones go in tiles
        assert model.dream(picture, octaves=1).shape == picture.shape
        assert model.translate(picture).shape == picture.shape
        assert model.prepare(size=size).translate(picture).shape == picture.shape
        shown = Image.fromarray(picture[..., 0])
        for same in (shown, shown.convert("P")):  # the numbers of a palette are no greys
            np.testing.assert_array_equal(model.dream(same, octaves=1), model.dream(picture, octaves=1))
        said = refusal_of(lambda: model.sample(image=picture[None]), InputError)
    assert ("at most 4 x 6 (height x width)" in said) == larger


def test_arguments_of_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Generator.load("digits-vae", backend="onnxruntime", threads=1) as generator:
        samples = generator.sample(2, seed=0)
    for argument in ("path", "layout", "columns", "scale"):
        for place, value in enumerate(ODD):
            given = {"path": "grid.png", argument: value}
            works_or_one_line(lambda given=given: samples.save(**given), f"save({argument}={place})")


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ([[1, 2], [3]], "expected images as an array, got rows of several lengths; fill them up"),
        ([np.zeros((2, 9)), np.zeros((2, 8))], "got rows of several lengths"),
        (NoArray(), r"expected images as an array, got NoArray \(on a device\)"),
        (np.array(["a"]), "expected images as an array of numbers, got ndarray"),
        (np.array(["2026-01-01"], "datetime64[s]"), "expected images as an array of numbers"),
    ],
)
def test_what_is_no_array_is_said_in_words_of_gensdk(odd: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_array(odd, "images")


def test_samples_are_no_array_and_an_empty_path_is_none() -> None:
    with fake_generator(feedforward_model()) as model:
        samples = model.sample(2, seed=0)
    with pytest.raises(InputError, match=r"expected images as an array, got Samples$"):
        as_array(samples, "images")
    with pytest.raises(InputError, match="expected path as a str or a Path, got an empty one"):
        samples.save("")


def test_a_tuple_of_two_ints_is_neither_two_seeds_nor_a_pair() -> None:
    with Generator.load("digits-vae", backend="onnxruntime", threads=1) as generator:
        for n in (1, 2):
            with pytest.raises(InputError, match=r"pass \[0, 17\] or \[\(0, 17\)\]"):
                generator.sample(n, seed=(0, 17))
        assert generator.sample(2, seed=[0, 17]).seeds == ((0, 0), (17, 0))
        assert generator.sample(1, seed=[(0, 17)]).seeds == ((0, 17),)
        assert generator.sample(1, seed=generator.sample(1, seed=[(0, 17)]).seeds).seeds == ((0, 17),)
        assert generator.sample(1, seed=np.int64(3), label=np.array([2])).seeds == ((3, 0),)


def test_more_samples_than_memory_holds_are_refused_before_any_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    with Generator.load("digits-vae", backend="onnxruntime", threads=1) as generator:
        with pytest.raises(
            InputError, match=r"5,000,000 samples take about .* GiB, and 1\.0 GiB of memory are free"
        ):
            generator.sample(5_000_000)
        assert len(generator.sample(3)) == 3


def test_what_a_callback_that_stops_leaves_is_not_this_machines_affair(tmp_path: Path) -> None:
    """However the work was split by what was measured here, a callback hears of batches of the bundle's size."""
    from gensdk_runtime.plan.costs import Choice, Cost, CostTable
    from gensdk_runtime.plan.runners import Runners

    def stops(step: StepEnd) -> bool:
        return step.step == 1

    with Generator.load("digits-ddpm", backend="onnxruntime", threads=1) as plain:
        expected = plain.sample(100, seed=0, num_inference_steps=4, callback_on_step_end=stops)
        runner = plain._executor.runners.first
        choice = Choice(backend="onnxruntime")
        for batch in (1, 3, 8):
            table = CostTable(costs=(Cost(choice=choice, batch=batch, seconds=0.001 * batch),))
            tuned = Generator(plain.model, Runners({choice: runner}, costs=table))
            found = tuned.sample(100, seed=0, num_inference_steps=4, callback_on_step_end=stops)
            assert len(found) == len(expected) == plain.model.max_batch
            assert found.stopped
            np.testing.assert_allclose(found.array, expected.array, atol=1e-4)
