"""Vocabularies: what goes to tokens comes back, and what is hostile is refused in one line."""

from __future__ import annotations

import json
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError, IntegrityError
from gensdk_runtime.text.characters import Characters
from gensdk_runtime.text.lines import as_line, from_line, lines_of
from gensdk_runtime.text.tokenizers_file import TokenizersVocabulary, tokenizers_vocabulary
from gensdk_runtime.text.vocabulary import (
    MAX_BYTES,
    MAX_TEXT,
    SpecialTokens,
    read_vocabulary,
    vocabulary_bytes,
    vocabulary_kinds,
)
from gensdk_runtime.text.words import Words, join_words, split_words
from support.refusals import refusal_of
from support.texts import CHARACTERS, NAMES, SPECIAL, VOCABULARIES, WORDS, written

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
printable_words = st.lists(
    st.text(st.characters(exclude_categories=("C", "M", "Z")), min_size=1, max_size=6), min_size=1, max_size=12
)


@given(texts)
def test_splitting_what_was_joined_changes_nothing(text: str) -> None:
    pieces = split_words(unicodedata.normalize("NFC", text))
    assert split_words(join_words(pieces)) == pieces
    assert not any(piece.isspace() for piece in pieces)


@given(st.data(), printable_words, st.booleans())
def test_words_come_back(data: st.DataObject, found: list[str], lower: bool) -> None:
    pieces = [piece for text in found for piece in split_words(unicodedata.normalize("NFC", text))]
    plain = Words(tokens=("<pad>", "<end>"), special=SpecialTokens(pad=0, end=1), lower_case=lower)
    usable = sorted(
        {piece for piece in map(plain.normal, pieces) if not plain.problem(piece)} - {"<pad>", "<end>"}
    )
    words = Words(tokens=("<pad>", "<end>", *usable), special=plain.special, lower_case=lower)
    drawn = data.draw(st.lists(st.integers(2, max(2, words.size - 1)), max_size=8)) if usable else []
    text = words.decode(drawn)
    assert words.encode(text).tokens == tuple(drawn)
    assert words.decode([*drawn, 1, *drawn]) == words.decode([0, *drawn, 0, 0]) == text


@given(st.data(), st.sets(st.characters(exclude_categories=("C", "M", "Z")), min_size=1, max_size=30))
def test_characters_come_back(data: st.DataObject, found: set[str]) -> None:
    single = {unicodedata.normalize("NFC", character) for character in found}
    tokens = sorted({each for each in single if len(each) == 1} | {" "})
    characters = Characters(tokens=("<pad>", "<end>", *tokens), special=SpecialTokens(pad=0, end=1))
    drawn = data.draw(st.lists(st.integers(2, characters.size - 1), max_size=20))
    text = characters.decode(drawn)
    assert unicodedata.normalize("NFC", text) != text or characters.encode(text).tokens == tuple(drawn)
    assert len(text) == len(drawn)


