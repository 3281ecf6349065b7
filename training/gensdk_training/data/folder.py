"""A folder of images. Sub-folders are classes; ``train/`` and ``test/`` at the top are the two splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_runtime.media.image_files import (
    MAX_FILE_BYTES,
    SUFFIXES,
    CorruptImageError,
    Header,
    check_pixels,
    decode,
    read_header,
)
from gensdk_training.data.dataset import (
    ArrayDataset,
    Dataset,
    ImageBatch,
    Images,
    Labels,
    LoadOptions,
    SkipLog,
    holdout_indices,
    plain_name,
    text_fingerprint,
)
from gensdk_training.data.images import fit_size
from gensdk_training.family import DataInfo

_HEADER_BYTES = 1 << 16


def load_folder(root: Path, options: LoadOptions) -> Dataset:
    """All images below `root`, sorted by path; see :func:`gensdk_training.data.load_data`.

    Files that are no images by their header are skipped here, with a warning; others when they are decoded.
    """
    name = plain_name(root.resolve().name)
    root, split_by_folder = _split_folder(root, options)
    files = _list_images(root)
    if not files:
        raise InputError(f"no {', '.join(SUFFIXES)} file in folder {root}; give a folder with images")
    names, classes = _classes(root, files, options.labels)
    if not split_by_folder and (options.holdout > 0 or options.split == "test"):
        chosen = holdout_indices(len(files), options.holdout, options.split)
        files = [files[i] for i in chosen]
        classes = None if classes is None else classes[chosen]
    fingerprint = text_fingerprint(f"{f.relative_to(root).as_posix()} {f.stat().st_size}" for f in files)
    skipped = SkipLog()
    headers = _read_headers(files, skipped)
    if not headers:
        raise InputError(
            f"none of the {len(files)} image files in {root} can be read; give PNG, JPEG, BMP or WebP"
        )
    height, width = options.size or _one_size(headers, files)
    channels = options.channels or (1 if all(h.grey for h in headers.values()) else 3)
    kept = list(headers)
    info = DataInfo(
        name=name,
        channels=channels,
        height=height,
        width=width,
        count=len(kept),
        num_classes=len(names) if names else None,
        class_names=names,
    )
    labels = None if classes is None else classes[kept]
    folder = FolderDataset(info, [files[i] for i in kept], labels, fingerprint, options=options, skipped=skipped)
    fits = info.count * height * width * channels <= options.memory_limit
    return folder.in_memory() if fits else folder


class FolderDataset(Dataset):
    """Images that are decoded when they are asked for, by a pool of threads (OpenCV frees the interpreter).

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
    ) -> None:
        super().__init__(info, fingerprint)
        self.skipped = skipped
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
        labels = None if self._labels is None else self._labels[np.asarray(chosen, np.int64)]
        return ImageBatch(np.stack(images), labels)

    @property
    def labels(self) -> Labels | None:
        """The class of each image, int64 [N]; None without labels."""
        return self._labels

    def take(self, indices: NDArray[np.int64]) -> FolderDataset:
        """A data set of the files at `indices`."""
        self.close()
        files, kept = [self._files[i] for i in indices], self.info.model_copy(update={"count": len(indices)})
        labels = None if self._labels is None else self._labels[indices]
        chosen = text_fingerprint([self.fingerprint, *(str(index) for index in indices)])
        return FolderDataset(kept, files, labels, chosen, options=self._options, skipped=self.skipped)

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
            raise InputError(f"none of the {info.count} images of {info.name!r} can be decoded")
        if not good.all():
            images = images[good]
        labels = None if self._labels is None else self._labels[good]
        kept = info.model_copy(update={"count": len(images)})
        dataset = ArrayDataset(kept, images, labels, self.fingerprint)
        dataset.skipped = self.skipped
        return dataset

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _try_decode(self, index: int) -> Images | str:
        if index in self._bad:
            return "known to be bad"
        try:
            image = decode(_read(self._files[index]), self.info.channels)
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


def _read(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as failure:
        raise CorruptImageError(failure.strerror or "it can't be read") from None
    if len(data) > limit:
        raise CorruptImageError(f"larger than {limit} bytes")
    return data


def _read_headers(files: Sequence[Path], skipped: SkipLog) -> dict[int, Header]:
    """The headers of the readable files, by index. Raises :class:`InputError` for one that is too large."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        results = list(pool.map(_header, files))
    headers: dict[int, Header] = {}
    for index, result in enumerate(results):
        if isinstance(result, str):
            skipped.add(str(files[index]), result)
        else:
            check_pixels(result, str(files[index]))
            headers[index] = result
    return headers


def _header(path: Path) -> Header | str:
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
        try:
            return read_header(start)
        except CorruptImageError:  # a JPEG may carry a large colour profile first
            return read_header(_read(path))
    except CorruptImageError as problem:
        return str(problem)
    except OSError as failure:
        return failure.strerror or "it can't be read"


def _list_images(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(folder, name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _split_folder(root: Path, options: LoadOptions) -> tuple[Path, bool]:
    """The folder of the split, where the data brings its own."""
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        return root, False
    if options.holdout > 0:
        raise InputError(f"{root} has its own train/ and test/; leave holdout at 0")
    return root / options.split, True


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


def _one_size(headers: dict[int, Header], files: Sequence[Path]) -> tuple[int, int]:
    first, *others = headers
    size = (headers[first].height, headers[first].width)
    for index in others:
        other = (headers[index].height, headers[index].width)
        if other != size:
            raise InputError(
                f"images differ in size: {files[first].name} is {size[1]}x{size[0]}, {files[index].name} "
                f"{other[1]}x{other[0]}; give a size to resize them"
            )
    return size
