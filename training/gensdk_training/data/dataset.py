"""The contract of a data set: images by index, and what a family must know about them."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import Fit
from gensdk_runtime.media.pixel_values import ValueRange
from gensdk_runtime.media.sounds import FULL_SCALE
from gensdk_training.data.findings import Findings, SkipLog
from gensdk_training.data.text_options import TextOptions
from gensdk_training.family import DataInfo

T = TypeVar("T")
Images = NDArray[np.uint8]
Points = NDArray[np.float32]
Tokens = NDArray[np.int64]
Labels = NDArray[np.int64]
Split = Literal["train", "test", "valid"]
""""valid" of texts, and of music whose file has such a part: what is left for choosing settings."""
SPLITS: tuple[str, ...] = get_args(Split)
Size = tuple[int, int]
"""(height, width)."""
Layout = Literal["auto", "splits", "classes"]
"""What the sub-folders at the top of a folder are."""

HOLDOUT_SEED = 2024
"""Fixed, so that the test part of a data set is the same in every run."""


def check_images(images: Images, what: str = "images") -> Images:
    """uint8 [n, H, W, C] of one pixel or more; :class:`InputError` for others, in which `what` names them."""
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise InputError(f"expected {what} uint8 [n, H, W, C], got {images.dtype} {list(images.shape)}")
    return images


@dataclass(frozen=True)
class ImageBatch:
    """`images`: uint8 [B, H, W, C], scaled points, float32 [B, D], sounds, float32 [B, samples, channels], tokens,
    int64 [B, L], or what else is float32; `labels`: int64 [B], or None.

    `indices`: int64 [B], where others than those asked for had to be taken, since files can't be read any more.
    `lengths`: int64 [B], how much of each is data and no padding; None: all of it. `prompts`: int64 [B, L],
    captions as rows of tokens; None for images without. `sounds`: float32 [B, samples], the sound around each
    image; None for images without.
    """

    images: Images | Points | Tokens
    labels: Labels | None
    indices: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None
    prompts: Tokens | None = None
    sounds: Points | None = None


@dataclass(frozen=True)
class Windows:
    """The sound around each image, int16 [N, samples], 32768 being full scale, at `sample_rate` Hz."""

    samples: NDArray[np.int16]
    sample_rate: int

    def at(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of some images, float32 [B, samples] in [-1, 1]."""
        return (self.samples[indices] / np.float32(FULL_SCALE)).astype(np.float32, copy=False)

    def take(self, indices: NDArray[np.int64]) -> Windows:
        """Those at `indices`, copied."""
        return Windows(self.samples[indices], self.sample_rate)


@dataclass(frozen=True)
class Captions:
    """Of each image its caption, `texts`, and as rows of tokens, int64 [N, L]; see :class:`CaptionInfo`.

    `training`: the texts of the training part, whose words the vocabulary has, where these are of another.
    """

    texts: tuple[str, ...]
    tokens: Tokens
    training: tuple[str, ...] | None = None

    def take(self, indices: NDArray[np.int64]) -> Captions:
        """Those at `indices`."""
        texts = tuple(self.texts[place] for place in indices.tolist())
        return Captions(texts, self.tokens[indices], self.training)


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
    value_range: ValueRange | None = None
    layout: Layout = "auto"
    depth: int | None = None
    sample_rate: int | None = None
    seconds: float | None = None
    text: TextOptions | None = None
    bars: int | None = None
    steps_per_beat: int | None = None
    transpose: int | None = None
    whole: bool = False
    captions: str | None = None
    sounds: str | None = None


