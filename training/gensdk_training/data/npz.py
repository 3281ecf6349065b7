"""An ``.npz`` file with images or points, and labels where there are some. Pickled content is never loaded."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.data.arrays import array_dataset, take_holdout, to_labels, to_uint8_nhwc
from gensdk_training.data.dataset import ArrayDataset, LoadOptions, plain_name
from gensdk_training.data.points import PointDataset, points_from_array

IMAGE_KEYS = ("images", "image", "points", "x", "data", "array", "arr_0")
LABEL_KEYS = ("labels", "label", "y", "targets", "arr_1")
MAX_BYTES = 64 << 30
"""Arrays that unfold beyond this are refused by the file's directory, before anything is read."""


def load_npz(path: Path, key: str | None, options: LoadOptions) -> ArrayDataset | PointDataset:
    """The images, or points (float [N, D]), under `key`, or under the first of the usual keys; see
    :func:`gensdk_training.data.load_data`.

    Where the file has ``x_train`` and ``x_test`` (with ``y_train`` and ``y_test``), as Keras writes them, they
    are the two splits.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as file:
            keys = list(file.files)
            own_split = key is None and {"x_train", "x_test"} <= set(keys)
            image_key = f"x_{options.split}" if own_split else _image_key(path, keys, key)
            label_key = _label_key(path, keys, image_key, f"y_{options.split}" if own_split else None, options)
            images = file[image_key]
            labels = None if label_key is None else file[label_key]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, MemoryError, KeyError) as failure:
        if isinstance(failure, InputError):
            raise
        problem = str(failure).splitlines()[0][:120] if str(failure) else type(failure).__name__
        raise InputError(f"{path}: not a whole .npz file of plain arrays ({problem}); write it again") from None
    return _dataset(path, (image_key, images), (label_key, labels), 0.0 if own_split else options.holdout, options)


def _dataset(
    path: Path,
    images: tuple[str, NDArray[Any]],
    labels: tuple[str | None, NDArray[Any] | None],
    holdout: float,
    options: LoadOptions,
) -> ArrayDataset | PointDataset:
    if images[1].ndim == 2 and images[1].dtype.kind == "f":
        chosen = replace(options, holdout=holdout, split="train" if images[0].endswith("_test") else options.split)
        what = f"{path.name}:{images[0]}"
        return points_from_array(plain_name(path.stem), images[1], labels[1], chosen, what=what)
    pixels = to_uint8_nhwc(images[1], f"{path.name}:{images[0]}")
    classes, names = None, None
    if labels[1] is not None:
        classes, names = to_labels(labels[1], len(pixels), f"{path.name}:{labels[0]}")
    if holdout > 0 or (options.split == "test" and not images[0].endswith("_test")):
        pixels, classes = take_holdout(pixels, classes, holdout, options)
    return array_dataset(plain_name(path.stem), pixels, classes, names, options)


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > MAX_BYTES:
        raise InputError(f"{path}: unfolds to {total} bytes, at most {MAX_BYTES} are read; split it")


def _image_key(path: Path, keys: list[str], key: str | None) -> str:
    listed = ", ".join(keys[:20])
    if key is not None:
        if key not in keys:
            raise InputError(f"{path} has no array {key!r}; it has {listed}")
        return key
    for known in IMAGE_KEYS:
        if known in keys:
            return known
    raise InputError(f"{path}: none of its arrays ({listed}) is called {IMAGE_KEYS[0]!r}; write FILE.npz:KEY")


def _label_key(path: Path, keys: list[str], image_key: str, own: str | None, options: LoadOptions) -> str | None:
    if options.labels == "none":
        return None
    if options.labels != "auto":
        if options.labels not in keys:
            raise InputError(f"{path} has no labels {options.labels!r}; it has {', '.join(keys[:20])}")
        return options.labels
    usual = (own,) if own else LABEL_KEYS
    return next((known for known in usual if known in keys and known != image_key), None)
