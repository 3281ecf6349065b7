"""Captions of images: from an array of texts or from the names of files to rows of tokens beside the images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.text.tokens import filled
from gensdk_training.captions import CaptionInfo
from gensdk_training.data.dataset import Captions, Dataset, LoadOptions, holdout_indices
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_vocabulary import build_vocabulary

MAX_LENGTH = 64
"""Tokens of a caption, where no length is given."""
EXAMPLES = 64
"""Captions that are kept with the data's description, for previews."""
MAX_CAPTION = 2**14
"""Characters of a caption."""
_FILE = re.compile(r"\.(png|jpe?g|bmp|webp|gif|tiff?)$", re.IGNORECASE)


def caption_of_name(name: str) -> str:
    """The words of a file's path: ``mon/animals/green_dragon2.png`` says "mon animals green dragon".

    Words are runs of letters; what stands twice is said once, numbers say nothing.
    """
    words = re.findall(r"[^\W\d_]+", _FILE.sub("", name))
    return " ".join(dict.fromkeys(word.lower() for word in words))


def texts_of(array: NDArray[Any], count: int, what: str) -> tuple[list[str], bool]:
    """The captions in an array of `count` texts, and True where they are names of files, whose words are taken.

    Raises :class:`InputError` for an array of something else, of another length, and for texts over a limit.
    """
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise InputError(f"{what}: expected captions as an array of texts, got {array.dtype} {list(array.shape)}")
    if len(array) != count:
        raise InputError(f"{what}: expected {count} captions, one for each image, got {len(array)}")
    if array.dtype.itemsize > 4 * MAX_CAPTION:
        raise InputError(f"{what}: expected captions of at most {MAX_CAPTION} characters; shorten them")
    if array.dtype.kind == "S":
        array = np.array([value.decode("utf-8", "replace") for value in array.tolist()])
    texts = [str(value) for value in array.tolist()]
    named = sum(_FILE.search(text) is not None for text in texts)
    files = named == len(texts)
    return ([caption_of_name(text) for text in texts] if files else texts), files


def with_captions(
    dataset: Dataset, texts: Sequence[str], kept: NDArray[np.int64] | None, options: LoadOptions
) -> None:
    """Gives `dataset` captions: those of `texts` at the places `kept` (None: all), as many as it has images.

    They become tokens by :func:`encode_captions`, when it is known which images stay.
    """
    if (options.text or TextOptions()).tokenizer is not None:
        raise InputError("captions have a vocabulary of their own words; leave --text tokenizer= out")
    training = None
    if options.split != "train":
        held = holdout_indices(len(texts), options.holdout, "train").tolist() if options.holdout > 0 else ()
        training = tuple(texts[place] for place in held) or tuple(texts)
    chosen = texts if kept is None else [texts[place] for place in kept.tolist()]
    dataset.set_captions(Captions(tuple(chosen), np.empty((len(chosen), 0), np.int64), training))


def encode_captions(dataset: Dataset, options: LoadOptions) -> Dataset:
    """`dataset` with its captions as tokens, of a vocabulary of the training part alone: a word that no image of
    it had says nothing to a model.

    Words that are too rare for the vocabulary are its unknown one, and what is too long is cut; both are told.
    """
    captions, how, what = dataset.captions, options.text or TextOptions(), dataset.info.name
    if captions is None:
        return dataset
    vocabulary = build_vocabulary(captions.training or captions.texts, how, what=what)
    begin, pad = vocabulary.special.begin or 0, vocabulary.special.pad or 0
    encoded = [vocabulary.encode(text) for text in captions.texts]
    rows = [each.tokens for each in encoded]
    length = how.length or max(1, min(MAX_LENGTH, max(map(len, rows))))
    tokens = filled([(begin, *row[:length]) for row in rows], length + 1, pad)
    spread = np.unique(np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).astype(int))
    read = ([token for token in rows[place][:length] if token != vocabulary.special.unknown] for place in spread)
    examples = dict.fromkeys(vocabulary.decode(row) for row in read)
    info = CaptionInfo(length=length, vocabulary=vocabulary, examples=tuple(examples))
    dataset.info = dataset.info.model_copy(update={"captions": info})
    dataset.captions = replace(captions, tokens=tokens)
    dataset.findings.note(f"captions: {vocabulary.size} tokens ({vocabulary.rule}), at most {length} in a text")
    unread = sum(bool(each.unknown) for each in encoded)
    cut, empty = sum(len(row) > length for row in rows), sum(not row for row in rows)
    for count, fate in (
        (unread, "have words that are too rare, and count as unknown"),
        (cut, "are too long, and cut"),
        (empty, "say nothing"),
    ):
        if count:
            dataset.findings.note(f"{count} of {len(rows)} captions {fate}")
    return dataset
