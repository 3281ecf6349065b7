"""What a page must know to turn texts into tokens as Python does: the vocabulary, and what each character is."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import Any

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.conditions.prompt import PromptCondition
from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.text.characters import Characters
from gensdk_runtime.text.tokens import vocabulary_in
from gensdk_runtime.text.words import Words, in_word

FLAGS: tuple[Callable[[str], bool], ...] = (
    lambda character: unicodedata.category(character) != "Cn",
    in_word,
    str.isspace,
    str.isprintable,
)
"""What is told of a character, from the lowest bit on: this Python knows it, words are made of it, it is white
space, it is printable."""


def prompt_facts(bundle: Bundle) -> dict[str, Any] | None:
    """What ``page.json`` says of prompts; None for a model without.

    :class:`InputError` for a vocabulary whose rule the page's scripts don't have.
    """
    model = bundle.manifest.model
    spec = model.condition("prompt")
    if not isinstance(spec, PromptSpec):
        return None
    vocabulary = vocabulary_in(bundle, spec.vocabulary, spec.size)
    if not isinstance(vocabulary, Words | Characters):
        raise InputError(
            f"model {model.name!r}: a page reads texts by words or by characters, got a vocabulary of the kind "
            f"{vocabulary.kind!r}; use gensdk sample"
        )
    return text_facts(PromptCondition(spec, model).with_files(bundle), vocabulary)


def text_facts(condition: PromptCondition, vocabulary: Words | Characters) -> dict[str, Any]:
    """How the texts of `condition` become rows of tokens; for ``prompts.js``."""
    spec = condition.spec
    return {
        "model": condition.model.name,
        "length": spec.length,
        "own_length": spec.own_length,
        "begin": spec.begin,
        "end": spec.end,
        "rest": spec.rest,
        "empty": spec.empty,
        "over_long": spec.over_long,
        "example": (condition.example or "").strip('"'),
        "vocabulary": vocabulary.model_dump(mode="json"),
        "unicode": unicodedata.unidata_version,
        "characters": character_runs(),
    }


@cache
def character_runs() -> str:
    """Runs of characters of the same :data:`FLAGS`, from U+0000 on: ``length:flags``, in base 36 and 16."""
    flags = (_flags(chr(code)) for code in range(sys.maxunicode + 1))
    return " ".join(f"{_base_36(sum(1 for _ in run))}:{value:x}" for value, run in groupby(flags))


def _flags(character: str) -> int:
    return sum(says(character) << place for place, says in enumerate(FLAGS))


def _base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
