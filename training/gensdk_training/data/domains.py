"""Several collections as the domains of one data set, each a class: for translation between many styles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_training.data.dataset import ArrayDataset, Dataset, LoadOptions

_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,59})=(.+)")
MAX_DOMAINS = 100

Domain = tuple[str, str]
"""Name, and data as :func:`gensdk_training.data.load_data` names it."""


def domains_of(spec: str) -> list[Domain]:
    """The parts of ``NAME=DATA,NAME=DATA``; empty for data of another kind."""
    parts = [_PART.fullmatch(part.strip()) for part in spec.split(",")]
    found = [(part[1], part[2]) for part in parts if part is not None]
    return found if len(found) == len(parts) else []


def join_domains(
    parts: Sequence[Domain], load: Callable[[str, LoadOptions], Dataset], options: LoadOptions
) -> ArrayDataset:
    """All images of `parts`, in memory, the number of their part as label.

    Images of several sizes need ``options.size``; grey ones become RGB where others are. Raises
    :class:`InputError` for names that stand twice, a single domain, and sizes that differ.
    """
    names = tuple(name for name, _ in parts)
    if len(set(names)) != len(names) or not 2 <= len(names) <= MAX_DOMAINS:
        raise InputError(f"expected 2 to {MAX_DOMAINS} domains with a name each, got {', '.join(names)[:200]}")
    plain = replace(options, labels="none")
    found = [load(spec, plain) for _, spec in parts]
    if others := [dataset.info.kind for dataset in found if not dataset.info.on_a_grid]:
        raise InputError(
            f"expected images in every domain, and some of these data are {others[0]}; use one data set"
        )
    channels = max(dataset.info.channels for dataset in found)
    found = [
        dataset if dataset.info.channels == channels else load(spec, replace(plain, channels=channels))
        for dataset, (_, spec) in zip(found, parts, strict=True)
    ]
    sizes = {(dataset.info.height, dataset.info.width) for dataset in found}
    if len(sizes) > 1:
        told = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise InputError(f"expected domains of one size, got {told}; set --size")
    images = np.concatenate([dataset.batch(np.arange(len(dataset))).images for dataset in found])
    labels = np.repeat(np.arange(len(found)), [len(dataset) for dataset in found])
    info = found[0].info.model_copy(
        update={
            "name": "-".join(names)[:60].rstrip("-."),
            "count": len(images),
            "num_classes": len(names),
            "class_names": names,
        }
    )
    joined = ArrayDataset(info, images, labels)
    for name, dataset in zip(names, found, strict=True):
        joined.sizes = (*(joined.sizes or ()), *(dataset.sizes or ()))
        joined.skipped.absorb(dataset.skipped)
        joined.findings.absorb(dataset.findings, name)
        dataset.close()
    return joined
