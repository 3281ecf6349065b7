"""Texts that samples are made from: what is taken, what is refused before it takes memory, and what is told."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.bundles.model_files import HeldFiles
from gensdk_runtime.conditions.base import conditions_of, examples_of, required_examples
from gensdk_runtime.conditions.prompt import PromptCondition
from gensdk_runtime.errors import BundleError, GensdkWarning, InputError, ManifestError
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.kinds import CONDITIONS
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.text.vocabulary import SpecialTokens, Vocabulary, vocabulary_bytes
from gensdk_runtime.text.words import Words
from support.models import feedforward_model
from support.prompted import SOURCE, Prompted, prompt_spec
from support.texts import CHARACTERS, VOCABULARIES, WORDS, files_of

MODEL = Prompted().model()


def prompt(vocabulary: Vocabulary | None = WORDS, **changes: Any) -> PromptCondition:
    bare = PromptCondition(prompt_spec(vocabulary or WORDS, **changes), MODEL)
    return bare if vocabulary is None else bare.with_files(HeldFiles(files_of(vocabulary)))


def test_texts_become_tokens_with_rest_behind_them() -> None:
    texts = ["A cat sat.", "a"]
    rows = [[4, 5, 6, 10, 0], [4, 0, 0, 0, 0]]
    for given in (
        texts,
        tuple(texts),
        np.array(texts),
        np.array(texts, object),
        rows,
        [rows[0][:4], rows[1][:1]],
        [texts[0], rows[1]],
        [np.array(rows[0], np.int32), "a"],
        np.array(rows),
        np.array(rows, np.uint8),
    ):
        found = prompt().check(given, 2)
        assert found.dtype == np.int64
        assert found.tolist() == rows
        assert prompt().check(given, None).tolist() == rows


def test_one_text_is_for_all_samples_and_takes_the_memory_of_one() -> None:
    assert prompt().check("a", 3).tolist() == [[4, 0, 0, 0, 0]] * 3
    assert prompt().check("a", None).shape == (1, SOURCE)
    assert prompt().check("a", 10_000_000).strides[0] == 0


def test_tokens_need_no_vocabulary_and_texts_do() -> None:
    bare = prompt(None)
    assert bare.check([[4, 5]], 1).tolist() == [[4, 5, 0, 0, 0]]
    with pytest.raises(InputError, match=r"no 'vocabulary\.json' at hand"):
        bare.check("a", 1)


def test_what_is_unknown_is_told_each_time() -> None:
    for _ in range(2):
        with pytest.warns(GensdkWarning, match=r"2 of 4 tokens are unknown to the model \('dog', 'zebra'\)"):
            assert prompt().check(["a dog", "zebra sat"], 2).tolist()[0] == [4, 3, 0, 0, 0]
    closed = Words(tokens=("<pad>", "a", "b"), special=SpecialTokens(pad=0))
    with pytest.raises(InputError, match="the vocabulary does not know 'c'"):
        prompt(closed).check("a c", 1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, r"is made from a text: pass prompt, one for all samples or one for each"),
        ("", "the prompt is empty; expected 1 to 5 tokens"),
        (" \n\t ", "the prompt is empty"),
        ("a a a a a a", "the prompt has 6 tokens, the model takes at most 5; shorten it"),
        ("a " * 10**6, "at most 1048576 characters|takes at most 5"),
        ("a" * 10**7, "expected a text of at most 1048576 characters, got 10000000"),
        ("\ud800", "half of a surrogate pair"),
        ([""], "prompt 0 is empty"),
        (["a a a a a a"], "prompt 0 has 6 tokens"),
        ([], "expected at least one prompt, got none"),
        (np.zeros((0, 5), int), "expected at least one prompt"),
        (["a", "a"], "expected one prompt for each of the 1 samples, got 2"),
        (np.full((2, 5), 4), "expected one prompt for each of the 1 samples, got 2"),
        (b"a", "expected the prompt as str, .* got bytes"),
        ([b"a"], "expected prompt 0 as str, .* got bytes"),
        ([None], "expected prompt 0 as str, .* got NoneType"),
        ([3], "expected prompt 0 as str, .* got int"),
        ([np.array(3)], r"expected prompt 0 as str, .* got int64 \[\]"),
        (3, "expected the prompt as str, .* got int$"),
        ({"a": 1}, "got dict"),
        ({"a"}, "got set"),
        (object(), "expected the prompt as str, .* got object"),
        (np.array("a"), r"expected the prompt as str, .* got <U1 \[\]"),
        (np.array([b"a"]), r"expected the prompt as str, .* got \|S1 \[1\]"),
        (float("nan"), "got float$"),
        (np.full((1, 5), np.nan), r"expected prompt 0 as str, .* got float64 \[5\]"),
        ([[0.5, 1.0]], "got float64"),
        ([[True, False]], "got bool"),
        ([["a", "b"]], r"expected prompt 0 as str, .* got <U1 \[2\]"),
        ([[4, [5]]], "expected prompt 0 as an array, got rows of several lengths; fill them up"),
        ([[[4]]], r"got int64 \[1, 1\]"),
        (np.zeros((2, 2, 2), int), r"got int64 \[2, 2, 2\]"),
        (np.array([4, 5]), r"got int64 \[2\]"),
        ([[]], "got float64|is empty"),
        (np.zeros((1, 0), int), "prompt 0 is empty"),
        ([[0, 0, 0]], "prompt 0 is empty"),
        ([[4] * 6], "prompt 0 has 6 tokens, the model takes at most 5"),
        ([[4] * 100_000], "prompt 0 has 100000 tokens"),
        ([[14]], "expected tokens from 0 to 13"),
        ([[-1]], "expected tokens from 0 to 13"),
        (np.full((1, 2), 2**63 + 5, np.uint64), "expected tokens from 0 to 13"),
        ([[4, 0, 5]], "prompt 0 has token 0 inside, which stands behind texts"),
        ([[0, 4]], "prompt 0 has token 0 inside"),
    ],
)
def test_what_is_no_prompt_is_refused_in_one_line(given: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as failure:
        prompt().check(given, 1)
    assert str(failure.value).isprintable()


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_what_is_told_is_taken_back_as_the_same_tokens(name: str) -> None:
    condition = prompt(VOCABULARIES[name], length=12)
    texts = {"words": "a cat, (don't) sat.", "characters": "bad cab\n\\é"}
    tokens = np.concatenate([condition.examples(30), condition.check(texts[name], 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = condition.told(tokens)
        np.testing.assert_array_equal(condition.check(json.loads(json.dumps(told)), len(tokens)), tokens)
    assert {type(each) for each in told} == {str, list}
    assert prompt(None, length=12).told(tokens) == [row[row != 0].tolist() for row in tokens]
    assert prompt().told(prompt().check(["A CAT", [4, 5]], 2)) == ["a cat"] * 2


@pytest.mark.parametrize("length", [1, 2, 3, 5, 10, 64])
def test_examples_are_texts_of_different_lengths_from_every_place_on(length: int) -> None:
    condition = prompt(None, length=length, rest=6)
    rows = condition.examples(12)
    np.testing.assert_array_equal(condition.check(rows, 12), rows)
    counts = (rows != 6).sum(axis=1)
    assert counts[0] == length
    assert counts.min() >= 1
    assert len(set(counts.tolist())) >= min(length, 3)
    for first in (1, 7):
        np.testing.assert_array_equal(condition.examples(3, first), rows[first : first + 3])
    asked = examples_of(MODEL, 4)
    assert asked.keys() == {"prompt", "label"}
    assert required_examples(MODEL, 4).keys() == {"prompt"}


def test_a_card_shows_a_text_that_the_vocabulary_knows() -> None:
    assert prompt().example == '"a cat sat don t"'
    assert prompt(CHARACTERS).example == '"abcd"'
    assert prompt(None).example == '"a text"'
    marks = Words(tokens=("<pad>", "$", '"'), special=SpecialTokens(pad=0))
    assert prompt(marks).example == '"a text"'
    assert prompt().in_words == "prompts of up to 5 of 14 tokens"
    assert prompt().notes == ("prompt: 1 to 5 tokens, of 14 in vocabulary.json",)


@pytest.mark.parametrize(
    ("vocabulary", "changes", "reason"),
    [
        (CHARACTERS, {"size": 14}, "has 12 tokens, the manifest says 14"),
        (WORDS, {"rest": 4}, "token 4, which stands behind a prompt, is one that texts have"),
        (WORDS, {"rest": 3}, "token 3, which stands behind a prompt"),
        (WORDS, {"vocabulary": "other.json"}, r"expected 'other\.json'"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    vocabulary: Vocabulary, changes: dict[str, Any], reason: str
) -> None:
    bare = PromptCondition(prompt_spec(vocabulary, **changes), MODEL)
    with pytest.raises((BundleError, InputError), match=reason) as failure:
        bare.with_files(HeldFiles(files_of(vocabulary)))
    assert str(failure.value).isprintable()


def test_any_token_that_says_nothing_may_stand_behind() -> None:
    ended = Words(tokens=("a", "b", "<end>"), special=SpecialTokens(end=2))
    files = HeldFiles({"words.json": vocabulary_bytes(ended)})
    spec = PromptSpec(length=3, size=3, rest=2, vocabulary="words.json")
    assert PromptCondition(spec, MODEL).with_files(files).check("b a", 1).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 0},
        {"length": 2**20 + 1},
        {"size": 1},
        {"size": 2**20 + 1},
        {"rest": 14},
        {"rest": -1},
        {"vocabulary": "../x"},
        {"vocabulary": "/etc/passwd"},
        {"unknown": 1},
        {"length": 2.5},
    ],
)
def test_manifests_that_no_prompt_can_have(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError) as failure:
        PromptSpec.from_dict({**prompt_spec().model_dump(), **changes}, what="prompt", error=ManifestError)
    assert str(failure.value).isprintable()


def test_a_model_that_never_looks_at_its_prompt_is_refused() -> None:
    data = {**feedforward_model().model_dump(mode="json"), "conditions": [prompt_spec().model_dump()]}
    with pytest.raises(ManifestError, match="has a graph with an input 'prompt'"):
        ModelSpec.from_dict(data, what="model", error=ManifestError)


def test_a_model_names_the_files_of_its_conditions() -> None:
    assert "prompt" in CONDITIONS.names
    assert conditions_of(MODEL)[0].in_results
    assert MODEL.files == ("vocabulary.json",)
    assert feedforward_model().files == ()
