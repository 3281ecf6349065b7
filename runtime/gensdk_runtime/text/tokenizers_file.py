"""Vocabularies of the library ``tokenizers`` (extra ``text``): its JSON, as it is, inside of ``vocabulary.json``.

What such a file may do is limited to what a text model needs: a model of a known type, and no regular expression
but some that are known, since a stranger's pattern could take for ever on a user's text. What its decoder gives is
shown without characters that a terminal would obey: byte-level models can make any of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import model_validator

from gensdk_runtime.errors import BackendError, InputError, IntegrityError, UnavailableError
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.fields import Json
from gensdk_runtime.spec.outputs import MAX_TOKENS
from gensdk_runtime.text.vocabulary import (
    MAX_CHARACTERS,
    NAMED,
    Encoded,
    Vocabulary,
    register_vocabulary,
)

MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
REPLACEMENT = "\ufffd"
MAX_STEPS = 32
"""Objects in the normalizer, the splitting or the decoder of a tokenizer."""
PATTERNS = (
    r"\s+",
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
)
"""Regular expressions that are run: they read a text once, from end to end. White space, and the words of CLIP."""
LENGTHENING = ("ByteLevel", "Precompiled")
"""Steps that make a text longer, and again longer each time they are made."""


@register_vocabulary
class TokenizersVocabulary(Vocabulary):
    """`tokenizer`: what ``Tokenizer.to_str()`` of the library gives, as an object.

    `special`: numbers of its tokens. It knows how to normalize texts itself, so `lower_case` stays false.
    """

    kind: Literal["tokenizers"] = "tokenizers"
    lower_case: Literal[False] = False
    tokenizer: Json

    @model_validator(mode="after")
    def _check(self) -> Self:
        model = self.tokenizer.get("model")
        if not isinstance(model, dict) or model.get("type") not in MODELS:
            raise ValueError(f"expected a tokenizer whose model is of a type {', '.join(MODELS)}")
        vocab = model.get("vocab")
        if not isinstance(vocab, dict | list) or not 2 <= len(vocab) <= MAX_TOKENS:
            raise ValueError(f"expected a tokenizer with a vocab of 2 to {MAX_TOKENS} tokens")
        _check_parts(self.tokenizer)
        return self

    @cached_property
    def _library(self) -> Any:
        """The tokenizer, read by the library when it is first needed."""
        try:
            from tokenizers import Tokenizer
        except ImportError as failure:
            raise UnavailableError(
                f'this vocabulary needs the library tokenizers ({failure}); pip install "gensdk[text]"'
            ) from None
        try:
            read = Tokenizer.from_str(json.dumps(self.tokenizer))
            read.no_padding()
            read.no_truncation()
            size = read.get_vocab_size()
            names = [read.id_to_token(number) for number in range(size)]
        except Exception as failure:
            raise IntegrityError(f"vocabulary: no tokenizer that can be read ({_reason(failure)})") from None
        except BaseException as failure:
            if type(failure).__name__ != "PanicException":  # which the library raises where it is at its wits' end
                raise
            raise IntegrityError(f"vocabulary: no tokenizer that can be read ({_reason(failure)})") from None
        if any(name is None for name in names):
            raise IntegrityError(f"vocabulary: the tokens of the tokenizer are not numbered from 0 to {size - 1}")
        wrong = [number for number in self.special.model_dump().values() if number is not None and number >= size]
        if wrong:
            raise IntegrityError(f"vocabulary: a special token is number {wrong[0]} of {size}")
        return read

    @property
    def size(self) -> int:
        """How many tokens the library counts."""
        return int(self._library.get_vocab_size())

    def surface(self, token: int) -> str:
        """As the library calls it."""
        return printable(str(self._library.id_to_token(token)))

    def encode(self, text: str) -> Encoded:
        """As the library does it, without the special tokens that it would add."""
        found = self._library.encode(self.checked_text(text), add_special_tokens=False)
        unknown = self.special.unknown
        spans = zip(found.ids, found.offsets, strict=True)
        missing = tuple(text[start:end] for number, (start, end) in spans if number == unknown)
        if any(number in self.special.silent for number in found.ids):
            named = ", ".join(repr(self.surface(number)) for number in sorted(self.special.silent)[:NAMED])
            raise InputError(f"the text spells a special token of the vocabulary ({named}); take it out")
        return Encoded(tuple(found.ids), missing)

    def said(self, tokens: Sequence[int]) -> str:
        """As the library does it; what is not printable, but for line breaks and tabs, becomes U+FFFD."""
        try:
            text = self._library.decode(list(tokens), skip_special_tokens=False)
        except Exception as failure:
            raise BackendError(f"vocabulary: its decoder fails ({_reason(failure)})") from None
        return "".join(c if c.isprintable() or c in "\n\t" else REPLACEMENT for c in text)

    @property
    def rule(self) -> str:
        """As in "tokenizers, BPE"."""
        return f"tokenizers, {self.tokenizer['model']['type']}"


def tokenizers_vocabulary(text: str, *, what: str, **special: str | None) -> TokenizersVocabulary:
    """The vocabulary of a JSON file of the library. `special`: what its ``pad``, ``begin``, ``end`` and
    ``unknown`` tokens are called. :class:`InputError` for what is none, and for a token that it does not have."""
    try:
        tokenizer = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{what}: not readable as JSON; write it with Tokenizer.save") from None
    plain = TokenizersVocabulary.from_dict({"kind": "tokenizers", "tokenizer": tokenizer}, what=what)
    numbers: dict[str, int | None] = {}
    for name, token in special.items():
        numbers[name] = None if token is None else plain._library.token_to_id(token)
        if token is not None and numbers[name] is None:
            raise InputError(f"{what}: it has no token {token[:40]!r}, which is to be {name!r}")
    return TokenizersVocabulary.from_dict(
        {"kind": "tokenizers", "tokenizer": tokenizer, "special": numbers}, what=what
    )


def _check_parts(tokenizer: Mapping[str, Any]) -> None:
    """Raises ValueError for patterns, tokens too long, and steps that could make a text many times longer."""
    for part in _objects(tokenizer):
        if part.get("Regex") not in (None, *PATTERNS):
            raise ValueError("it has a regular expression of its own, which could take for ever; it is not run")
        texts = (text for name, text in part.items() if isinstance(text, str) and name != "precompiled_charsmap")
        if any(len(text) > MAX_CHARACTERS for text in (*part, *texts)):
            raise ValueError(f"a token, or another text in it, has over {MAX_CHARACTERS} characters")
        if part.get("type") == "Replace" and _size(part.get("content")) > _size(part.get("pattern")):
            raise ValueError("it replaces texts by longer ones, which could fill the memory; it is not run")
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        kinds = Counter(str(part.get("type")) for part in _objects(tokenizer.get(name)))
        if sum(kinds.values()) > MAX_STEPS or any(kinds[kind] > 1 for kind in LENGTHENING):
            raise ValueError(f"its {name} has over {MAX_STEPS} steps, or one twice that makes texts longer")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in what came as JSON."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            yield each
            todo.extend(each.values())
        elif isinstance(each, list):
            if any(isinstance(text, str) and len(text) > MAX_CHARACTERS for text in each):
                raise ValueError(f"a token has over {MAX_CHARACTERS} characters")
            todo.extend(each)


def _size(value: Any) -> int:
    """Characters of a text, of the one in ``{"String": text}``, or the least that a known pattern finds.

    Not bytes: a character has at most four of them, however often one takes the place of another.
    """
    if isinstance(value, dict) and "Regex" in value:
        return 1
    text = value.get("String") if isinstance(value, dict) else value
    return len(text) if isinstance(text, str) else 0


def _reason(failure: BaseException) -> str:
    return printable(str(failure).splitlines()[0])[:120] if str(failure) else type(failure).__name__
