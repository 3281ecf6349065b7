"""What every data set is to the trainer: images by index, and what a family must know about them."""

from __future__ import annotations

import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_training.family import DataInfo, SourceInfo

Images = NDArray[np.uint8]
Points = NDArray[np.float32]
Labels = NDArray[np.int64]
Split = Literal["train", "test"]
Fit = Literal["crop", "stretch"]

log = logging.getLogger("gensdk.data")

MAX_NAMED = 20
"""So many skipped files are named one by one; the rest is only counted."""

HOLDOUT_SEED = 2024
"""Fixed, so that the test part of a data set is the same in every run."""


@dataclass(frozen=True)
class ImageBatch:
    """`images`: uint8 [B, H, W, C], or scaled points, float32 [B, D]; `labels`: int64 [B], or None."""

    images: Images | Points
    labels: Labels | None


@dataclass(frozen=True)
class LoadOptions:
    """How data is brought into one shape; the fields are explained at :func:`gensdk_training.data.load_data`."""

    split: Split = "train"
    labels: str = "auto"
    size: tuple[int, int] | None = None
    channels: int | None = None
    fit: Fit = "crop"
    holdout: float = 0.0
    memory_limit: int = 2 << 30


class Dataset(ABC):
    """Images of one size, by index. `fingerprint` changes when the data does; resuming compares it.

    `sources`: what the images are made from, for translation; of the same count and order where ``info.source`` is
    paired.
    """

    sources: Dataset | None = None
    prefetch: bool = False
    """Whether batches are worth reading ahead in a thread."""

    def __init__(self, info: DataInfo, fingerprint: str) -> None:
        self.info = info
        self.fingerprint = fingerprint
        self.skipped = SkipLog()

    def __len__(self) -> int:
        return self.info.count

    @abstractmethod
    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The images at `indices` (int64 [B], each in 0 .. len - 1), in that order."""

    @property
    @abstractmethod
    def labels(self) -> Labels | None:
        """The class of each image, int64 [N]; None without labels."""

    @abstractmethod
    def take(self, indices: NDArray[np.int64]) -> Dataset:
        """A data set of the images at `indices` (int64 [n], growing), with the same classes. Ends this one."""

    def close(self) -> None:  # noqa: B027 - most data sets hold nothing
        """Frees threads and files."""


class ArrayDataset(Dataset):
    """Images in memory: `images` uint8 [N, H, W, C], `labels` int64 [N] or None."""

    def __init__(self, info: DataInfo, images: Images, labels: Labels | None, fingerprint: str = "") -> None:
        super().__init__(info, fingerprint or array_fingerprint(images, labels))
        self.images = images
        self._labels = labels

    @property
    def labels(self) -> Labels | None:
        """The class of each image, int64 [N]; None without labels."""
        return self._labels

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The images at `indices`; a copy."""
        return ImageBatch(self.images[indices], None if self._labels is None else self._labels[indices])

    def take(self, indices: NDArray[np.int64]) -> ArrayDataset:
        """A data set of the images at `indices`, copied."""
        kept, part = self.info.model_copy(update={"count": len(indices)}), self.batch(indices)
        dataset = ArrayDataset(kept, part.images, part.labels)  # type: ignore[arg-type] # an array of images
        dataset.skipped = self.skipped
        return dataset


def of_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The images of `dataset` in any of `classes`, each by its name or number; they keep their numbers.

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
            near = did_you_mean(text[:80], tuple(info.class_names or names))
            raise InputError(f"{info.name!r} has no class {text[:80]!r}{near}")
        wanted.add(known.index(text))
    chosen = np.flatnonzero(np.isin(labels, sorted(wanted))).astype(np.int64)
    if not len(chosen):
        raise InputError(f"{info.name!r} has no image of class {', '.join(classes)[:80]}; choose others")
    return dataset.take(chosen)


def with_sources(dataset: Dataset, sources: Dataset, *, paired: bool) -> Dataset:
    """`dataset` with images to translate into its own. Raises :class:`InputError` for pairs that can't be."""
    have, want = sources.info, dataset.info
    if have.points is not None or want.points is not None:
        raise InputError("inputs go with images to translate, and some of these data are points; leave inputs out")
    if paired and have.count != want.count:
        raise InputError(
            f"expected a pair for each of the {want.count} images, got {have.count} inputs; write --unpaired for "
            "two collections that are not pairs"
        )
    dataset.sources = sources
    dataset.info = want.model_copy(
        update={
            "source": SourceInfo(
                channels=have.channels, height=have.height, width=have.width, count=have.count, paired=paired
            )
        }
    )
    dataset.fingerprint = text_fingerprint([dataset.fingerprint, sources.fingerprint])
    dataset.prefetch = dataset.prefetch or sources.prefetch
    return dataset


class SkipLog:
    """Counts files that can't be used; names each once, up to a limit."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, name: str, problem: str) -> None:
        """Counts one file and names it in the log."""
        self.count += 1
        if self.count <= MAX_NAMED:
            log.warning("skipped %s: %s", name, problem)
        if self.count == MAX_NAMED:
            log.warning("more skipped files are counted, but not named")


def array_fingerprint(images: Images, labels: Labels | None) -> str:
    """A digest of the images' and labels' content and shape."""
    digest = hashlib.blake2b(str(images.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def plain_name(text: str) -> str:
    """`text` as a name that may stand in a manifest: letters, digits, ``_``, ``-`` and ``.``, a letter first."""
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", text).strip("-.")[:60]
    return name if re.match(r"[A-Za-z_]", name) else f"data-{name}".rstrip("-")


def text_fingerprint(lines: Iterable[str]) -> str:
    """A digest of `lines` in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def holdout_indices(count: int, fraction: float, split: Split) -> NDArray[np.int64]:
    """The indices of one part, in order: a fixed permutation, whose last ``round(fraction * count)`` are the test.

    Raises :class:`InputError` where the part that was asked for would be empty.
    """
    held = round(fraction * count)
    order = np.random.Generator(np.random.Philox(HOLDOUT_SEED)).permutation(count)
    part = order[count - held :] if split == "test" else order[: count - held]
    if not len(part):
        raise InputError(
            f"the {split} part of {count} images is empty with holdout={fraction}; give a holdout between 0 and 1"
        )
    return np.sort(part).astype(np.int64)
