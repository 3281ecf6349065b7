"""Texts that samples are made from: as str or as tokens, one for all samples or one for each.

A text has at least one token, where nothing stands in front of it: of an empty one a graph would see padding
alone, and attend to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import any_array, check_count
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.conditions.base import Array, Condition, register_condition
from gensdk_runtime.errors import GensdkError, InputError, ManifestError, tell
from gensdk_runtime.spec.conditions import NegativePromptSpec, PromptSpec
from gensdk_runtime.spec.model import ModelSpec
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
from gensdk_runtime.text.vocabulary import Encoded, Vocabulary

Prompt = str | Sequence[str | Sequence[int]] | NDArray[np.integer] | NDArray[np.str_]

_STREAM = 1
_TOLD_TOKENS = 8
"""Tokens of the example on a model card."""
_UNTOLD = '"a text"'


class _Row(NamedTuple):
    """The `tokens` of one text, and where it was a str what the vocabulary made of it."""

    tokens: Sequence[int]
    encoded: Encoded | None = None


@register_condition
class PromptCondition(Condition[PromptSpec]):
    """int64 [n, length], the tokens of a text with `rest` behind them."""

    Spec: ClassVar[type[PromptSpec]] = PromptSpec
    dtype = "int64"
    required = True
    kept = False
    recorded = True
    absent = "is made from no text"

    def __init__(self, spec: PromptSpec, model: ModelSpec, vocabulary: Vocabulary | None = None) -> None:
        super().__init__(spec, model)
        self._vocabulary = vocabulary

    def with_files(self, files: ModelFiles) -> Self:
        """With its vocabulary, of which `rest` must be a token that says nothing, where no `end` stands before."""
        vocabulary = vocabulary_in(files, self.spec.vocabulary, self.spec.size)
        if self.spec.end is None and self.spec.rest not in vocabulary.special.silent:
            raise ManifestError(
                f"{files.path}: token {self.spec.rest}, which stands behind a prompt, is one that texts have; "
                "export the bundle again with a pad, begin or end token as rest"
            )
        return type(self)(self.spec, self.model, vocabulary)

    @property
    def row_shape(self) -> tuple[int]:
        """(length,)."""
        return (self.spec.length,)

    @property
    def in_words(self) -> str:
        """How long a text may be."""
        return f"prompts of up to {self.spec.own_length} of {self.spec.size} tokens"

    @property
    def example(self) -> str | None:
        """A few tokens of the vocabulary, where it is at hand; in quotes, as Python and a shell read them."""
        if self._vocabulary is None:
            return _UNTOLD
        plain = (token for token in range(self.spec.size) if _is_plain(self._vocabulary.surface(token)))
        text = self._text(tuple(islice(plain, min(_TOLD_TOKENS, self.spec.own_length))))
        return _UNTOLD if text is None or not _is_plain(text.replace(" ", "")) else f'"{text}"'

    @property
    def notes(self) -> tuple[str, ...]:
        """Length and vocabulary."""
        spec = self.spec
        least = 0 if spec.empty else 1
        return (f"{self.kind}: {least} to {spec.own_length} tokens, of {spec.size} in {spec.vocabulary}",)

    def check(self, given: Any, n: int | None) -> Array:
        """The text of all samples, or one for each; the empty one where none is given, and it may be empty."""
        if given is None and self.spec.empty:
            return self._around([()] * (1 if n is None else check_count(n)))
        if given is None:
            raise InputError(
                f"model {self.model.name!r} is made from a text: pass prompt, one for all samples or one for each"
            )
        if isinstance(given, str):
            one = self._filled([self._of_text(given, f"the {self.kind}")])
            return np.broadcast_to(one, (1 if n is None else check_count(n), *one.shape[1:]))
        entries = self._entries(given)
        if n is not None and len(entries) != check_count(n):
            raise InputError(f"expected one {self.kind} for each of the {n} samples, got {len(entries)}")
        known: dict[str, _Row] = {}
        rows: list[_Row] = []
        for number, entry in enumerate(entries):
            if not isinstance(entry, str):
                rows.append(_Row(self._of_tokens(entry, f"{self.kind} {number}")))
                continue
            if entry not in known:
                known[entry] = self._of_text(entry, f"{self.kind} {number}")
            rows.append(known[entry])
        return self._filled(rows)

    def examples(self, n: int, first: int = 0) -> Array:
        """Any tokens but those around a text, of different lengths, the longest one first."""
        spec, places = self.spec, np.arange(first, first + n)
        around = {spec.rest, spec.begin, spec.end} - {None}
        plain = np.array([token for token in range(spec.size) if token not in around], np.int64)
        keys = noise.sample_keys(n, [(0, place) for place in places.tolist()])
        drawn = noise.uniform(keys, _STREAM, (spec.own_length,))
        tokens = plain[np.minimum((drawn * len(plain)).astype(np.int64), len(plain) - 1)]
        lengths = spec.own_length - places * max(1, spec.own_length // 3) % spec.own_length
        return self._around([row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)])

    def told(self, values: Array) -> list[Any]:
        """Each as its text, where that gives the same tokens again, and as its tokens where it does not."""
        known: dict[bytes, Any] = {}
        for row in values:
            if row.tobytes() not in known:
                tokens = self._own(row).tolist()
                text = "" if not tokens else self._text(tokens)
                known[row.tobytes()] = tokens if text is None else text
        return [known[row.tobytes()] for row in values]

    def _text(self, tokens: Sequence[int]) -> str | None:
        """The text of `tokens`; None where there is none, or one that gives others."""
        if self._vocabulary is None or not tokens:
            return None
        try:
            text = self._vocabulary.decode(tokens)
            return text if self._vocabulary.encode(text) == Encoded(tuple(tokens)) else None
        except GensdkError:  # tokens that no text spells
            return None

    def _entries(self, given: Any) -> Sequence[Any] | Array:
        """A text or a row of tokens for each sample, not yet looked at."""
        entries = entries_of(given, self._wanted(f"the {self.kind}"))
        if not len(entries):
            raise InputError(f"expected at least one {self.kind}, got none")
        return entries

    def _of_text(self, text: str, what: str) -> _Row:
        spec = self.spec
        encoded = at_hand(self._vocabulary, spec.vocabulary).encode(text)
        if spec.over_long == "cut" and len(encoded.tokens) > spec.own_length:
            tell(f"{what} has {len(encoded.tokens)} tokens, the model reads the first {spec.own_length} of them")
            encoded = Encoded(encoded.tokens[: spec.own_length], encoded.unknown)
        self._check_length(len(encoded.tokens), what)
        if spec.end is None and spec.rest in encoded.tokens:
            raise InputError(f"{what} spells token {spec.rest}, which stands behind texts; take it out")
        return _Row(encoded.tokens, encoded)

    def _of_tokens(self, entry: Any, what: str) -> Sequence[int]:
        """A row of tokens, without what stands around a text's own."""
        if not isinstance(entry, list | tuple | np.ndarray) or (isinstance(entry, np.ndarray) and not entry.ndim):
            raise self._none_such(what, entry)
        if len(entry) > self.spec.length:
            self._check_length(len(entry), what)
        array = any_array(entry, what)
        if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise self._none_such(what, array)
        check_range(array, self.spec.size)
        own = self._own(array.astype(np.int64))
        behind = self.spec.rest if self.spec.end is None else self.spec.end
        for token, place in ((self.spec.begin, "in front of"), (behind, "behind")):
            if token is not None and (own == token).any():
                raise InputError(f"{what} has token {token} inside, which stands {place} texts; take it out")
        self._check_length(len(own), what)
        tokens: list[int] = own.tolist()
        return tokens

    def _own(self, row: Array) -> Array:
        """Of a row, as graphs take it or without what stands around texts, a text's own tokens."""
        spec = self.spec
        if spec.begin is not None and row.size and row[0] == spec.begin:
            row = row[1:]
        ends = row == spec.rest if spec.end is None else row == spec.end
        if ends.any():
            first = int(ends.argmax())
            behind = row[first:] if spec.end is None else row[first + 1 :]
            if (behind == spec.rest).all():
                return row[:first]
        return row

    def _check_length(self, count: int, what: str) -> None:
        if not count and not self.spec.empty:
            raise InputError(f"{what} is empty; expected 1 to {self.spec.own_length} tokens")
        if count > self.spec.own_length:
            raise InputError(
                f"{what} has {count} tokens, the model takes at most {self.spec.own_length}; shorten it"
            )

    def _none_such(self, what: str, got: Any) -> InputError:
        return none_such(got, self._wanted(what))

    def _wanted(self, what: str) -> str:
        return f"{what} as str, a list of them, or tokens int64 [n, up to {self.spec.length}]"

    def _filled(self, rows: Sequence[_Row]) -> Int64:
        tell_unknown([row.encoded for row in rows if row.encoded is not None])
        return self._around([row.tokens for row in rows])

    def _around(self, rows: Sequence[Sequence[int]]) -> Int64:
        """Texts' own tokens as graphs take them."""
        begin, end = ([] if token is None else [token] for token in (self.spec.begin, self.spec.end))
        return filled([[*begin, *row, *end] for row in rows], self.spec.length, self.spec.rest)


@register_condition
class NegativePromptCondition(PromptCondition):
    """As :class:`PromptCondition`, in the same input of the same graph, for the pass that guidance leads away
    from."""

    Spec: ClassVar[type[PromptSpec]] = NegativePromptSpec
    required = False
    absent = "has no guidance that leads away from a text"

    @property
    def in_words(self) -> str:
        """What it is for."""
        return "negative prompts"

    @property
    def example(self) -> None:
        """Nothing: its default is what samples are drawn with."""
        return

    @property
    def notes(self) -> tuple[str, ...]:
        """None beside those of prompts."""
        return ()

    def examples(self, n: int, first: int = 0) -> Array:
        """Empty texts."""
        return self._around([()] * n)


def _is_plain(text: str) -> bool:
    """True for letters and digits, which no shell takes for something else."""
    return text.isascii() and text.isalnum()
