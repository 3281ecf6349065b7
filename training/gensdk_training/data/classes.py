"""Classes: their names, numbers 0 .. K - 1 for those that the data hold, and the same numbers for other data."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.printable import printable
from gensdk_training.data.dataset import Dataset

MAX_NAME = 200
"""Characters of a class's name."""


def plain_names(texts: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names of classes as models carry them, each another, and the `texts` that had to be changed for that.

    Names reach manifests, file names and terminals: any white space becomes a plain space, invisible characters
    (joiners, marks of direction) go, bytes that are no UTF-8 become their codes.
    """
    names = [_plain(text) for text in texts]
    shared = Counter(names)
    taken = {name for name in names if shared[name] == 1}
    result = []
    for text, name in zip(texts, names, strict=True):
        own, number = name, 1
        if shared[name] > 1:
            own = printable(text)[:MAX_NAME]
            while own in taken:
                number += 1
                own = f"{name} {number}"
            taken.add(own)
        result.append(own)
    pairs = zip(texts, result, strict=True)
    return tuple(result), [text for text, name in pairs if unicodedata.normalize("NFC", text) != name]


def _plain(text: str) -> str:
    composed = unicodedata.normalize("NFC", text)
    spaced = "".join(" " if c.isspace() or unicodedata.category(c) in ("Zs", "Cc") else c for c in composed)
    seen = "".join(c for c in spaced if unicodedata.category(c) != "Cf")
    return printable(" ".join(seen.split()))[:MAX_NAME] or "unnamed"


def of_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The images of `dataset` in any of `classes`, each by its name or number; they alone are its classes then.

    Raises :class:`InputError` for data without labels, unknown classes, and classes without an image.
    """
    labels, info = dataset.labels, dataset.info
    if labels is None or info.num_classes is None:
        raise InputError(f"{info.name!r} has no labels to choose classes by; leave only out, or bring labels")
    names = [str(number) for number in range(info.num_classes)]
    wanted = set()
    for text in classes:
        known = info.class_names if info.class_names and text in info.class_names else names
        if text not in known:
            near = did_you_mean(printable(text[:80]), tuple(info.class_names or names))
            raise InputError(f"{info.name!r} has no class {text[:80]!r}{near}")
        wanted.add(known.index(text))
    chosen = np.flatnonzero(np.isin(labels, sorted(wanted))).astype(np.int64)
    missing = sorted(wanted - set(np.unique(labels).tolist()))
    if missing:
        told = ", ".join((info.class_names or names)[number] for number in missing)[:80]
        raise InputError(f"{info.name!r} has no image of class {told}; choose others")
    return seen_classes(dataset.take(chosen))


def seen_classes(dataset: Dataset) -> Dataset:
    """`dataset` with the classes alone that it holds: a model can't draw what it never saw."""
    labels, names = dataset.labels, dataset.info.class_names
    if labels is None or names is None:
        return dataset
    seen, numbers = np.unique(labels, return_inverse=True)
    if len(seen) == len(names):
        return dataset
    gone = [name for number, name in enumerate(names) if number not in set(seen.tolist())]
    kept = dataset.relabelled(numbers.astype(np.int64), tuple(names[number] for number in seen))
    kept.findings.note(f"no item of {listed_names(gone)}: left out of the classes")
    return kept


def as_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """`dataset` with its classes numbered as in `names`, found by name.

    Raises :class:`InputError` where it has a class that is not among them.
    """
    labels, own = dataset.labels, dataset.info.class_names
    if labels is None or own is None or tuple(names) == own:
        return dataset
    place = {name: number for number, name in enumerate(names)}
    strange = [name for name in own if name not in place]
    if strange:
        raise InputError(f"{dataset.info.name!r} has classes that are not expected: {listed_names(strange)}")
    table = np.array([place[name] for name in own], np.int64)
    return dataset.relabelled(table[labels], tuple(names))


def among(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The images of `dataset` whose class is one of `names`; the other classes are dropped.

    Raises :class:`InputError` where there is none.
    """
    labels, own = dataset.labels, dataset.info.class_names or ()
    wanted = [number for number, name in enumerate(own) if name in set(names)]
    kept = np.flatnonzero(np.isin(np.asarray(labels), wanted)).astype(np.int64)
    if labels is None or not len(kept):
        raise InputError(
            f"{dataset.info.name!r} has no image of the classes {listed_names(names)}; its classes are "
            f"{listed_names(own) or 'none'}; name its folders or labels alike"
        )
    return seen_classes(dataset if len(kept) == len(labels) else dataset.take(kept))


def listed_names(names: Sequence[str]) -> str:
    """Up to ten names, and how many more."""
    told = ", ".join(names[:10])
    return told if len(names) <= 10 else f"{told} and {len(names) - 10} more"
