"""Texts in place of images: tokens with begin, end and pad."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.text.vocabulary import Encoded, vocabulary_bytes
from gensdk_training.data.arrays import to_labels
from gensdk_training.data.dataset import (
    HOLDOUT_SEED,
    Dataset,
    ImageBatch,
    Labels,
    LoadOptions,
    Split,
    picked,
    plain_name,
    with_classes,
)
from gensdk_training.data.text_file import read_texts
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_vocabulary import build_vocabulary, read_tokenizer
from gensdk_training.family import DataInfo, TextInfo

LONGEST = 128
"""Tokens of a text, its end among them, where no length is given."""
MAX_TOKENS = 2**28
"""Of all texts together, pads among them: they are held at once."""
SCORE_NAMES = ("negative", "positive")


class TextDataset(Dataset):
    """Texts in memory: `tokens` int32 [N, 1 + length] (begin, the text's own, end, pad), `lengths` int64 [N] of
    them before the pads, `texts` as they were read, `labels` int64 [N] or None."""

    def __init__(
        self,
        info: DataInfo,
        tokens: NDArray[np.int32],
        lengths: NDArray[np.int64],
        texts: tuple[str, ...],
        labels: Labels | None,
    ) -> None:
        super().__init__(info, None)
        self.tokens, self.lengths, self.texts = tokens, lengths, texts
        self._labels = labels

    def _digest(self) -> str:
        digest = hashlib.blake2b(str(self.tokens.shape).encode(), digest_size=16)
        for array in (self.tokens, self._labels):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        digest.update(vocabulary_bytes(self.info.require_text().vocabulary))
        return digest.hexdigest()

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The tokens at `indices`, and their lengths; a copy."""
        labels = None if self._labels is None else self._labels[indices]
        return ImageBatch(self.tokens[indices].astype(np.int64), labels, lengths=self.lengths[indices])

    @property
    def labels(self) -> Labels | None:
        """The class of each text, int64 [N]; None without labels."""
        return self._labels

    def take(self, indices: NDArray[np.int64]) -> TextDataset:
        """A data set of the texts at `indices`, in the same vocabulary."""
        labels = None if self._labels is None else self._labels[indices]
        kept = self.info.model_copy(update={"count": len(indices)})
        texts = picked(self.texts, indices.tolist()) or ()
        dataset = TextDataset(kept, self.tokens[indices], self.lengths[indices], texts, labels)
        self._pass_on(dataset)
        return dataset

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> TextDataset:
        """The same texts with other labels."""
        info = with_classes(self.info, class_names)
        dataset = TextDataset(info, self.tokens, self.lengths, self.texts, labels)
        self._pass_on(dataset)
        return dataset


@dataclass(frozen=True)
class _Part:
    """One part of the data: `rows` of tokens without begin and end, `texts`, `labels`."""

    rows: list[tuple[int, ...]]
    texts: list[str]
    labels: Labels | None


def load_text(path: Path, options: LoadOptions) -> TextDataset:
    """The part of a file's texts that `options` name, with a vocabulary of its training part.

    Raises :class:`InputError` for what :func:`read_texts` refuses, for options of images, labels that are none,
    and a part without texts.
    """
    check_options(options)
    how = options.text or TextOptions()
    rows = read_texts(path, options.labels, how)
    labels, names, kept = _classes(rows.labels, len(rows.texts), how, path, rows.notes)
    texts = [rows.texts[at] for at in kept]
    parts = text_parts(len(texts), options.holdout, how.valid)
    train = [texts[at] for at in parts["train"]]
    vocabulary = (
        read_tokenizer(Path(how.tokenizer)) if how.tokenizer else build_vocabulary(train, how, what=path.name)
    )
    if not len(parts[options.split]):
        share = {"train": 1 - options.holdout - how.valid, "test": options.holdout, "valid": how.valid}
        raise InputError(
            f"{path.name}: the {options.split} part of {len(texts)} texts is empty (a share of "
            f"{share[options.split]:g}); give --holdout for a test part, --text valid= for a validation part"
        )
    encoded: dict[str, list[Encoded]] = {
        name: [vocabulary.encode(texts[at]) for at in parts[name]] for name in ("train", options.split)
    }
    length = _length([len(each.tokens) for each in encoded["train"]], how)
    chosen = [texts[at] for at in parts[options.split]]
    part, fate = _fitted(
        _Part([each.tokens for each in encoded[options.split]], chosen, _at(labels, parts[options.split])),
        length,
        how,
    )
    dataset = _dataset(
        plain_name(path.name.split(".")[0]), part, names, TextInfo(length=length, vocabulary=vocabulary)
    )
    for note in (*rows.notes, *fate, *_said_of_parts(texts, parts, options), _unknown(encoded, options.split)):
        dataset.findings.note(note)
    dataset.findings.values = vocabulary.rule
    dataset.findings.extent = f"up to {length} tokens, of a vocabulary of {vocabulary.size}"
    dataset.findings.split = _told(parts, options.split) if options.holdout or how.valid else ""
    return dataset


def text_parts(count: int, test: float, valid: float) -> dict[str, NDArray[np.int64]]:
    """The indices of "train", "valid" and "test", each in order: of a fixed permutation, the same as
    :func:`gensdk_training.data.dataset.holdout_indices` takes, the last ``round(test * count)`` are the test part,
    and the ``round(valid * count)`` before them the validation part."""
    order = np.random.Generator(np.random.Philox(HOLDOUT_SEED)).permutation(count)
    tests, valids = round(test * count), round(valid * count)
    if tests + valids >= count:
        raise InputError(
            f"no text of {count} is left to train on: {tests} are for the test, {valids} for validation"
        )
    cut = count - tests
    places = {"train": order[: cut - valids], "valid": order[cut - valids : cut], "test": order[cut:]}
    return {name: np.sort(part).astype(np.int64) for name, part in places.items()}


def check_options(options: LoadOptions) -> None:
    """Raises :class:`InputError` for options of images."""
    for name in ("size", "channels", "value_range", "depth"):
        if getattr(options, name) is not None:
            raise InputError(f"{name} is for images, and these data are texts; leave it out")


def _classes(
    found: Sequence[Any] | None, count: int, how: TextOptions, path: Path, notes: list[str]
) -> tuple[Labels | None, tuple[str, ...] | None, list[int]]:
    """Labels, what the classes are called, and the places of the texts that are kept."""
    if how.threshold is None:
        if found is None:
            return None, None, list(range(count))
        labels, names = to_labels(np.array([str(label) for label in found]), len(found), path.name)
        return labels, names, list(range(len(found)))
    if found is None:
        raise InputError(f"{path}: a threshold is for scores, and no column holds them; name it with --labels")
    try:
        scores = [float(score) for score in found]
    except ValueError as failure:
        raise InputError(f"{path}: expected scores, numbers, in the column of labels ({failure})") from None
    if not all(map(math.isfinite, scores)):
        raise InputError(f"{path}: expected finite scores in the column of labels; take such lines out")
    kept = [at for at, score in enumerate(scores) if abs(score) > how.threshold]
    if not kept:
        raise InputError(f"{path}: all scores lie within {how.threshold:g} of 0; lower the threshold")
    notes.append(
        f"scores above {how.threshold:g} are positive, below {-how.threshold:g} negative; "
        f"{len(scores) - len(kept)} "
        f"texts between are left out"
    )
    return np.array([int(scores[at] > 0) for at in kept], np.int64), SCORE_NAMES, kept


def _at(labels: Labels | None, places: NDArray[np.int64]) -> Labels | None:
    return None if labels is None else labels[places]


def _length(counts: Sequence[int], how: TextOptions) -> int:
    """Tokens of the longest text with its end."""
    return how.length if how.length is not None else max(2, min(LONGEST, max(counts, default=0) + 1))


def _fitted(part: _Part, length: int, how: TextOptions) -> tuple[_Part, list[str]]:
    """Without what is too long, or cut, and that in words."""
    long = [at for at, row in enumerate(part.rows) if len(row) >= length]
    if not long:
        return part, []
    if how.over_long == "cut":
        told = f"{len(long)} texts of over {length - 1} tokens lose what is too much"
        return _Part([row[: length - 1] for row in part.rows], part.texts, part.labels), [told]
    kept = [at for at, row in enumerate(part.rows) if len(row) < length]
    if not kept:
        raise InputError(f"all texts have over {length - 1} tokens; give a larger --text length, or over_long=cut")
    labels = _at(part.labels, np.array(kept, np.int64))
    told = (
        f"{len(long)} texts of over {length - 1} tokens are left out (--text over_long=cut keeps their beginning)"
    )
    return _Part([part.rows[at] for at in kept], [part.texts[at] for at in kept], labels), [told]


def _dataset(name: str, part: _Part, names: tuple[str, ...] | None, info: TextInfo) -> TextDataset:
    special, count = info.vocabulary.special, len(part.rows)
    begin, end = special.begin, special.end
    if begin is None or end is None:
        raise InputError(f"{name}: the vocabulary has no begin and end token, which training needs")
    if count * (info.length + 1) > MAX_TOKENS:
        raise InputError(f"{name}: {count} texts of up to {info.length} tokens are too much; give a --text length")
    tokens: NDArray[np.int32] = np.full(
        (count, info.length + 1), end if special.pad is None else special.pad, np.int32
    )
    for place, row in zip(tokens, part.rows, strict=True):
        place[: len(row) + 2] = (begin, *row, end)
    lengths = np.array([len(row) + 2 for row in part.rows], np.int64)
    data = DataInfo(
        name=name,
        channels=1,
        height=1,
        width=info.length,
        count=count,
        num_classes=len(names) if names else None,
        class_names=names,
        text=info,
    )
    return TextDataset(data, tokens, lengths, tuple(part.texts), part.labels)


def _said_of_parts(texts: Sequence[str], parts: dict[str, NDArray[np.int64]], options: LoadOptions) -> list[str]:
    """How many texts stand twice, and how many of other parts stand in the training part too."""
    train = {texts[at] for at in parts["train"]}
    twice = len(parts["train"]) - len(train)
    notes = [f"{twice} of the {len(parts['train'])} training texts stand there before"] if twice else []
    for name in ("valid", "test"):
        if len(parts[name]):
            shared = sum(texts[at] in train for at in parts[name])
            notes.append(f"{shared} of the {len(parts[name])} {name} texts are among the training texts")
    return notes


def _unknown(encoded: Mapping[str, Sequence[Encoded]], split: Split) -> str:
    told = []
    for name in dict.fromkeys(("train", split)):
        count = sum(len(each.tokens) for each in encoded[name])
        unknown = sum(len(each.unknown) for each in encoded[name])
        told.append(f"{unknown / max(1, count):.2%} of the tokens of the {name} part ({unknown} of {count})")
    return f"unknown to the vocabulary: {', '.join(told)}"


def _told(parts: dict[str, NDArray[np.int64]], split: Split) -> str:
    counts = ", ".join(f"{len(part)} {name}" for name, part in parts.items() if len(part))
    return f"{split}, of {counts}: a fixed permutation"