@given(texts)
def test_a_line_gives_its_text_back(text: str) -> None:
    line = as_line(text)
    assert from_line(line) == text
    assert not {"\n", "\r", "\t"} & set(line)


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(("", "\ufeff")), st.sampled_from(("\n", "\r\n")))
def test_a_file_of_lines_gives_its_texts_back(said: list[str], mark: str, end: str) -> None:
    said = [said[0].lstrip("\ufeff"), *said[1:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        path.write_bytes((mark + "".join(as_line(text) + end for text in said)).encode())
        assert lines_of(path) == said


def test_rules_by_example() -> None:
    sentence = 'He said "don\'t" (twice): well-known, e.g. 3.5 % of it!'
    pieces = split_words(sentence)
    assert pieces[:8] == ["He", "said", '"', "don", "'", "t", '"', "("]
    assert join_words(pieces) == 'He said "don\'t" (twice): well-known, e. g. 3. 5% of it!'
    assert WORDS.encode("A CAT sat.").tokens == (4, 5, 6, 10)
    assert WORDS.decode([1, 4, 5, 6, 10, 2, 9, 9]) == "a cat sat."
    assert WORDS.decode([4, 3]) == "a <unknown>"
    assert WORDS.encode("a dog sat").unknown == ("dog",)
    assert WORDS.encode("<end>").unknown == ("<", "end", ">"), "a text can't spell a special token"
    assert CHARACTERS.encode("e\u0301").tokens == CHARACTERS.encode("é").tokens, "composed"
    spaced = Words(tokens=("no", "don't", "."), joining="spaces")
    assert spaced.decode(spaced.encode(" don't   .").tokens) == "don't ."


def test_what_is_not_known_is_refused_where_nothing_stands_for_it() -> None:
    words = Words(tokens=("a", "b"))
    with pytest.raises(InputError, match="does not know 'c', and has no token"):
        words.encode("a c b")
    for wrong, reason in (
        (b"a", "got bytes"),
        ("\ud800", "half of a surrogate"),
        ("a" * (MAX_TEXT + 1), "at most"),
    ):
        with pytest.raises(InputError, match=reason):
            words.encode(wrong)  # type: ignore[arg-type]
    for token in (-1, 2):
        with pytest.raises(InputError, match="expected tokens from 0 to 1"):
            words.decode([token])


@pytest.mark.parametrize("kind", sorted(VOCABULARIES))
def test_a_file_gives_its_vocabulary_back(kind: str) -> None:
    vocabulary = VOCABULARIES[kind]
    read = read_vocabulary(vocabulary_bytes(vocabulary), what="x")
    assert read == vocabulary
    assert type(read) is type(vocabulary)
    assert read.rule
    assert [read.surface(number) for number in range(4)] == list(NAMES)


def test_each_kind_is_tested() -> None:
    assert set(vocabulary_kinds()) == {*VOCABULARIES, "tokenizers"}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not readable|Invalid JSON"),
    "no JSON": (b"\x80abc", "Invalid JSON|not readable"),
    "no object": (b"[1]", "object|dict"),
    "deep": (b"[" * 100_000, "Invalid JSON|not readable|recursion"),
    "other kind": (written(kind="emoji\x1b[2J"), "no vocabulary of the kind"),
    "kind is a number": (written(kind=7), "kind"),
    "newer": (written(schema_version=2), "schema_version"),
    "unknown key": (written(tokes=[]), "unknown key 'tokes'; did you mean 'tokens'"),
    "no tokens": (written(tokens=[]), "tokens"),
    "one token": (written(tokens=["a"], special={}), "tokens"),
    "twice": (written(tokens=[*NAMES, "a", "a"]), "'a' stands twice"),
    "a number": (written(tokens=[*NAMES, 7]), "tokens"),
    "empty token": (written(tokens=[*NAMES, ""]), "tokens"),
    "long token": (written(tokens=[*NAMES, "a" * 257]), "tokens"),
    "escape": (written(tokens=[*NAMES, "\x1b[31m"]), "not printable"),
    "bell": (written(tokens=["\a", *NAMES[1:], "a"]), "not printable"),
    "bidi": (written(tokens=[*NAMES, "a\u202e"]), "not printable"),
    "zero width": (written(tokens=[*NAMES, "a\u200b"]), "not printable"),
    "line break": (written(tokens=[*NAMES, "\n"]), "not printable"),
    "half a pair": (written(tokens=[*NAMES, "\ud800"]), "surrogate|readable|Invalid"),
    "two words": (written(tokens=[*NAMES, "a b"]), "more than one word"),
    "a mark in it": (written(tokens=[*NAMES, "a."]), "more than one word"),
    "a combining mark": (written(tokens=[*NAMES, "\u0301a"]), "a mark that belongs"),
    "upper case": (written(tokens=[*NAMES, "A"]), "lower case"),
    "decomposed": (written(tokens=[*NAMES, "e\u0301"]), "as texts are looked up"),
    "special beyond": (written(special={"end": 99}), "number 99 of"),
    "special below": (written(special={"end": -1}), "end"),
    "two are one": (written(special={"end": 1, "pad": 1}), "two special tokens are one"),
    "joining": (written(joining="glue"), "joining"),
    "two characters": (
        json.dumps({"kind": "characters", "tokens": ["a", "bc"]}).encode(),
        "is no single character",
    ),
    "bytes": (b" " * (MAX_BYTES + 1), "at most"),
    "a tokenizer that is none": (b'{"kind": "tokenizers", "tokenizer": {}}', "expected a tokenizer"),
    "a pattern": (
        json.dumps(
            {
                "kind": "tokenizers",
                "tokenizer": {
                    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
                    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}},
                },
            }
        ).encode(),
        "regular expression",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_vocabularies_are_refused_in_one_line(name: str) -> None:
    data, reason = HOSTILE[name]
    said = refusal_of(lambda: read_vocabulary(data, what="x.gsdk: 'vocabulary.json'"), IntegrityError, what=name)
    assert said.startswith("x.gsdk: 'vocabulary.json'")
    assert pytest.approx(len(said), abs=600) == 0
    with pytest.raises(IntegrityError, match=reason):
        read_vocabulary(data, what="x")


@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert refusal_of(lambda: read_vocabulary(data, what="x"), IntegrityError)


@given(st.sampled_from(sorted(HOSTILE)), st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(name: str, at: int, value: int) -> None:
    data = bytearray(vocabulary_bytes(WORDS))
    data[at % len(data)] = value
    said = refusal_of(lambda: read_vocabulary(bytes(data), what="x"), IntegrityError)
    assert said.startswith("x: ") or read_vocabulary(bytes(data), what="x").size >= 2


def trained(**extra: Any) -> dict[str, Any]:
    """A byte-level BPE that the library itself has trained."""
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a cat sat on a mat", "the cat, the mat"] * 20, trainer)
    return {**json.loads(tokenizer.to_str()), **extra}


def test_a_vocabulary_of_the_library() -> None:
    vocabulary = tokenizers_vocabulary(json.dumps(trained()), what="x", pad="<pad>", end="<end>")
    again = read_vocabulary(vocabulary_bytes(vocabulary), what="x")
    assert isinstance(again, TokenizersVocabulary)
    assert again.special == SpecialTokens(pad=0, end=1)
    for text in ("the cat sat", "  two  spaces\nand a line", "é 猫", "don't."):
        tokens = again.encode(text).tokens
        assert again.decode([*tokens, 1, 5]) == text
    assert max(again.encode("the cat").tokens) < again.size
    escape = again.encode("\x1b[2J").tokens
    assert again.decode(escape) == "\ufffd[2J", "what a terminal would obey"
    with pytest.raises(InputError, match="spells a special token"):
        again.encode("a <end> b")
    with pytest.raises(InputError, match="has no token '<stop>'"):
        tokenizers_vocabulary(json.dumps(trained()), what="x", end="<stop>")
    assert again.rule == "tokenizers, BPE"


LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BYTES = {"type": "ByteLevel"}


@pytest.mark.parametrize("place", ["normalizer", "decoder"])
@pytest.mark.parametrize(
    "step",
    [
        LONGER,
        {"type": "Sequence", "normalizers": [LONGER] * 40, "decoders": [LONGER] * 40},
        {"type": "Sequence", "normalizers": [BYTES] * 40, "decoders": [BYTES] * 40},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 40, "decoders": [{"type": "Fuse"}] * 40},
        {"type": "Prepend", "prepend": "a" * 300},
        {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"},
    ],
)
def test_a_tokenizer_can_t_make_texts_grow(place: str, step: dict[str, Any]) -> None:
    """Forty steps that each double a text would fill any memory."""
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    data = json.dumps({"kind": "tokenizers", "tokenizer": {"model": model, place: step}}).encode()
    said = refusal_of(lambda: read_vocabulary(data, what="x"), IntegrityError)
    assert re.search("longer|over 256 characters|over 32 steps|regular expression", said)


@pytest.mark.parametrize(
    "broken",
    [
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 7}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["x", "y"]]}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": "x"}, "merges": []}},
        {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 1}}},
        {"decoder": {"type": "Nothing"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    ],
)
def test_what_the_library_can_t_read_is_refused(broken: dict[str, Any]) -> None:
    data = json.dumps({"kind": "tokenizers", "tokenizer": trained(**broken)}).encode()
    assert refusal_of(lambda: read_vocabulary(data, what="x").size, IntegrityError).startswith("vocabulary: ")


def test_specials_are_no_text() -> None:
    assert SPECIAL.silent == {0, 1, 2}
    assert WORDS.decode([0, 0, 1, 2, 4]) == ""
