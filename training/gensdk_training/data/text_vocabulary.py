"""The vocabulary of texts: built of the training part, or that of a tokenizer's file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.text.characters import Characters
from gensdk_runtime.text.tokenizers_file import tokenizers_vocabulary
from gensdk_runtime.text.vocabulary import MAX_BYTES, MAX_CHARACTERS, ListedVocabulary, SpecialTokens, Vocabulary
from gensdk_runtime.text.words import Words
from gensdk_training.data.text_options import TextOptions

NAMES = ("<pad>", "<begin>", "<end>", "<unknown>")
SPECIAL = SpecialTokens(pad=0, begin=1, end=2, unknown=3)
_KNOWN = {
    "pad": ("<pad>", "[PAD]"),
    "begin": ("<begin>", "<s>", "<bos>", "[BOS]", "[CLS]"),
    "end": ("<end>", "</s>", "<eos>", "[EOS]", "[SEP]", "<|endoftext|>"),
    "unknown": ("<unknown>", "<unk>", "[UNK]"),
}
"""What libraries call the special tokens."""


def build_vocabulary(texts: Sequence[str], options: TextOptions, *, what: str) -> ListedVocabulary:
    """The pieces that stand at least ``options.min_count`` times in `texts`, the most frequent first.

    Raises :class:`InputError` where none does.
    """
    plain: ListedVocabulary
    if options.vocabulary == "words":
        plain = Words(tokens=NAMES, special=SPECIAL, lower_case=options.lower_case, joining=options.joining)
    else:
        plain = Characters(tokens=NAMES, special=SPECIAL, lower_case=options.lower_case)
    counts = Counter(piece for text in texts for piece in plain.pieces(plain.normal(text)))
    often = [
        (-count, piece)
        for piece, count in counts.items()
        if count >= options.min_count
        and len(piece) <= MAX_CHARACTERS
        and piece.isprintable()
        and piece not in NAMES
        and not plain.problem(piece)
    ]
    tokens = [piece for _, piece in sorted(often)][: options.most - len(NAMES)]
    if not tokens:
        raise InputError(
            f"{what}: no {options.vocabulary} stand {options.min_count} times in it; lower --text min_count"
        )
    return plain.model_copy(update={"tokens": (*NAMES, *tokens)})


def read_tokenizer(path: Path) -> Vocabulary:
    """The vocabulary of a JSON file of the library tokenizers, its special tokens by the names that libraries give
    them. :class:`InputError` for what is none, or has no begin and end token."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: over {MAX_BYTES} bytes; expected the JSON of a tokenizer")
        text = path.read_text(encoding="utf-8")
        added = json.loads(text).get("added_tokens") or []
        names = {entry["content"] for entry in added}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as failure:
        if isinstance(failure, InputError):
            raise
        raise InputError(f"{path}: not the JSON of a tokenizer; write it with Tokenizer.save") from None
    found = {kind: next((name for name in known if name in names), None) for kind, known in _KNOWN.items()}
    for kind in ("begin", "end"):
        if found[kind] is None:
            raise InputError(f"{path}: it has no {kind} token (known: {', '.join(_KNOWN[kind])}); add one to it")
    return tokenizers_vocabulary(text, what=str(path), **found)
