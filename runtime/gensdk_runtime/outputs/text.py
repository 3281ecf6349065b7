"""Text: drawn as tokens, said by the vocabulary of the bundle, written as lines, JSON lines, arrays or files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from gensdk_runtime.arguments import any_array, check_path
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.errors import BackendError, InputError, tell
from gensdk_runtime.media.images import SUFFIXES, encode_image, write_atomically
from gensdk_runtime.outputs.base import (
    AS_IT_IS,
    Arrangement,
    Array,
    Drawn,
    Output,
    Uint8,
    register_output,
)
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.text.lines import as_line, lines_of
from gensdk_runtime.text.page import page_of
from gensdk_runtime.text.tokens import (
    Int64,
    at_hand,
    check_range,
    entries_of,
    filled,
    none_such,
    tell_unknown,
    vocabulary_in,
)
from gensdk_runtime.text.vocabulary import Encoded, SpecialTokens, Vocabulary

NUMBERED = re.compile(r"[0-9]{5,}\.txt")


@register_output
class TextOutput(Output[TextSpec]):
    """int64 [n, length], tokens; as an application takes them, a list of str."""

    Spec: ClassVar = TextSpec
    plural = "texts"
    suffixes = (".txt", ".jsonl", ".npz", *SUFFIXES)
    default_file = None

    def __init__(self, spec: TextSpec, vocabulary: Vocabulary | None = None) -> None:
        super().__init__(spec)
        self._vocabulary = vocabulary

    def with_files(self, files: ModelFiles) -> Self:
        """With its vocabulary."""
        return type(self)(self.spec, vocabulary_in(files, self.spec.vocabulary, self.spec.vocabulary_size))

    @property
    def vocabulary(self) -> Vocabulary:
        """What the tokens say; :class:`InputError` where the generator was made without it."""
        return at_hand(self._vocabulary, self.spec.vocabulary)

    def own_form(self, samples: Drawn) -> list[str]:
        """What the tokens say, a str each."""
        lengths = [samples.data.shape[1]] * len(samples) if samples.lengths is None else samples.lengths.tolist()
        rows = zip(samples.data, lengths, strict=True)
        return [self._said(row[:length].tolist()) for row, length in rows]

    def _said(self, tokens: list[int]) -> str:
        wrong = next((token for token in tokens if not 0 <= token < self.spec.vocabulary_size), None)
        if wrong is not None:
            raise BackendError(
                f"the graph gave token {wrong}, and its vocabulary has {self.spec.vocabulary_size}; export the "
                "model "
                "again"
            )
        return self.vocabulary.decode(tokens)

    def given(self, values: Any, *, levels: int | None = None) -> Int64:
        """Whole texts, str, as tokens int64 [n, length]: each with its end, filled up with pad; or such tokens.

        A text of `length` tokens has no end, as one that is drawn up to there has none. Pieces that the vocabulary
        does not know are counted and told. Raises :class:`InputError` for what is no text, for one too long, and
        where the vocabulary has no end, for one too short.
        """
        rows = [
            self._with_end(each.tokens, number) if isinstance(each, Encoded) else each
            for number, each in enumerate(self._entries(values, least=self.spec.length))
        ]
        return filled(rows, self.spec.length, self._fill or 0)

    @property
    def _special(self) -> SpecialTokens:
        """None of them is known where the vocabulary is not at hand."""
        return SpecialTokens() if self._vocabulary is None else self._vocabulary.special

    @property
    def _fill(self) -> int | None:
        """What stands behind texts that have an end; None where nothing can."""
        return self._special.end if self._special.pad is None else self._special.pad

    def _with_end(self, tokens: Sequence[int], number: int) -> Sequence[int]:
        """All tokens of text `number`: with an end where there is one, and room for it."""
        end, fill, length = self._special.end, self._fill, self.spec.length
        if len(tokens) > length or (len(tokens) < length and fill is None):
            bound = "at most" if fill is not None else "exactly"
            raise InputError(
                f"text {number} has {len(tokens)} tokens, the model takes {bound} {length}; "
                f"{'shorten it' if len(tokens) > length else 'make it longer'}"
            )
        return tokens if end is None or len(tokens) == length else (*tokens, end)

    def check_like(self, other: Output[Any]) -> None:
        """The same tokens say the same."""
        super().check_like(other)
        theirs = other._vocabulary if isinstance(other, TextOutput) else None
        if theirs is not None and self._vocabulary is not None and theirs != self._vocabulary:
            raise InputError("expected texts of this model's vocabulary, got others; pass their texts")

    def prefix_of(self, path: str | Path, length: int | None = None) -> list[str]:
        """The texts of a file, one a line as :meth:`save` writes them: how samples begin."""
        if length is not None:
            raise InputError("a text begins with all that is given; leave the length of the prefix out")
        return lines_of(check_path(path, "prefix"))

    def beginning(self, values: Any) -> tuple[Int64, Int64]:
        """The first part of texts as (tokens int64 [n, longest], lengths int64 [n]), without an end, for a model
        to go on with, from str or from tokens int64 [n, longest], shorter ones filled up with pad.
        :class:`InputError` as for :meth:`given`; a text may be empty, and leaves room for a token."""
        rows = [
            each.tokens if isinstance(each, Encoded) else self._before_pads(each, number)
            for number, each in enumerate(self._entries(values, least=0))
        ]
        lengths = np.array([len(row) for row in rows], np.int64)
        longest = int(lengths.max())
        if longest >= self.spec.length:
            raise InputError(
                f"text {int(lengths.argmax())} has {longest} tokens, which leaves a model of {self.spec.length} "
                "nothing to add; shorten it"
            )
        return filled(rows, longest, self._special.pad or 0), lengths

    def _before_pads(self, tokens: Int64, number: int) -> Int64:
        """The tokens of text `number` before its pads; :class:`InputError` for a begin or a pad inside."""
        begin, pad = self._special.begin, self._special.pad
        held = np.flatnonzero(tokens != (-1 if pad is None else pad))
        count = int(held[-1]) + 1 if len(held) else 0
        if len(held) < count or (tokens[:count] == (-1 if begin is None else begin)).any():
            raise InputError(f"text {number} has a token inside that stands before or behind texts; take it out")
        return tokens[:count]

    def _entries(self, values: Any, *, least: int) -> list[Encoded | Int64]:
        """Each text as the vocabulary has it, or its `least` to `length` tokens int64."""
        length = self.spec.length
        count = f"{length}" if least == length else f"up to {length - 1}"
        wanted = f"a text as str, a list of them, or tokens int64 [n, {count}]"
        entries = entries_of(values, wanted)
        if isinstance(entries, np.ndarray):
            if not len(entries):
                raise none_such(entries, wanted)
            self._check_tokens(entries, entries.shape[1], least, wanted)
            return list(entries.astype(np.int64))
        if not len(entries):
            raise InputError(f"expected {wanted}, got none")
        found: list[Encoded | Int64] = []
        for number, entry in enumerate(entries):
            if isinstance(entry, str):
                found.append(self.vocabulary.encode(entry))
                continue
            one = f"text {number} as str, or its tokens int64 [{count}]"
            if not isinstance(entry, list | tuple) and not hasattr(type(entry), "__array__"):
                raise none_such(entry, one)
            empty = isinstance(entry, list | tuple) and not entry  # which NumPy takes for floats
            row = np.zeros(0, np.int64) if empty else any_array(entry, f"text {number}")
            self._check_tokens(row, len(row) if row.ndim == 1 else -1, least, one)
            found.append(row.astype(np.int64))
        tell_unknown([each for each in found if isinstance(each, Encoded)])
        return found

    def _check_tokens(self, tokens: Array, count: int, least: int, wanted: str) -> None:
        if tokens.dtype.kind not in "iu" or not least <= count <= self.spec.length:
            raise none_such(tokens, wanted)
        check_range(tokens, self.spec.vocabulary_size)

    def in_words(self, data: Array) -> str:
        """As in "texts of up to 20 tokens"."""
        return f"texts of up to {data.shape[1]} tokens"

    @property
    def of_shape(self) -> str:
        """With the size of the vocabulary."""
        return f"texts of up to {self.spec.length} of {self.spec.vocabulary_size} tokens"

    @property
    def facts(self) -> str:
        """Length and vocabulary."""
        return f"up to {self.spec.length} tokens, from a vocabulary of {self.spec.vocabulary_size}"

    def lines(self, samples: Drawn) -> list[str]:
        """Each text on a line."""
        return [printable(as_line(text)) for text in self.own_form(samples)]

    def picture(self, samples: Drawn, arrangement: Arrangement = AS_IT_IS) -> Uint8:
        """A page of the texts; `arrangement`, which is for images, is refused."""
        self._refuse(arrangement)
        return page_of(self.own_form(samples))

    def shown(self, samples: Drawn) -> Uint8 | None:
        """The first ones; None without a vocabulary."""
        return self.picture(samples) if len(samples) and self._vocabulary is not None else None

    def arrays(self, samples: Drawn) -> dict[str, Array]:
        """Tokens, texts as str, and lengths where they are known."""
        lengths = {} if samples.lengths is None else {"lengths": samples.lengths}
        return {**super().arrays(samples), "texts": np.array(self.own_form(samples), np.str_), **lengths}

    def check_target(
        self, path: str | Path, arrangement: Arrangement = AS_IT_IS, *, others: Sequence[str] = ()
    ) -> None:
        """A path without a suffix is a folder, which must hold no numbered texts from before."""
        target = check_path(path, "a path")
        in_folder = target.is_dir() or not target.suffix
        super().check_target(target / "text.txt" if in_folder else target, arrangement, others=others)
        if target.is_dir():
            _check_none_before(target)

    def save(self, samples: Drawn, target: Path, arrangement: Arrangement = AS_IT_IS) -> None:
        """A file, or a folder of texts."""
        self.check_target(target, arrangement)
        if target.suffix and not target.is_dir():
            write_atomically(target, self.encoded(samples, target.suffix.lower()))
            return
        for number, text in enumerate(self.own_form(samples)):
            write_atomically(target / f"{number:05d}.txt", f"{text}\n".encode())

    def encoded(self, samples: Drawn, suffix: str) -> bytes:
        """Lines, JSON lines, arrays or a picture."""
        if suffix == ".npz":
            return self.npz(samples)
        if suffix in SUFFIXES:
            return encode_image(self.picture(samples), suffix, samples.settings)
        return (
            _json_lines(samples, self.own_form(samples)) if suffix == ".jsonl" else _lines(self.own_form(samples))
        )


def _lines(texts: Sequence[str]) -> bytes:
    lines = [as_line(text) for text in texts]
    changed = sum(line != text for line, text in zip(lines, texts, strict=True))
    if changed:
        tell(
            f"{changed} of {len(texts)} texts hold line breaks, tabs or backslashes, which are written \\n, \\t "
            "and "
            "\\\\: a line is a text; a .jsonl or a folder holds them as they are"
        )
    return "".join(f"{line}\n" for line in lines).encode()


def _json_lines(samples: Drawn, texts: Sequence[str]) -> bytes:
    labels, prompts = samples.conditions.get("label"), samples.settings.get("prompts")
    rows = []
    for number, text in enumerate(texts):
        asked = {} if labels is None else {"label": int(labels[number])}
        asked |= {} if prompts is None else {"prompt": prompts[number]}
        row = {"text": text, "seed": list(samples.seeds[number]), **asked, "tokens": samples.data[number].tolist()}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(rows).encode()


def _check_none_before(folder: Path) -> None:
    try:
        older = sorted(file.name for file in folder.iterdir() if NUMBERED.fullmatch(file.name))
    except OSError as failure:
        raise InputError(f"can't read {folder}: {failure.strerror or failure}") from None
    if older:
        raise InputError(
            f"{folder} holds {len(older)} texts of an earlier run ({older[0]}); choose a new folder, or remove "
            "them"
        )
