"""A folder of images. Sub-folders are classes, or the splits ``train/`` and ``test/`` (or ``val/``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_runtime.media.image_files import SUFFIXES, decode
from gensdk_runtime.media.image_folder import ImageFolder, list_images
from gensdk_runtime.media.image_pixels import fit_size
from gensdk_runtime.media.image_reader import CorruptImageError
from gensdk_runtime.printable import printable
from gensdk_training.data.caption_set import caption_of_name, with_captions
from gensdk_training.data.classes import plain_names, seen_classes
from gensdk_training.data.dataset import (
    ArrayDataset,
    Dataset,
    ImageBatch,
    Images,
    Labels,
    LoadOptions,
    holdout_indices,
    picked,
    plain_name,
    text_fingerprint,
    with_classes,
)
from gensdk_training.data.findings import Findings, SkipLog
from gensdk_training.data.image_looks import look_at_all, names_and_sizes, one_size, read_file
from gensdk_training.data.split_folders import split_folder
from gensdk_training.family import DataInfo


def load_folder(root: Path, options: LoadOptions) -> Dataset:
    """All images below `root`, sorted by path; see :func:`gensdk_training.data.load_data`.

    Files that are no images by their header are skipped here, with a warning; others when they are decoded.
    """
    if options.value_range is not None:
        raise InputError("a value range is for arrays, and image files say theirs themselves; leave it out")
    name = plain_name(root.resolve().name)
    root, told = split_folder(root, options)
    listing = list_images(root)
    files = listing.files
    if not files:
        raise InputError(
            f"no {', '.join(SUFFIXES)} file in folder {root}; give a folder with images{_others(listing)}"
        )
    names, classes = _classes(root, files, options.labels)
    skipped, findings = SkipLog(), _findings(listing, told)
    every, places = [path.relative_to(root).as_posix() for path in files], np.arange(len(files))
    for path, problem in listing.broken:
        skipped.add(str(path), problem)
    if not told and (options.holdout > 0 or options.split == "test"):
        chosen = holdout_indices(len(files), options.holdout, options.split)
        findings.split = f"{options.split}: {len(files)} files, {options.holdout:g} of them for the test"
        files, places = [files[i] for i in chosen], chosen
        classes = None if classes is None else classes[chosen]
    looks = look_at_all(files, skipped)
    if not looks:
        raise InputError(
            f"none of the {len(files)} image files in {root} can be read; give PNG, JPEG, BMP, WebP, TIFF or GIF"
        )
    kept = list(looks)
    headers = {index: look.header for index, look in looks.items()}
    height, width = options.size or one_size(headers, files)
    channels = options.channels or (1 if all(h.grey for h in headers.values()) else 3)
    if transparent := sum(header.alpha for header in headers.values()) if channels != 4 else 0:
        findings.note(f"{transparent} images may be transparent: they are laid on white")
    if several := sum(header.frames > 1 for header in headers.values()):
        findings.note(f"the first picture is taken of files that hold several: {several}")
    shown = None if names is None else _plain(names, findings)
    info = DataInfo(
        name=name,
        channels=channels,
        height=height,
        width=width,
        count=len(kept),
        num_classes=None if shown is None else len(shown),
        class_names=shown,
    )
    relative = [files[i].relative_to(root) for i in kept]
    folder = FolderDataset(
        info,
        [files[i] for i in kept],
        None if classes is None else classes[kept],
        text_fingerprint(f"{path.as_posix()} {looks[i].digest}" for path, i in zip(relative, kept, strict=True)),
        options=options,
        skipped=skipped,
        keys=tuple(path.with_suffix("").as_posix() for path in relative),
    )
    folder.sizes = tuple((header.height, header.width) for header in headers.values())
    folder.findings = findings
    folder.earlier = (names_and_sizes(files, root),)
    fits = info.count * height * width * channels <= options.memory_limit
    if not fits:
        findings.note("read along the way: files that turn out to be broken are replaced by the next good one")
    if options.captions is not None:
        if options.captions != "names":
            raise InputError(
                f"captions={options.captions[:80]!r}: those of a folder are its files' names; use 'names'"
            )
        with_captions(folder, [caption_of_name(name) for name in every], places[kept], options)
    return seen_classes(folder.in_memory() if fits else folder)


class FolderDataset(Dataset):
    """Images that are decoded when they are asked for, by a pool of threads (decoders free the interpreter).

    A file that can't be decoded is named, counted, and replaced by the next good one in order, so that a run
    goes on and stays repeatable.
    """

    prefetch = True

    def __init__(
        self,
        info: DataInfo,
        files: Sequence[Path],
        labels: Labels | None,
        fingerprint: str,
        *,
        options: LoadOptions,
        skipped: SkipLog,
        keys: tuple[str, ...],
    ) -> None:
        super().__init__(info, fingerprint)
        self.skipped = skipped
        self.keys = keys
        self._files = files
        self._labels = labels
        self._options = options
        self._fit = options.fit
        self._resize = options.size is not None
        self._bad: set[int] = set()
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="gensdk-data")

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The images at `indices`. Raises :class:`TrainingError` once no file is readable any more."""
        chosen = [int(i) for i in indices]
        images: list[Images] = []
        for position, first in enumerate(self._pool.map(self._try_decode, chosen)):
            result = first
            while isinstance(result, str):
                self._mark_bad(chosen[position], result)
                chosen[position] = self._next_good(chosen[position])
                result = self._try_decode(chosen[position])
            images.append(result)
        taken = np.asarray(chosen, np.int64)
        labels = None if self._labels is None else self._labels[taken]
        return ImageBatch(np.stack(images), labels, taken, prompts=self.prompts_at(taken))

    @property
    def labels(self) -> Labels | None:
        """The class of each image, int64 [N]; None without labels."""
        return self._labels

    def take(self, indices: NDArray[np.int64]) -> FolderDataset:
        """A data set of the files at `indices`."""
        self.close()
        kept = self.info.model_copy(update={"count": len(indices)})
        labels = None if self._labels is None else self._labels[indices]
        chosen, *earlier = (
            text_fingerprint([digest, *(str(index) for index in indices)])
            for digest in (self.fingerprint, *self.earlier)
        )
        return self._copy(kept, labels, chosen, earlier, [int(index) for index in indices])

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> FolderDataset:
        """The same files with other labels."""
        self.close()
        every = list(range(len(self._files)))
        return self._copy(with_classes(self.info, class_names), labels, self.fingerprint, self.earlier, every)

    def _copy(
        self, info: DataInfo, labels: Labels | None, digest: str, earlier: Iterable[str], indices: list[int]
    ) -> FolderDataset:
        keys = picked(self.keys, indices) or ()
        files = [self._files[i] for i in indices]
        dataset = FolderDataset(
            info, files, labels, digest, options=self._options, skipped=self.skipped, keys=keys
        )
        dataset.earlier, dataset.sizes = tuple(earlier), picked(self.sizes, indices)
        self._pass_on(dataset, np.array(indices, np.int64))
        return dataset

    def in_memory(self) -> ArrayDataset:
        """Everything decoded at once; files that can't be are left out. Closes this data set."""
        info = self.info
        images = np.empty((info.count, info.height, info.width, info.channels), np.uint8)
        good = np.zeros(info.count, bool)
        for index, result in enumerate(self._pool.map(self._try_decode, range(info.count))):
            if isinstance(result, str):
                self._mark_bad(index, result)
            else:
                images[index], good[index] = result, True
        self.close()
        if not good.any():
            reason = self.skipped.reasons.most_common(1)[0][0]
            raise InputError(f"none of the {info.count} images of {info.name!r} can be decoded ({reason})")
        if not good.all():
            images = images[good]
        labels = None if self._labels is None else self._labels[good]
        kept = info.model_copy(update={"count": len(images)})
        dataset = ArrayDataset(kept, images, labels, self.fingerprint)
        fine = np.flatnonzero(good).tolist()
        dataset.keys, dataset.sizes = picked(self.keys, fine), picked(self.sizes, fine)
        dataset.earlier = self.earlier
        self._pass_on(dataset, np.flatnonzero(good))
        return dataset

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _try_decode(self, index: int) -> Images | str:
        if index in self._bad:
            return "known to be bad"
        try:
            image = decode(read_file(self._files[index]), self.info.channels, depth=self._options.depth)
        except CorruptImageError as problem:
            return str(problem)
        if self._resize:
            image = fit_size(image, (self.info.height, self.info.width), self._fit)
        if image.shape[:2] != (self.info.height, self.info.width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            return f"decoded as {found}, expected {self.info.width}x{self.info.height}; give a size to resize"
        return image

    def _mark_bad(self, index: int, problem: str) -> None:
        if index not in self._bad:
            self._bad.add(index)
            self.skipped.add(str(self._files[index]), problem)

    def _next_good(self, index: int) -> int:
        if len(self._bad) == len(self._files):
            raise TrainingError(f"no image of {self.info.name!r} can be read any more; check the disk")
        while index in self._bad:
            index = (index + 1) % len(self._files)
        return index


def _findings(listing: ImageFolder, split: str) -> Findings:
    findings = Findings(values="uint8, from image files", split=split, left_out=listing.left_out)
    findings.links, findings.outside = listing.links, listing.outside
    if listing.empty:
        more = f" and {len(listing.empty) - 10} more" if len(listing.empty) > 10 else ""
        findings.note(f"folders without an image: {', '.join(listing.empty[:10])}{more}")
    return findings


def _others(listing: ImageFolder) -> str:
    if listing.broken:
        path, problem = listing.broken[0]
        return f" ({printable(path.name)}: {problem})"
    told = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in listing.left_out.most_common(5))
    return f" (it has {printable(told)})" if told else ""


def _classes(root: Path, files: Iterable[Path], labels: str) -> tuple[tuple[str, ...] | None, Labels | None]:
    """(class names, label of each file) from the first folder below `root`; (None, None) without classes."""
    if labels not in ("auto", "none"):
        raise InputError(f"labels={labels!r}: the labels of a folder are its sub-folders; use 'auto' or 'none'")
    parts = [path.relative_to(root).parts for path in files]
    top = [part[0] for part in parts if len(part) > 1]
    if labels == "none" or not top:
        return None, None
    if len(top) != len(parts):
        beside = next(part[0] for part in parts if len(part) == 1)
        raise InputError(f"{root}: {beside!r} lies beside the class folders; move it, or use labels='none'")
    names = tuple(sorted(set(top)))
    position = {name: index for index, name in enumerate(names)}
    return names, np.array([position[name] for name in top], np.int64)


def _plain(names: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
    """The names of classes as a model can carry them; says which were changed."""
    shown, changed = plain_names(names)
    if changed:
        told = ", ".join(ascii(name) for name in changed[:3])
        findings.note(
            f"names of {len(changed)} class folders hold what can't be printed, and were changed: {told}"
        )
    return shown
