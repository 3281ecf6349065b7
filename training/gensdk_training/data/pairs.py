"""Pairs of images: found by the names of their files, and kept together when a file can't be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_runtime.printable import printable
from gensdk_training.data.classes import seen_classes
from gensdk_training.data.dataset import Dataset, ImageBatch, Split, holdout_indices, text_fingerprint
from gensdk_training.family import SourceInfo

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class _Way:
    """A way to match the files of both sides: `names` in words, `name` of a path without suffix."""

    names: str
    name: Callable[[str], str]


_WAYS = (
    _Way("their paths", lambda key: key),
    _Way("their paths, whatever the case", str.casefold),
)
_BY_FILE_NAME = _Way(
    "their file names, one side having sub-folders", lambda key: key.rsplit("/", 1)[-1].casefold()
)
"""Only where one side is flat: with folders on both sides, the same name in two of them is no pair."""


def with_sources(
    dataset: Dataset, sources: Dataset, *, paired: bool, part: tuple[float, Split] | None = None
) -> Dataset:
    """`dataset` with images to translate into its own. Both are closed if images have no partner.

    Pairs of files have the same path in their folders, whatever the suffix; those without a partner are left out,
    and told. Arrays are pairs by their place, and must be as many. Raises :class:`InputError` for pairs that can't
    be. `part`: the share of the pairs that is the test, and which part of them is wanted; None: all of them.
    """
    if others := [each.info.kind for each in (dataset, sources) if not each.info.on_a_grid]:
        raise InputError(
            f"inputs go with images to translate, and some of these data are {others[0]}; leave inputs out"
        )
    how = ""
    if paired:
        dataset, sources, how = _paired(dataset, sources)
        if part is not None:
            chosen = holdout_indices(len(dataset), *part)
            dataset, sources = dataset.take(chosen), sources.take(chosen)
            how += f"; {len(chosen)} of them for {part[1]}"
        dataset = seen_classes(dataset)
    have, want = sources.info, dataset.info
    dataset.sources = sources
    dataset.info = want.model_copy(
        update={
            "source": SourceInfo(
                channels=have.channels, height=have.height, width=have.width, count=have.count, paired=paired
            )
        }
    )
    dataset.earlier = tuple(
        text_fingerprint([mine, theirs])
        for mine in (dataset.fingerprint, *dataset.earlier)
        for theirs in (sources.fingerprint, *sources.earlier)
    )[1:]
    dataset.fingerprint = text_fingerprint([dataset.fingerprint, sources.fingerprint])
    dataset.prefetch = dataset.prefetch or sources.prefetch
    dataset.skipped.absorb(sources.skipped)
    sources.skipped = dataset.skipped  # what turns out to be broken later counts as one
    dataset.findings.pairs = how or f"no pairs: {want.count} images and {have.count} inputs, each in its own order"
    return dataset


def _paired(dataset: Dataset, sources: Dataset) -> tuple[Dataset, Dataset, str]:
    """Both sides cut to the pairs, in the order of `dataset`, and how they were found."""
    if dataset.keys is None or sources.keys is None:
        if (dataset.keys is None) != (sources.keys is None):
            raise InputError(
                "expected pairs of files or of arrays, got files on one side and an array on the other, which "
                "have no names in common; make both sides the same, or write --unpaired"
            )
        if len(dataset) != len(sources):
            raise InputError(
                f"expected a pair for each of the {len(dataset)} images, got {len(sources)} inputs; write "
                "--unpaired for two collections that are not pairs"
            )
        return dataset, sources, f"{len(dataset)} pairs by their place in the arrays"
    way = _way(dataset.keys, sources.keys)
    places = {way.name(key): place for place, key in enumerate(sources.keys)}
    pairs = [(i, places[name]) for i, key in enumerate(dataset.keys) if (name := way.name(key)) in places]
    alone, others = len(dataset) - len(pairs), len(sources) - len(pairs)
    how = f"{len(pairs)} pairs by {way.names}"
    if alone or others:
        how += f"; left out: {alone} images without an input, {others} inputs without an image"
    mine, theirs = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    if alone:
        dataset = dataset.take(mine)
    if others or not np.array_equal(theirs, np.arange(len(theirs))):
        sources = sources.take(theirs)
    return dataset, sources, how


def _way(mine: tuple[str, ...], theirs: tuple[str, ...]) -> _Way:
    """The way under which most files have a partner, and none has two."""
    flat = [all("/" not in key for key in keys) for keys in (mine, theirs)]
    ways = (*_WAYS, _BY_FILE_NAME) if any(flat) and not all(flat) else _WAYS
    found = []
    for way in ways:
        names = [Counter(way.name(key) for key in keys) for keys in (mine, theirs)]
        common = names[0].keys() & names[1].keys()
        doubled = sorted(name for name in common if max(names[0][name], names[1][name]) > 1)
        found.append((0 if doubled else len(common), way, doubled))
    count, best, _ = max(found, key=lambda each: each[0])
    if count:
        return best
    if doubled := found[0][2]:
        raise InputError(
            f"several files are called {printable(doubled[0])!r} but for their suffix, so which pair is meant is "
            "unknown; give each its own name"
        )
    raise InputError(
        f"no file of the inputs is called as one of the images ({printable(mine[0])!r}, "
        f"{printable(theirs[0])!r}, ...); pairs need the same names, or write --unpaired"
    )


def pair_batch(
    dataset: Dataset, sources: Dataset, indices: Int64, *, turn: tuple[int, int] | None = None
) -> tuple[ImageBatch, ImageBatch]:
    """The images at `indices` and their sources. Where a file of either can't be read any more, both come from the
    next place where both can. `turn`: (seed, first) of :meth:`Dataset.training_batch`, of sources of which each
    image has several; None: the same one always."""
    for _ in range(len(dataset) + 1):
        images = dataset.batch(indices)
        wanted = indices if images.indices is None else images.indices
        if turn is None:
            inputs = sources.batch(wanted)
        else:
            inputs = sources.training_batch(wanted, seed=turn[0], first=turn[1])
        taken = wanted if inputs.indices is None else inputs.indices
        if np.array_equal(taken, wanted):
            return images, inputs
        indices = taken
    raise TrainingError(f"no pair of {dataset.info.name!r} can be read any more; check the disk")
