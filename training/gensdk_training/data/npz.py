"""An ``.npz`` or ``.npy`` file with images or points, and labels where there are some. Pickle is never loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gensdk_runtime.bundles.arrays_file import npz_names, read_npy, read_npz
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.system import physical_memory
from gensdk_runtime.media.image_sets import IMAGE_KEYS
from gensdk_runtime.media.pixel_values import to_pixels
from gensdk_runtime.printable import printable
from gensdk_training.data.arrays import array_dataset, take_holdout, to_labels
from gensdk_training.data.caption_set import texts_of, with_captions
from gensdk_training.data.dataset import ArrayDataset, LoadOptions, holdout_indices, plain_name
from gensdk_training.data.heard_frames import window_keys, with_windows
from gensdk_training.data.point_set import PointDataset, points_from_array

KEYS = (*IMAGE_KEYS[:2], "points", *IMAGE_KEYS[2:])
LABEL_KEYS = ("labels", "label", "y", "targets", "arr_1")
MAX_BYTES = 64 << 30
"""Arrays larger than this, or than the machine's memory, are refused before anything is read."""


def load_npz(path: Path, key: str | None, options: LoadOptions) -> ArrayDataset | PointDataset:
    """The images, or points (float [N, D]), under `key`, or under the first of the usual keys; see
    :func:`gensdk_training.data.load_data`.

    Where the file has ``x_train`` and ``x_test`` (with ``y_train`` and ``y_test``), as Keras writes them, they
    are the two splits.
    """
    keys = npz_names(path)
    own_split = key is None and {"x_train", "x_test"} <= set(keys)
    image_key = f"x_{options.split}" if own_split else _image_key(path, keys, key)
    label_key = _label_key(path, keys, image_key, f"y_{options.split}" if own_split else None, options)
    wanted = [image_key] if label_key is None else [image_key, label_key]
    if options.captions is not None:
        if options.captions not in keys:
            raise InputError(
                f"{path} has no captions {options.captions[:80]!r}; it has {printable(', '.join(keys[:20]))}"
            )
        wanted.append(options.captions)
    if options.sounds is not None:
        wanted += window_keys(keys, options.sounds, path)
    arrays = read_npz(path, names=wanted, limit_bytes=_limit())
    labels = None if label_key is None else arrays[label_key]
    holdout = 0.0 if own_split else options.holdout
    dataset = _dataset(path, (image_key, arrays[image_key]), (label_key, labels), holdout, options)
    if options.captions is not None:
        shared = replace(options, holdout=holdout)
        _add_captions(dataset, arrays[options.captions], len(arrays[image_key]), shared, what=path.name)
    if options.sounds is not None:
        shared = replace(options, holdout=holdout)
        with_windows(dataset, arrays, len(arrays[image_key]), shared, what=path.name)
    if own_split:
        dataset.findings.split = f"{image_key!r} of the file, which has both splits"
    dataset.findings.note(
        f"images are the array {image_key!r}, labels {'none' if label_key is None else repr(label_key)}"
        + _unused(keys, wanted, own_split=own_split)
    )
    return dataset


def _add_captions(
    dataset: ArrayDataset | PointDataset, array: NDArray[Any], count: int, options: LoadOptions, *, what: str
) -> None:
    """Captions of the images that were taken of `count`."""
    if not isinstance(dataset, ArrayDataset):
        raise InputError(f"{what}: captions go with images, these data are {dataset.info.kind}; leave them out")
    texts, files = texts_of(array, count, f"{what}:{options.captions}")
    if files:
        dataset.findings.note("captions are the words in names of files")
    kept = None if len(dataset) == count else holdout_indices(count, options.holdout, options.split)
    with_captions(dataset, texts, kept, options)


def load_npy(path: Path, options: LoadOptions) -> ArrayDataset | PointDataset:
    """The images, or points (float [N, D]), of an ``.npy`` file, which holds no labels."""
    if options.labels not in ("auto", "none"):
        raise InputError(f"{path} holds one array, and no labels {options.labels!r}; leave labels out")
    return _dataset(path, ("", read_npy(path, limit_bytes=_limit())), (None, None), options.holdout, options)


def _limit() -> int:
    return min(MAX_BYTES, physical_memory() or MAX_BYTES)


def _unused(keys: list[str], wanted: list[str], *, own_split: bool) -> str:
    other = [key for key in keys if key not in wanted and not (own_split and key.endswith(("_train", "_test")))]
    return f"; not used: {printable(', '.join(other[:10]))}" if other else ""


def _dataset(
    path: Path,
    images: tuple[str, NDArray[Any]],
    labels: tuple[str | None, NDArray[Any] | None],
    holdout: float,
    options: LoadOptions,
) -> ArrayDataset | PointDataset:
    what = f"{path.name}:{images[0]}" if images[0] else path.name
    if images[1].ndim == 2 and images[1].dtype.kind == "f":
        chosen = replace(options, holdout=holdout, split="train" if images[0].endswith("_test") else options.split)
        return points_from_array(plain_name(path.stem), images[1], labels[1], chosen, what=what)
    pixels = to_pixels(images[1], what, options.value_range)
    array, classes, names = pixels.images, None, None
    if labels[1] is not None:
        classes, names = to_labels(labels[1], len(array), f"{path.name}:{labels[0]}")
    if holdout > 0 or (options.split == "test" and not images[0].endswith("_test")):
        array, classes = take_holdout(array, classes, holdout, options)
    return array_dataset(plain_name(path.stem), array, classes, names, options, values=pixels.told)


def _image_key(path: Path, keys: list[str], key: str | None) -> str:
    listed = printable(", ".join(keys[:20]))
    if key is not None:
        if key not in keys:
            raise InputError(f"{path} has no array {key!r}; it has {listed}")
        return key
    for known in KEYS:
        if known in keys:
            return known
    raise InputError(f"{path}: none of its arrays ({listed}) is called {KEYS[0]!r}; write FILE.npz:KEY")


def _label_key(path: Path, keys: list[str], image_key: str, own: str | None, options: LoadOptions) -> str | None:
    if options.labels == "none":
        return None
    if options.labels != "auto":
        if options.labels not in keys:
            raise InputError(f"{path} has no labels {options.labels!r}; it has {printable(', '.join(keys[:20]))}")
        return options.labels
    usual = (own,) if own else LABEL_KEYS
    return next((known for known in usual if known in keys and known != image_key), None)
