"""Arrays that came from outside as data sets, and labels of any kind as classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import fit_size, to_channels
from gensdk_training.data.classes import plain_names
from gensdk_training.data.dataset import ArrayDataset, Images, Labels, LoadOptions, holdout_indices
from gensdk_training.data.findings import log
from gensdk_training.family import DataInfo

MAX_CLASSES = 100_000
MANY_CLASSES = 1000
"""From here on labels must repeat, or they are measurements and not classes."""


def array_dataset(
    name: str,
    images: Images,
    labels: Labels | None,
    class_names: tuple[str, ...] | None,
    options: LoadOptions,
    *,
    values: str = "uint8",
) -> ArrayDataset:
    """`images` uint8 [N, H, W, C] at the size and with the channels of `options`, as a data set.

    `values`: in words, what they were before they became uint8.
    """
    found = (images.shape[1], images.shape[2])
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
    dataset = ArrayDataset(info, np.ascontiguousarray(images), labels)
    dataset.findings.values = values
    dataset.sizes = (found,) * len(images)
    return dataset


def take_holdout(
    images: Images, labels: Labels | None, fraction: float, options: LoadOptions
) -> tuple[Images, Labels | None]:
    """The part of the data that `options.split` names."""
    if fraction == 0 and options.split == "train":
        return images, labels
    chosen = holdout_indices(len(images), fraction, options.split)
    return images[chosen], None if labels is None else labels[chosen]


def to_labels(array: NDArray[Any], count: int, what: str) -> tuple[Labels, tuple[str, ...]]:
    """(int64 [count], class names) from whole numbers or names: each value that occurs is a class, in order.

    Raises :class:`InputError` for negative numbers, fractions, and more values than can be classes.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        hint = "; of one-hot labels give the argmax" if array.ndim == 2 and len(array) == count else ""
        raise InputError(
            f"{what}: expected {count} labels, one for each image, got shape {list(array.shape)}{hint}"
        )
    if array.dtype.kind == "S":
        array = np.array([value.decode("utf-8", "surrogateescape") for value in array.tolist()])
    if array.dtype.kind == "f" and np.isfinite(array).all() and (np.abs(array) < 2**53).all():
        array = array.astype(np.int64) if (array == np.rint(array)).all() else array
    if array.dtype.kind not in "iuU":
        raise InputError(f"{what}: expected labels as whole numbers or names, got {array.dtype}")
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise InputError(
            f"{what}: expected labels from 0, got {int(array.min())}; number the classes from 0, or write names"
        )
    values, positions = np.unique(array, return_inverse=True)
    if len(values) > MAX_CLASSES or (len(values) > MANY_CLASSES and 2 * len(values) > count):
        raise InputError(
            f"{what}: {len(values)} different labels for {count} items are no classes; name other labels, or none"
        )
    names, changed = plain_names([str(value) for value in values.tolist()])
    if changed:
        log.warning("%s: %d names of classes were changed to be printable", what, len(changed))
    return positions.reshape(-1).astype(np.int64), names
