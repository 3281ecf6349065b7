"""Samples that are continued: what is given stays, and what follows is what would have followed it anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from support.models import MODELS, generator

LABELS = [3, 0, 9, 1, 3]
HEIGHT = 8


@pytest.fixture(scope="module")
def digits() -> Iterator[Generator]:
    with Generator.load("digits-pixelcnn", backend="onnxruntime", threads=1) as model:
        yield model


@pytest.mark.parametrize("rows", range(1, HEIGHT))
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_prefix_and_continuation_equal_the_whole(digits: Generator, rows: int, batch_size: int | None) -> None:
    for asked in ({"label": LABELS}, {}):
        whole = digits.sample(5, seed=rows, batch_size=batch_size, **asked)  # type: ignore[arg-type]
        given = {"prefix": whole.array[:, :, :rows], "batch_size": batch_size, **asked}
        np.testing.assert_array_equal(digits.sample(5, seed=rows, **given).array, whole.array)  # type: ignore[arg-type]
        in_bytes = {**given, "prefix": whole.images[:, :rows]}
        np.testing.assert_array_equal(digits.sample(5, seed=rows, **in_bytes).images, whole.images)  # type: ignore[arg-type]


def test_what_is_given_stays_and_decides_what_follows(digits: Generator) -> None:
    free = digits.sample(40, seed=0, label=1)
    others = digits.sample(40, seed=1, label=1)
    upper = others.images[:, :4, :, 0]  # in grey without a channel
    continued = digits.sample(40, seed=0, label=1, prefix=upper)
    np.testing.assert_array_equal(continued.images[:, :4, :, 0], upper)
    assert (continued.images[:, 4:] != free.images[:, 4:]).any()
    assert (continued.images[:, 4:] != others.images[:, 4:]).any()
    likely, unlikely = (digits.log_likelihood(np.concatenate([upper[..., None], lower], axis=1), label=1).mean()
                        for lower in (continued.images[:, 4:], free.images[:, 4:]))  # fmt: skip
    assert likely < unlikely - 0.1, "halves that belong together need fewer bits"


def test_one_prefix_is_for_all_and_n_follows_from_many(digits: Generator) -> None:
    first = digits.sample(3, seed=5, label=[1, 2, 3])
    one = digits.sample(3, seed=7, label=4, prefix=first.images[:1, :3])
    np.testing.assert_array_equal(one.images[:, :3], np.repeat(first.images[:1, :3], 3, axis=0))
    assert np.ptp(one.images[:, 3:], axis=0).any()
    assert len(digits.sample(seed=7, prefix=first.images[:, :3])) == 3
    again = digits.sample(3, seed=7, label=4, prefix=np.repeat(first.array[:1, :, :3], 3, axis=0))
    np.testing.assert_array_equal(again.array, one.array)


def test_rows_are_taken_to_the_nearest_level(digits: Generator) -> None:
    whole = digits.sample(2, seed=2, label=0)
    noise = np.random.default_rng(0).uniform(-0.06, 0.06, whole.array[:, :, :2].shape)  # levels lie 1 / 8 apart
    near = np.clip(whole.array[:, :, :2] + noise, -1, 1)
    np.testing.assert_array_equal(digits.sample(2, seed=2, label=0, prefix=near).array, whole.array)


def test_steps_are_rows_that_are_drawn(digits: Generator) -> None:
    heard: list[tuple[int, int, float]] = []

    def listen(step: Any) -> bool:
        heard.append((step.step, step.num_steps, step.timestep))
        return len(heard) == 2

    prefix = digits.sample(1, seed=0, label=8).array[:, :, :5]
    samples = digits.sample(1, seed=0, label=8, prefix=prefix, callback_on_step_end=listen)
    assert heard == [(0, 3, 5.0), (1, 3, 6.0)]
    assert samples.stopped
    np.testing.assert_array_equal(samples.array[:, :, :5], prefix)
    assert (samples.array[:, :, 7:] == -1).all()


def test_settings_tell_of_a_prefix_and_want_it_again(digits: Generator) -> None:
    prefix = digits.sample(1, seed=0, label=8).array[:, :, :5]
    first = digits.sample(2, seed=4, label=8, prefix=prefix)
    assert first.settings["prefix"] == "given"
    assert "prefix" not in digits.sample(2, seed=4, label=8).settings
    with pytest.raises(InputError, match="drawn from prefix; pass prefix too"):
        digits.sample(settings=first.settings)
    np.testing.assert_array_equal(digits.sample(settings=first.settings, prefix=prefix).array, first.array)


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (np.zeros((2, 4, 8), np.uint8), "one prefix, or one for each of the 3 samples, got 2"),
        (np.zeros((1, 8, 8), np.uint8), "1 to 7 upper rows of images, 8 pixels wide, got 8 rows of 8"),
        (np.zeros((1, 4, 7), np.uint8), "got 4 rows of 7"),
        (np.zeros((1, 1, 9, 8), np.float32), "got 9 rows of 8"),
        (np.zeros((1, 0, 8), np.uint8), "at least one image with pixels"),
        (np.zeros((0, 4, 8), np.uint8), "at least one image with pixels"),
        (np.zeros((1, 4, 8, 3), np.uint8), r"expected uint8 images \[n, H, W, 1\]"),
        (np.zeros((4, 8), np.uint8), r"expected uint8 images \[n, H, W, 1\]"),
        (np.full((1, 1, 4, 8), 1.5, np.float32), "values outside or NaN"),
        (np.full((1, 1, 4, 8), np.nan, np.float32), "values outside or NaN"),
        (np.zeros((1, 4, 8), np.int64), "expected images as uint8 NHWC or float NCHW"),
        ("digits.png", "images"),
    ],
)
def test_what_is_no_beginning_is_refused(digits: Generator, prefix: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as failure:
        digits.sample(3, prefix=prefix)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "autoregressive"])
def test_a_model_that_draws_as_a_whole_says_so(name: str) -> None:
    with generator(MODELS[name]()) as model, pytest.raises(InputError, match="leave prefix out"):
        model.sample(1, prefix=np.zeros((1, 1, 8), np.uint8))
