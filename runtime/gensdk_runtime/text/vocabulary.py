"""A vocabulary: what each token of a text model says, and the way back from text to tokens.

It is a file of its own in a bundle (``vocabulary.json``), and untrusted input: its size, the number and the
length of its tokens are limited, no token stands twice, and none holds what a terminal would obey or what nobody
sees. A kind of vocabulary is a class with the rule by which text becomes pieces and pieces become text; the file
says which.
"""

from __future__ import annotations

import json
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, PlainValidator, SerializeAsAny, model_validator

from gensdk_runtime.errors import GensdkError, InputError, IntegrityError
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.outputs import MAX_TOKENS
from gensdk_runtime.spec.strict import StrictModel

VOCABULARY_FILE = "vocabulary.json"
"""What it is called in a bundle."""
MAX_BYTES = 48 * 2**20
"""Of the file; Gemma's, of 256,000 tokens, takes about 20 MiB."""
MAX_CHARACTERS = 256
"""Of one token."""
MAX_TEXT = 2**20
"""Characters of one text that is turned into tokens."""
NAMED = 5
"""Unknown pieces that an error names."""

Place = Annotated[int, Field(ge=0, lt=MAX_TOKENS)]


class SpecialTokens(StrictModel):
    """Numbers of tokens that are no text; None where the vocabulary has none.

    `begin` comes before the first token, `end` ends a text, `pad` fills up behind it, `unknown` stands for what
    the vocabulary does not know.
    """

    pad: Place | None = None
    begin: Place | None = None
    end: Place | None = None
    unknown: Place | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        used = [number for number in (self.pad, self.begin, self.end, self.unknown) if number is not None]
        if len(set(used)) != len(used):
            raise ValueError("two special tokens are one")
        return self

    @property
    def silent(self) -> frozenset[int]:
        """Those that leave no trace in a text."""
        return frozenset(number for number in (self.pad, self.begin, self.end) if number is not None)


@dataclass(frozen=True)
class Encoded:
    """A text as `tokens`, without begin and end; `unknown`: its pieces that the vocabulary does not know."""

    tokens: tuple[int, ...]
    unknown: tuple[str, ...] = ()


