"""Diffusion models that are told a text: guidance, negative prompts, and each text encoded once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.conditions.prompt import NegativePromptCondition, PromptCondition
from gensdk_runtime.errors import GensdkWarning, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.golden import Recorder
from gensdk_runtime.spec.conditions import NegativePromptSpec, PromptSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.torch_backend import torch_sessions
from support.captioned import CAPTIONS, LENGTH, WORDS, plan

FEW: dict[str, Any] = {"num_inference_steps": 3, "progress": False, "clip_sample": False}
TEXTS = ("red dragon", "green ring", "", "blue wall ring dragon")
CLOSE = 3e-6
"""Of the largest value: batches of other sizes are summed up in another order."""


def apart(a: Any, b: Any) -> float:
    """The largest difference, in units of the largest value."""
    return float(np.abs(a - b).max() / np.abs(a).max())


def generator(recorder: Recorder | None = None, **config: Any) -> Generator:
    made = plan(**config)
    sessions = torch_sessions(made)
    return Generator.from_sessions(made.model, recorder.wrap(sessions) if recorder else sessions, made.files)


@pytest.fixture(scope="module")
def model() -> Generator:
    return generator()


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++", "euler"])
def test_a_sample_is_its_own_whatever_stands_beside_it(model: Generator, scale: float, solver: Any) -> None:
    options: dict[str, Any] = {**FEW, "guidance_scale": scale, "solver": solver}
    together = model.sample(4, seed=7, prompt=list(TEXTS), negative_prompt=["", "ring", "red", ""], **options)
    split = model.sample(
        4, seed=7, batch_size=3, prompt=list(TEXTS), negative_prompt=["", "ring", "red", ""], **options
    )
    assert apart(together.array, split.array) < CLOSE
    for place, (text, away) in enumerate(zip(TEXTS, ("", "ring", "red", ""), strict=True)):
        alone = model.sample(1, seed=[(7, place)], prompt=text, negative_prompt=away, **options)
        assert apart(alone.array[0], together.array[place]) < CLOSE


def test_texts_change_what_is_drawn(model: Generator) -> None:
    drawn = [model.sample(1, seed=3, prompt=text, guidance_scale=4.0, **FEW).array for text in TEXTS]
    assert min(np.abs(a - b).max() for i, a in enumerate(drawn) for b in drawn[:i]) > 1e-3


def test_guidance_away_from_the_prompt_itself_is_none(model: Generator) -> None:
    plain = model.sample(2, seed=1, prompt="red dragon", **FEW).array
    same = model.sample(2, seed=1, prompt="red dragon", negative_prompt="red dragon", guidance_scale=5.0, **FEW)
    assert np.array_equal(plain, same.array)


def test_no_prompt_is_the_empty_one(model: Generator) -> None:
    asked = model.sample(2, seed=1, prompt="", negative_prompt="", guidance_scale=5.0, **FEW)
    left_open = model.sample(2, seed=1, **FEW)
    assert np.array_equal(asked.array, left_open.array)
    assert left_open.settings["prompts"] == left_open.settings["negative_prompts"] == ["", ""]


def test_settings_of_results_draw_them_again(model: Generator) -> None:
    first = model.sample(3, seed=5, prompt=list(TEXTS[:3]), negative_prompt="wall", guidance_scale=2.0, **FEW)
    again = model.sample(settings=first.settings, progress=False)
    assert np.array_equal(first.array, again.array)


def test_each_text_is_encoded_once() -> None:
    recorder = Recorder()
    model = generator(recorder)
    asked: dict[str, Any] = {"prompt": ["red dragon", "ring", "red dragon", "ring"], "guidance_scale": 2.0}
    model.sample(4, seed=0, batch_size=2, **asked, **FEW)
    assert Counter(call.graph for call in recorder.take())["text_encoder"] == 3  # two texts, and the empty one
    model.sample(4, seed=1, **asked, **FEW)
    assert Counter(call.graph for call in recorder.take())["text_encoder"] == 0
    model.sample(1, seed=1, prompt="wall", **FEW)  # without guidance nobody leads away from the empty text
    assert Counter(call.graph for call in recorder.take())["text_encoder"] == 1


def test_labels_and_texts_go_together() -> None:
    model = generator(classes=3)
    asked: dict[str, Any] = {"prompt": ["ring", "", "ring"], "label": [0, 1, 2], "guidance_scale": 2.0}
    together = model.sample(3, seed=2, **asked, **FEW).array
    for place, (text, label) in enumerate(zip(asked["prompt"], asked["label"], strict=True)):
        alone = model.sample(1, seed=[(2, place)], prompt=text, label=label, guidance_scale=2.0, **FEW).array
        assert apart(alone[0], together[place]) < CLOSE
    other = model.sample(3, seed=2, **{**asked, "label": [1, 2, 0]}, **FEW).array
    assert np.abs(other - together).max() > 1e-4


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"prompt": ["ring"]}, "one prompt for each of the 2"),
        ({"negative_prompt": ["ring"]}, "one negative_prompt for each of the 2"),
        ({"prompt": 5}, "expected the prompt as str"),
        ({"prompt": [[4, 99]] * 2}, "tokens from 0 to 9"),
        ({"prompt": [[4, 1, 4]] * 2}, "token 1 inside"),
    ],
)
def test_what_is_no_prompt_is_refused_in_a_line(model: Generator, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        model.sample(2, seed=0, **asked, **FEW)


def test_long_texts_are_cut_and_said(model: Generator) -> None:
    with pytest.warns(GensdkWarning, match="reads the first 4"):
        cut = model.sample(1, seed=0, prompt="red dragon ring wall blue blue", **FEW)
    whole = model.sample(1, seed=0, prompt="red dragon ring wall", **FEW)
    assert np.array_equal(cut.array, whole.array)
    with pytest.warns(GensdkWarning, match="100000 tokens"):
        model.sample(1, seed=0, prompt="red " * 100_000, **FEW)


def test_a_negative_prompt_needs_a_model_with_prompts() -> None:
    spec = NegativePromptSpec(**CAPTIONS.prompt.model_dump(exclude={"kind"}))
    made = plan().model
    for conditions in ((spec,), (CAPTIONS.prompt.model_copy(update={"rest": 2}), spec)):
        with pytest.raises(ValueError, match="negative_prompt"):
            ModelSpec.model_validate({**dict(made), "conditions": conditions})


def test_a_context_graph_needs_both_texts() -> None:
    made = plan()
    only = made.model.model_copy(update={"conditions": (CAPTIONS.prompt,)})
    with pytest.raises(ManifestError, match="prompt and negative_prompt"):
        Generator.from_sessions(only, torch_sessions(made), made.files)


TOKENS = st.lists(st.integers(3, len(WORDS) - 1), max_size=LENGTH)


@given(rows=st.lists(TOKENS, min_size=1, max_size=4), begin=st.booleans(), end=st.sampled_from([None, 0, 2]))
@settings(deadline=None, max_examples=60)
def test_rows_of_tokens_come_back_whatever_stands_around_them(
    rows: list[list[int]], begin: bool, end: int | None
) -> None:
    spec = PromptSpec(length=LENGTH + 2, size=len(WORDS), rest=0, begin=1 if begin else None, end=end, empty=begin)
    condition = PromptCondition(spec, plan_model())
    own = [row if row or spec.empty else [4] for row in rows]
    values = condition.check(own, len(own))
    assert values.shape == (len(own), LENGTH + 2)
    assert np.array_equal(condition.check(values, None), values)
    assert condition.told(values) == [row or "" for row in own]  # without a vocabulary tokens have no text
    if begin:
        away = NegativePromptCondition(NegativePromptSpec(**spec.model_dump(exclude={"kind"})), plan_model())
        assert np.array_equal(away.check(None, 2), condition.check([[], []], 2))


def plan_model() -> ModelSpec:
    return plan().model
