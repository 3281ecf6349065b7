"""The tokenizer of a diffusers folder as a vocabulary of a bundle: what the library tokenizers makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gensdk_export.importers.diffusers.folder_files import refused
from gensdk_export.importers.diffusers.scheduler import INSTALL
from gensdk_export.importers.import_report import check_size
from gensdk_runtime.errors import ExportError, InputError, UnavailableError
from gensdk_runtime.spec.fields import Json
from gensdk_runtime.text.tokenizers_file import TokenizersVocabulary
from gensdk_runtime.text.vocabulary import MAX_BYTES, VOCABULARY_FILE, vocabulary_bytes

MAX_TOKENS = 1024
"""Of a text."""


@dataclass(frozen=True)
class Words:
    """A tokenizer as transformers has it in a folder: its JSON, its special tokens, and how long a text may be."""

    place: Path
    tokenizer: Json
    begin: int
    end: int
    pad: int
    length: int
    empty: tuple[int, ...]
    """What it makes of the empty text."""

    def vocabulary(self, *before: Mapping[str, Any], **special: int) -> TokenizersVocabulary:
        """It with these special tokens, and steps that are done to a text `before` its own normalizer."""
        tokenizer = {**self.tokenizer, "padding": None, "truncation": None}
        own = tokenizer.get("normalizer")
        if before:
            steps = [*before, *([] if own is None else [own])]
            tokenizer["normalizer"] = {"type": "Sequence", "normalizers": steps}
        data = {"kind": "tokenizers", "tokenizer": tokenizer, "special": special}
        return TokenizersVocabulary.from_dict(data, what=str(self.place), error=ExportError)


def read_words(place: Path, kind: str) -> Words:
    """The tokenizer in the folder `place` by transformers' class `kind`; nothing is fetched, and no code
    in it runs.

    Raises :class:`InputError` where there is none, :class:`ExportError` where the class can't load it, and
    :class:`UnavailableError` without transformers.
    """
    try:
        import transformers
    except ImportError as failure:
        raise UnavailableError(f"importing texts of diffusers needs transformers ({failure}); {INSTALL}") from None
    if not place.is_dir():
        raise InputError(f"expected a folder with a tokenizer, {str(place)!r} is missing")
    for file in place.glob("*.json"):
        check_size(file, MAX_BYTES)
    with refused(f"{place}: transformers can't load it"):
        words: Any = getattr(transformers, kind).from_pretrained(str(place), local_files_only=True)
        begin, end, pad = (int(number) for number in (words.bos_token_id, words.eos_token_id, words.pad_token_id))
        serialized = json.loads(words.backend_tokenizer.to_str())
        empty = tuple(int(number) for number in words("").input_ids)
        return Words(place, serialized, begin, end, pad, int(words.model_max_length), empty)


def files_of(vocabulary: TokenizersVocabulary) -> dict[str, bytes]:
    """The file of it that a bundle has."""
    return {VOCABULARY_FILE: vocabulary_bytes(vocabulary)}
