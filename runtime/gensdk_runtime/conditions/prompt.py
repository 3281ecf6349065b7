"""Texts that samples are made from: as str or as tokens, one for all samples or one for each.

A text has at least one token: of an empty one a graph would see padding alone, and attend to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import as_array, check_count
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.conditions.base import Array, Condition, register_condition
from gensdk_runtime.errors import GensdkError, InputError, ManifestError
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.text.tokens import Int64, at_hand, check_range, filled, tell_unknown, vocabulary_in
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

    Spec: ClassVar = PromptSpec
    dtype = "int64"
    required = True
    kept = False
    recorded = True
    absent = "is made from no text"

    def __init__(self, spec: PromptSpec, model: ModelSpec, vocabulary: Vocabulary | None = None) -> None:
        super().__init__(spec, model)
        self._vocabulary = vocabulary

    def with_files(self, files: ModelFiles) -> Self:
        """With its vocabulary, of which `rest` must be a token that says nothing."""
        vocabulary = vocabulary_in(files, self.spec.vocabulary, self.spec.size)
        if self.spec.rest not in vocabulary.special.silent:
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
        return f"prompts of up to {self.spec.length} of {self.spec.size} tokens"

    @property
    def example(self) -> str:
        """A few tokens of the vocabulary, where it is at hand; in quotes, as Python and a shell read them."""
        if self._vocabulary is None:
            return _UNTOLD
        plain = (token for token in range(self.spec.size) if _is_plain(self._vocabulary.surface(token)))
        text = self._text(tuple(islice(plain, min(_TOLD_TOKENS, self.spec.length))))
        return _UNTOLD if text is None or not _is_plain(text.replace(" ", "")) else f'"{text}"'

    @property
    def notes(self) -> tuple[str, ...]:
        """Length and vocabulary."""
        spec = self.spec
        return (f"prompt: 1 to {spec.length} tokens, of {spec.size} in {spec.vocabulary}",)

    def check(self, given: Any, n: int | None) -> Array:
        """The text of all samples, or one for each."""
        if given is None:
            raise InputError(
                f"model {self.model.name!r} is made from a text: pass prompt, one for all samples or one for each"
            )
        if isinstance(given, str):
            one = self._filled([self._of_text(given, "the prompt")])
            return np.broadcast_to(one, (1 if n is None else check_count(n), *one.shape[1:]))
        entries = self._entries(given)
        if n is not None and len(entries) != check_count(n):
            raise InputError(f"expected one prompt for each of the {n} samples, got {len(entries)}")
        known: dict[str, _Row] = {}
        rows: list[_Row] = []
        for number, entry in enumerate(entries):
            if not isinstance(entry, str):
                rows.append(_Row(self._of_tokens(entry, f"prompt {number}")))
                continue
            if entry not in known:
                known[entry] = self._of_text(entry, f"prompt {number}")
            rows.append(known[entry])
        return self._filled(rows)

    def examples(self, n: int, first: int = 0) -> Array:
        """Any tokens but `rest`, of different lengths, the longest one first."""
        spec, places = self.spec, np.arange(first, first + n)
        keys = noise.sample_keys(n, [(0, place) for place in places.tolist()])
        drawn = noise.uniform(keys, _STREAM, (spec.length,))
        tokens = np.minimum((drawn * (spec.size - 1)).astype(np.int64), spec.size - 2)
        tokens += tokens >= spec.rest
        lengths = spec.length - places * max(1, spec.length // 3) % spec.length
        return np.where(np.arange(spec.length) < lengths[:, None], tokens, spec.rest)

    def told(self, values: Array) -> list[Any]:
        """Each as its text, where that gives the same tokens again, and as its tokens where it does not."""
        known: dict[bytes, Any] = {}
        for row in values:
            if row.tobytes() not in known:
                tokens = row[row != self.spec.rest].tolist()
                text = self._text(tokens)
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
        if isinstance(given, np.ndarray) and given.dtype.kind == "U" and given.ndim == 1:
            given = given.tolist()
        if isinstance(given, bytes | bytearray | dict | set):
            raise self._none_such("the prompt", given)
        entries = given if isinstance(given, list | tuple) else as_array(given, "prompt")
        if isinstance(entries, np.ndarray) and entries.ndim != 2:
            raise self._none_such("the prompt", entries)
        if not len(entries):
            raise InputError("expected at least one prompt, got none")
        return entries

    def _of_text(self, text: str, what: str) -> _Row:
        encoded = at_hand(self._vocabulary, self.spec.vocabulary).encode(text)
        self._check_length(len(encoded.tokens), what)
        if self.spec.rest in encoded.tokens:
            raise InputError(f"{what} spells token {self.spec.rest}, which stands behind texts; take it out")
        return _Row(encoded.tokens, encoded)

    def _of_tokens(self, entry: Any, what: str) -> Sequence[int]:
        """A row of tokens, without what it was filled up with."""
        if not isinstance(entry, list | tuple | np.ndarray):
            raise self._none_such(what, entry)
        if len(entry) > self.spec.length:
            self._check_length(len(entry), what)
        array = as_array(entry, what)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise self._none_such(what, array)
        check_range(array, self.spec.size)
        fills = array == self.spec.rest
        count = len(array) if not fills.any() else int(fills.argmax())
        if not fills[count:].all():
            raise InputError(f"{what} has token {self.spec.rest} inside, which stands behind texts; take it out")
        self._check_length(count, what)
        tokens: list[int] = array[:count].tolist()
        return tokens

    def _check_length(self, count: int, what: str) -> None:
        if not count:
            raise InputError(f"{what} is empty; expected 1 to {self.spec.length} tokens")
        if count > self.spec.length:
            raise InputError(f"{what} has {count} tokens, the model takes at most {self.spec.length}; shorten it")

    def _none_such(self, what: str, got: Any) -> InputError:
        kind = f"{got.dtype} {list(got.shape)}" if isinstance(got, np.ndarray) else type(got).__name__
        return InputError(
            f"expected {what} as str, a list of them, or tokens int64 [n, up to {self.spec.length}], got {kind}"
        )

    def _filled(self, rows: Sequence[_Row]) -> Int64:
        tell_unknown([row.encoded for row in rows if row.encoded is not None])
        return filled([row.tokens for row in rows], self.spec.length, self.spec.rest)


def _is_plain(text: str) -> bool:
    """True for letters and digits, which no shell takes for something else."""
    return text.isascii() and text.isalnum()
