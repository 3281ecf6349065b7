"""Requests are kept between calls, and change nothing but the time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan import request

BUNDLE = "digits-ddpm"
OPTIONS: list[dict[str, Any]] = [
    {},
    {"label": 3},
    {"label": "3"},
    {"label": [3, 3]},
    {"label": 3, "guidance_scale": 2.0},
    {"label": 3, "guidance_scale": 2},
    {"num_inference_steps": 4, "eta": 0.5},
    {"batch_size": 1},
    {"output_type": "uint8"},
    {"callback_on_step_end": lambda step: step.step == 1},
]


def load() -> Generator:
    return Generator.load(BUNDLE, backend="onnxruntime", threads=1)


def test_a_kept_request_gives_what_a_new_one_gives() -> None:
    """In any order: two rounds on one generator against a generator for each."""
    with load() as kept:
        for number in range(2):
            for options in OPTIONS:
                given = {"num_inference_steps": 3, **options}
                again = kept.sample(2, seed=number, **given)
                with load() as fresh:
                    first = fresh.sample(2, seed=number, **given)
                np.testing.assert_array_equal(again.data, first.data)
                np.testing.assert_array_equal(again.labels, first.labels)
                assert again.settings == first.settings
                assert again.stopped == first.stopped
        assert 0 < len(kept._sampling.requests._kept) <= request.MAX_KEPT


def test_results_are_the_callers_own() -> None:
    with load() as kept:
        first = kept.sample(2, seed=0, label=1, num_inference_steps=2)
        assert first.labels is not None
        first.labels[:] = 7
        first.settings["seeds"].clear()
        first.settings.clear()
        again = kept.sample(2, seed=0, label=1, num_inference_steps=2)
    assert again.labels is not None
    assert again.labels.tolist() == [1, 1]
    assert again.settings["num_inference_steps"] == 2
    assert len(again.settings["seeds"]) == 2


@pytest.mark.parametrize(
    "given",
    [
        {"n": 1.0},
        {"n": "1"},  # but n=True is an int, as Python counts
        *({"n": 1, "num_inference_steps": number} for number in (True, 1.0, "1")),
    ],
)
def test_what_is_equal_to_a_kept_argument_is_checked_all_the_same(given: dict[str, Any]) -> None:
    with load() as kept:
        kept.sample(1, seed=0, num_inference_steps=1)
        with pytest.raises(InputError):
            kept.sample(seed=0, **given)


def test_what_is_kept_is_bounded() -> None:
    with load() as kept:
        for n in range(1, request.MAX_KEPT + 3):
            kept._sampling.requests.get(request.Asked(n), {}, {})
        assert len(kept._sampling.requests._kept) <= request.MAX_KEPT


def test_a_closed_generator_has_no_requests_left() -> None:
    kept = load()
    kept.sample(1, seed=0, num_inference_steps=1)
    kept.close()
    with pytest.raises(BackendError, match="closed"):
        kept.sample(1, seed=0, num_inference_steps=1)
