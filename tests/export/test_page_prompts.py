"""The page's scripts make of each text the tokens that Python makes of it, and say and refuse the same."""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_export.page.prompts import text_facts
from gensdk_runtime.conditions.prompt import NegativePromptCondition, PromptCondition
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.spec.conditions import NegativePromptSpec, PromptSpec
from gensdk_runtime.text.characters import Characters
from gensdk_runtime.text.vocabulary import SpecialTokens
from gensdk_runtime.text.words import Words
from support.node import MISSING, NODE, Node, node
from support.texts import CHARACTERS, NAMES, SPECIAL, WORDS, text_model

KNOWING_ALL = SpecialTokens(pad=0, begin=1, end=2)
VOCABULARIES: dict[str, Words | Characters] = {
    "words": WORDS,
    "words between spaces": Words(
        tokens=(*NAMES, "a", "cat", "don't", "straße", "ς", "σ"),
        special=SPECIAL,
        joining="spaces",
        lower_case=True,
    ),
    "words in both cases": Words(tokens=(*NAMES, "Å", "Cat", "ΣΣ", "'"), special=SPECIAL),
    "characters": CHARACTERS,
    "characters, lower case": Characters(tokens=(*NAMES, *"abσς "), special=SPECIAL, lower_case=True),
    "characters without unknown ones": Characters(
        tokens=(*NAMES[:3], *"abcdefghij '\"\n"), special=KNOWING_ALL, lower_case=True
    ),
}
RULES: dict[str, dict[str, Any]] = {
    "captions": {"length": 5, "begin": 1, "empty": True, "over_long": "cut"},
    "begin and end": {"length": 6, "begin": 1, "end": 2, "empty": True, "over_long": "cut"},
    "refusing": {"length": 4},
}
ANSWER = """
import { readFileSync } from "node:fs";
import { Prompts } from "./prompts.js";
import { Vocabulary } from "./vocabulary.js";

const facts = JSON.parse(readFileSync(new URL("facts.json", import.meta.url)));
export function answer({ name, given, count, kind, text }) {
  if (text !== undefined) return new Vocabulary(facts[name].vocabulary, facts[name].characters).encode(text);
  return new Prompts(facts[name]).rows(given, count, kind);
}
"""
CASES = [(vocabulary, rule) for vocabulary in VOCABULARIES for rule in RULES]


def condition(vocabulary: str, rule: str, *, negative: bool = False) -> PromptCondition:
    own = VOCABULARIES[vocabulary]
    spec = PromptSpec(size=own.size, rest=0, **RULES[rule])
    if negative:
        return NegativePromptCondition(NegativePromptSpec(**spec.model_dump(exclude={"kind"})), text_model(), own)
    return PromptCondition(spec, text_model(), own)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if NODE is None:
        pytest.skip(MISSING)
    static = resources.files("gensdk_export.page").joinpath("static")
    files = {name: static.joinpath(name).read_text("utf-8") for name in ("prompts.js", "vocabulary.js")}
    facts = {f"{a}/{b}": text_facts(condition(a, b), VOCABULARIES[a]) for a, b in CASES}
    files |= {"answer.js": ANSWER, "facts.json": json.dumps(facts)}
    with node(tmp_path_factory.mktemp("node"), files) as running:
        if running.unicode < tuple(map(int, unicodedata.unidata_version.split("."))):
            pytest.skip("this Node.js knows fewer characters than this Python")
        yield running


HARD = (
    "ΣσςİıIßẞﬁÅÅéE\u0301\u0301\u0345ʰ\u00ad\u200d\ufeff\x1c\x1f\x85\xa0\u2028\u3000\u180e각가각𝔸𐐀🐱"
    "‿_-'\"’.,;\\\x00\u202e\ue000\ufffe\u0378"
)
LETTERS = st.one_of(
    st.sampled_from(HARD), st.characters(exclude_categories=["Cs"]), st.sampled_from("aAbB cCdD \n\t")
)
PIECES = ["a cat sat", "don't", "A  CAT.", " ", "sat sat sat sat sat", "STRASSE straße", "ΣΣ", "dog", '"(', "x"]
TEXTS = st.one_of(
    st.text(LETTERS, max_size=12),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(LETTERS, max_size=4)), max_size=5).map(" ".join),
)


def of_python(one: PromptCondition, asked: Any, count: int) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            rows = one.check(asked, count)
        except GensdkError as failure:
            return {"error": str(failure), "name": "RangeError"}
    return {"value": {"rows": rows.tolist(), "notes": [str(each.message) for each in told]}}


@settings(deadline=None, max_examples=150)
@given(
    case=st.sampled_from(CASES),
    negative=st.booleans(),
    asked=st.one_of(TEXTS, st.lists(TEXTS, min_size=3, max_size=3), st.none()),
)
def test_tokens_notes_and_refusals_are_those_of_python(
    scripts: Node, case: tuple[str, str], negative: bool, asked: Any
) -> None:
    negative = negative and RULES[case[1]].get("empty", False)
    one = condition(*case, negative=negative)
    question = {"name": "/".join(case), "given": asked, "count": 3, "kind": one.kind}
    assert scripts.ask(question) == of_python(one, asked, 3)


@pytest.mark.parametrize("vocabulary", ["words", "words between spaces", "characters, lower case"])
def test_each_character_is_what_python_takes_it_for(scripts: Node, vocabulary: str) -> None:
    """Beside a letter, beside a capital sigma, whose lower case depends on it, and in front of a mark."""
    codes = [*range(0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE0200)]
    for part in (codes[0::2], codes[1::2]):
        text = " ".join(f"a{chr(code)}Σ{chr(code)}\u0301b" for code in part)
        expected = VOCABULARIES[vocabulary].encode(text)
        found = scripts.ask({"name": f"{vocabulary}/captions", "text": text})["value"]
        assert tuple(found["unknown"]) == expected.unknown
        assert tuple(found["tokens"]) == expected.tokens


@pytest.mark.parametrize(
    ("text", "reason"), [("\ud800", "half of a surrogate pair"), ("a" * (2**20 + 1), "at most 1048576 characters")]
)
def test_what_is_no_text_is_refused(scripts: Node, text: str, reason: str) -> None:
    case = ("words", "captions")
    answer = scripts.ask({"name": "/".join(case), "given": text, "count": 1, "kind": "prompt"})
    assert answer == of_python(condition(*case), text, 1)
    assert reason in answer["error"]


@pytest.mark.parametrize("asked", [5, {"a": 1}, ["a"], ["a", 7], [["a"], ["b"]], [None, "a"]])
def test_what_is_no_prompt_is_refused(scripts: Node, asked: Any) -> None:
    answer = scripts.ask({"name": "words/captions", "given": asked, "count": 2, "kind": "prompt"})
    assert answer["name"] == "RangeError"
    assert "expected" in answer["error"]