class Dataset(ABC):
    """Images of one size, by index.

    `sources`: what the images are made from, for translation; of the same count and order where ``info.source`` is
    paired. `keys`: of images from files, their paths in the folder without suffix, by which pairs are found;
    `sizes`: (height, width) of each image as it was found, where that is known.
    `captions`: the texts beside the images, where ``info.captions`` says so; `windows`: the sound around them,
    where ``info.window`` does.
    `skipped` and `findings`: what loading came upon. `earlier`: fingerprints that older versions gave the same
    data.
    """

    sources: Dataset | None = None
    captions: Captions | None = None
    windows: Windows | None = None
    keys: tuple[str, ...] | None = None
    sizes: tuple[Size, ...] | None = None
    earlier: tuple[str, ...] = ()
    prefetch: bool = False
    """Whether batches are worth reading ahead in a thread."""

    def __init__(self, info: DataInfo, fingerprint: str | None) -> None:
        self.info = info
        self.skipped = SkipLog()
        self.findings = Findings()
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return self.info.count

    @property
    def fingerprint(self) -> str:
        """A digest of the content, whatever the data are called and wherever they lie; resuming compares it."""
        if self._fingerprint is None:
            self._fingerprint = self._digest()
        return self._fingerprint

    @fingerprint.setter
    def fingerprint(self, digest: str) -> None:
        self._fingerprint = digest

    def _digest(self) -> str:
        """The fingerprint of data that were not given one."""
        raise NotImplementedError

    @abstractmethod
    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The images at `indices` (int64 [B], each in 0 .. len - 1), in that order."""

    def training_batch(self, indices: NDArray[np.int64], *, seed: int, first: int) -> ImageBatch:
        """What training sees of the data at `indices`, which are those from place `first` on of a run's order: of
        data that are longer than a batch a part, which `seed` and place decide."""
        return self.batch(indices)

    @property
    @abstractmethod
    def labels(self) -> Labels | None:
        """The class of each image, int64 [N]; None without labels."""

    @abstractmethod
    def take(self, indices: NDArray[np.int64]) -> Dataset:
        """A data set of the images at `indices` (int64 [n]), with the same classes. Ends this one."""

    @abstractmethod
    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> Dataset:
        """The same images with other `labels` (int64 [N]) of classes `class_names`. Ends this one."""

    def close(self) -> None:  # noqa: B027 - most data sets hold nothing
        """Frees threads and files."""

    def set_captions(self, captions: Captions) -> None:
        """Gives the images these captions; they are part of the fingerprint."""
        self.captions = captions
        digests = [text_fingerprint([digest, *captions.texts]) for digest in (self.fingerprint, *self.earlier)]
        self.fingerprint, self.earlier = digests[0], tuple(digests[1:])

    def set_windows(self, windows: Windows) -> None:
        """Gives the images this sound around them; it is part of the fingerprint."""
        self.windows = windows
        digest = hashlib.blake2b(f"{windows.sample_rate}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(windows.samples).data)
        self.fingerprint = text_fingerprint([self.fingerprint, digest.hexdigest()])

    def prompts_at(self, indices: NDArray[np.int64]) -> Tokens | None:
        """The captions of images as rows of tokens; None without."""
        return None if self.captions is None else self.captions.tokens[indices]

    def _pass_on(self, other: Dataset, indices: NDArray[np.int64] | None = None) -> None:
        """Passes what loading found, and the captions of the images at `indices` (None: all), on to `other`, made
        of this data set."""
        other.skipped, other.findings = self.skipped, self.findings
        if self.windows is not None:
            other.windows = self.windows if indices is None else self.windows.take(indices)
        if self.captions is not None:
            other.captions = self.captions if indices is None else self.captions.take(indices)


class ArrayDataset(Dataset):
    """Images in memory: `images` uint8 [N, H, W, C], `labels` int64 [N] or None."""

    def __init__(
        self, info: DataInfo, images: Images, labels: Labels | None, fingerprint: str | None = None
    ) -> None:
        super().__init__(info, fingerprint)
        self.images = images
        self._labels = labels
        self._by_files = fingerprint is not None

    def _digest(self) -> str:
        return array_fingerprint(self.images, self._labels)

    @property
    def labels(self) -> Labels | None:
        """The class of each image, int64 [N]; None without labels."""
        return self._labels

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The images at `indices`; a copy."""
        labels = None if self._labels is None else self._labels[indices]
        heard = None if self.windows is None else self.windows.at(indices)
        return ImageBatch(self.images[indices], labels, prompts=self.prompts_at(indices), sounds=heard)

    def take(self, indices: NDArray[np.int64]) -> ArrayDataset:
        """A data set of the images at `indices`, copied."""
        kept = self.info.model_copy(update={"count": len(indices)})
        labels = None if self._labels is None else self._labels[indices]
        dataset = ArrayDataset(kept, self.images[indices], labels)
        self._pass_on(dataset, indices)
        if dataset.captions is not None:
            dataset.set_captions(dataset.captions)
        if dataset.windows is not None:
            dataset.set_windows(dataset.windows)
        dataset.keys, dataset.sizes = picked(self.keys, indices), picked(self.sizes, indices)
        return dataset

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> ArrayDataset:
        """The same images with other labels."""
        dataset = ArrayDataset(
            with_classes(self.info, class_names),
            self.images,
            labels,
            self._fingerprint if self._by_files else None,
        )
        dataset.keys, dataset.sizes, dataset.earlier = self.keys, self.sizes, self.earlier
        self._pass_on(dataset)
        return dataset


def picked(values: tuple[T, ...] | None, indices: Iterable[int]) -> tuple[T, ...] | None:
    """The `values` at `indices`; None for None."""
    return None if values is None else tuple(values[i] for i in indices)


def with_classes(info: DataInfo, class_names: tuple[str, ...]) -> DataInfo:
    """`info` of the same data in these classes."""
    return info.model_copy(update={"num_classes": len(class_names), "class_names": class_names})


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
