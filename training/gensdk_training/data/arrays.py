"""Arrays that came from outside, checked and brought to uint8 NHWC: shapes, ranges, NaN, labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import to_channels
from gensdk_training.data.dataset import (
    ArrayDataset,
    Images,
    Labels,
    LoadOptions,
    holdout_indices,
)
from gensdk_training.data.images import fit_size
from gensdk_training.family import DataInfo

_CHUNK = 4096


def array_dataset(
    name: str,
    images: Images,
    labels: Labels | None,
    class_names: tuple[str, ...] | None,
    options: LoadOptions,
) -> ArrayDataset:
    """`images` uint8 [N, H, W, C] at the size and with the channels of `options`, as a data set."""
    if options.labels == "none":
        labels = class_names = None
    if options.channels is not None and options.channels != images.shape[3]:
        images = np.stack([to_channels(image, options.channels) for image in images])
    if options.size is not None and options.size != images.shape[1:3]:
        images = np.stack([fit_size(image, options.size, options.fit) for image in images])
    info = DataInfo(
        name=name,
        channels=images.shape[3],
        height=images.shape[1],
        width=images.shape[2],
        count=len(images),
        num_classes=len(class_names) if class_names else None,
        class_names=class_names,
    )
    return ArrayDataset(info, np.ascontiguousarray(images), labels)


def take_holdout(
    images: Images, labels: Labels | None, fraction: float, options: LoadOptions
) -> tuple[Images, Labels | None]:
    """The part of the data that `options.split` names."""
    if fraction == 0 and options.split == "train":
        return images, labels
    chosen = holdout_indices(len(images), fraction, options.split)
    return images[chosen], None if labels is None else labels[chosen]


def to_uint8_nhwc(array: NDArray[Any], what: str) -> Images:
    """Images as uint8 [N, H, W, C] from uint8 or float, in NHWC, NCHW or NHW order.

    Floats lie in [0, 1], or in [-1, 1] where one is negative. The channel axis is the one of size 1, 3 or 4,
    the last one where both could be. Raises :class:`InputError` for anything else.
    """
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise InputError(f"{what}: expected images as NHWC, NCHW or NHW, got shape {list(array.shape)}")
    if array.shape[3] not in (1, 3, 4):
        if array.shape[1] not in (1, 3, 4):
            raise InputError(f"{what}: expected 1, 3 or 4 channels, got shape {list(array.shape)}")
        array = np.moveaxis(array, 1, 3)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{what}: expected uint8 or float images, got {array.dtype}; convert them to uint8")
    return _floats_to_uint8(array, what)


def _floats_to_uint8(array: NDArray[Any], what: str) -> Images:
    low, high = float(array.min()), float(array.max())  # NaN, where there is one, comes through min and max
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{what}: has NaN or infinite values; remove those images")
    if low < -1 or high > 1:
        raise InputError(
            f"{what}: expected float images in [0, 1] or [-1, 1], got [{low:g}, {high:g}]; scale them"
        )
    result = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _CHUNK):  # a chunk at a time: a float64 copy of everything may not fit
        part = array[start : start + _CHUNK].astype(np.float64)
        part = part * 255 if low >= 0 else (part + 1) * 127.5
        result[start : start + _CHUNK] = np.rint(part)
    return result


def to_labels(array: NDArray[Any], count: int, what: str) -> tuple[Labels, tuple[str, ...]]:
    """(int64 [count], class names) from whole numbers 0 .. K - 1 or from names. Raises :class:`InputError`."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise InputError(f"{what}: expected {count} labels, one for each image, got shape {list(array.shape)}")
    if array.dtype.kind == "U":
        unique, positions = np.unique(array, return_inverse=True)
        return positions.astype(np.int64), tuple(str(value) for value in unique)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what}: expected labels as whole numbers or names, got {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 1_000_000:
        raise InputError(f"{what}: expected labels 0 .. 999999, got {low} .. {high}; number the classes from 0")
    return array.astype(np.int64), tuple(str(value) for value in range(high + 1))