class Vocabulary(StrictModel):
    """The rule of one kind, and its tokens. A kind adds ``kind: Literal["..."] = "..."`` and its own fields.

    `lower_case`: texts are turned to lower case before they become tokens.
    """

    schema_version: Literal[1] = 1
    kind: str
    special: SpecialTokens = SpecialTokens()
    lower_case: bool = False

    @property
    @abstractmethod
    def size(self) -> int:
        """How many tokens there are."""

    @abstractmethod
    def surface(self, token: int) -> str:
        """What a token is called, a special one too."""

    @abstractmethod
    def encode(self, text: str) -> Encoded:
        """The tokens of `text`; :class:`InputError` for a piece that is not known, where no token stands for
        such."""

    @abstractmethod
    def said(self, tokens: Sequence[int]) -> str:
        """What `tokens` say, none of which is silent."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """In words, how text becomes tokens."""

    def decode(self, tokens: Iterable[int]) -> str:
        """What `tokens` say up to the first end token; pad and begin tokens say nothing.

        Raises :class:`InputError` for a number that is no token.
        """
        kept = []
        for token in tokens:
            if not 0 <= token < self.size:
                raise InputError(f"expected tokens from 0 to {self.size - 1}, got {token}")
            if token == self.special.end:
                break
            if token not in self.special.silent:
                kept.append(token)
        return self.said(kept)

    def normal(self, text: str) -> str:
        """`text` as it is looked up: composed (Unicode NFC), and in lower case where the vocabulary is."""
        lowered = unicodedata.normalize("NFC", text)
        return unicodedata.normalize("NFC", lowered.lower()) if self.lower_case else lowered

    def checked_text(self, text: object) -> str:
        """`text` itself; :class:`InputError` for what is no str, has half a character, or is too long."""
        if not isinstance(text, str):
            raise InputError(f"expected text as str, got {type(text).__name__}")
        if len(text) > MAX_TEXT:
            raise InputError(f"expected a text of at most {MAX_TEXT} characters, got {len(text)}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError("expected text in Unicode, got half of a surrogate pair; decode its bytes as UTF-8")
        return text


class ListedVocabulary(Vocabulary):
    """A vocabulary whose `tokens` are listed: token i is called ``tokens[i]``."""

    tokens: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)], ...],
        Field(min_length=2, max_length=MAX_TOKENS),
    ]

    line_breaks: ClassVar[bool] = False
    """Whether a token may be a line break or a tab."""

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if len(set(self.tokens)) != len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise ValueError(f"the token {twice[:40]!r} stands twice")
        special = self.special.model_dump()
        for name, number in special.items():
            if number is not None and number >= len(self.tokens):
                raise ValueError(f"the special token {name!r} is number {number} of {len(self.tokens)}")
        used = set(special.values())
        for number, token in enumerate(self.tokens):
            if not token.isprintable() and not (self.line_breaks and token in ("\n", "\t")):
                raise ValueError(f"token {number}, {token[:40]!r}, has a character that is not printable")
            if number not in used and (problem := self.problem(token)):
                raise ValueError(f"token {number}, {token[:40]!r}, {problem}")
        return self

    def problem(self, token: str) -> str:
        """Why the kind's own rule could never give this `token`; empty where it can."""
        return "" if self.normal(token) == token else "is not as texts are looked up (composed, lower case)"

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """The pieces of a text that was normalized, each of which is one token."""

    @abstractmethod
    def joined(self, pieces: Sequence[str]) -> str:
        """The text of `pieces`."""

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each token that text can become."""
        special = set(self.special.model_dump().values())
        return {token: number for number, token in enumerate(self.tokens) if number not in special}

    @property
    def size(self) -> int:
        """How many tokens are listed."""
        return len(self.tokens)

    def surface(self, token: int) -> str:
        """As it is listed."""
        return self.tokens[token]

    def encode(self, text: str) -> Encoded:
        """See :class:`Vocabulary`."""
        pieces = self.pieces(self.normal(self.checked_text(text)))
        unknown = tuple(piece for piece in pieces if piece not in self.numbers)
        if unknown and self.special.unknown is None:
            named = ", ".join(repr(printable(piece)[:40]) for piece in dict.fromkeys(unknown[:NAMED]))
            raise InputError(f"the vocabulary does not know {named}, and has no token for what it does not know")
        return Encoded(tuple(self.numbers.get(piece, self.special.unknown or 0) for piece in pieces), unknown)

    def said(self, tokens: Sequence[int]) -> str:
        """See :class:`Vocabulary`."""
        return self.joined([self.tokens[token] for token in tokens])


VocabularyT = TypeVar("VocabularyT", bound="Vocabulary")
_KINDS: dict[str, type[Vocabulary]] = {}


def register_vocabulary(vocabulary: type[VocabularyT]) -> type[VocabularyT]:
    """Class decorator: makes a kind of vocabulary known; ValueError where the kind is taken."""
    kind = vocabulary.model_fields["kind"].default
    known = _KINDS.setdefault(kind, vocabulary)
    if (known.__module__, known.__qualname__) != (vocabulary.__module__, vocabulary.__qualname__):
        raise ValueError(f"two vocabularies of the kind {kind!r}")
    return vocabulary


def vocabulary_kinds() -> dict[str, type[Vocabulary]]:
    """The kinds that are known, by name."""
    from gensdk_runtime.text import characters, tokenizers_file, words  # noqa: F401 - here: they import this file

    return dict(sorted(_KINDS.items()))


class _Kind(StrictModel):
    model_config = ConfigDict(extra="ignore")

    kind: str


def read_vocabulary(data: bytes, *, what: str, error: type[GensdkError] = IntegrityError) -> Vocabulary:
    """The vocabulary in a file's bytes; `error`, with `what` in front, where they are none or break a limit."""
    if len(data) > MAX_BYTES:
        raise error(f"{what}: {len(data)} bytes, at most {MAX_BYTES} are read")
    kinds = vocabulary_kinds()
    kind = _Kind.from_json(data, what=what, error=error).kind
    if kind not in kinds:
        raise error(f"{what}: no vocabulary of the kind {kind[:60]!r} (known: {', '.join(kinds)}); upgrade gensdk")
    return kinds[kind].from_json(data, what=what, error=error)


def vocabulary_bytes(vocabulary: Vocabulary) -> bytes:
    """The file of a vocabulary; :func:`read_vocabulary` gives it back. :class:`InputError` for one too large."""
    data = (vocabulary.model_dump_json() + "\n").encode()
    if len(data) > MAX_BYTES:
        raise InputError(f"the vocabulary takes {len(data)} bytes, at most {MAX_BYTES} are read; use fewer tokens")
    return data


def _read(value: Any) -> Vocabulary:
    if isinstance(value, Vocabulary):
        return value
    kinds = vocabulary_kinds()
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in kinds:
        raise ValueError(f"expected a vocabulary, an object with a kind of {', '.join(kinds)}")
    return kinds[kind].model_validate_json(json.dumps(value))


AnyVocabulary = Annotated[Vocabulary, PlainValidator(_read), SerializeAsAny()]
"""The field that holds a vocabulary of any kind."""
