"""Checks of what callers pass to a generator, each with the remedy in its message."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_whole, shown
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.noise import Float32
from gensdk_runtime.spec.manifest import ModelSpec, program_graphs
from gensdk_runtime.spec.signature import ImageSpec

MAX_SAMPLES = 10_000_000


def check_count(n: object) -> int:
    """A number of samples from 1 to ten million."""
    return check_whole(n, "n", least=1, most=MAX_SAMPLES)


def check_iterations(times: object) -> int:
    """A number of iterations from 1 to ten thousand."""
    return check_whole(times, "num_iterations", least=1, most=10_000)


def check_batch_size(size: object, most: int) -> int:
    """A batch size from 1 to `most`, the bundle's largest."""
    return check_whole(size, "batch_size", least=1, most=most)


def as_array(value: Any, what: str) -> NDArray[Any]:
    """`value` as an array: a NumPy one, or what turns into one, such as a tensor in main memory.

    :class:`InputError`, naming `what`, for a list of lists of several lengths, a tensor on a device or with a
    gradient, and objects.
    """
    try:
        array = np.asarray(value)
    except Exception as failure:  # whatever __array__ of a stranger raises
        reason = " ".join(str(failure).split())[:120]
        raise InputError(f"expected {what} as an array, got {type(value).__name__} ({reason})") from None
    if array.dtype == object:
        raise InputError(f"expected {what} as an array of numbers, got {type(value).__name__}")
    return array


def check_labels(label: Any, n: int, model: ModelSpec) -> NDArray[np.int64] | None:
    """int64 [n] of class numbers; None where none was given."""
    if label is None:
        return None
    if model.num_classes is None:
        raise InputError(f"model {model.name!r} has no classes; leave label out")
    if isinstance(label, np.ndarray):
        label = label.tolist()
    if isinstance(label, str) or not isinstance(label, Sequence):
        return np.full(n, _class_number(label, model), np.int64)
    if len(label) != n:
        raise InputError(f"expected one label for each of the {n} samples, got {len(label)}")
    return np.array([_class_number(entry, model) for entry in label], np.int64)


def _class_number(label: Any, model: ModelSpec) -> int:
    names = model.class_names or ()
    classes = model.num_classes or 0
    if isinstance(label, str):
        if label in names:
            return names.index(label)
        if not label.isascii() or not label.isdigit() or len(label) > 9:
            known = names or (f"0 .. {classes - 1}",)
            raise InputError(f"no class {label[:80]!r}{did_you_mean(label[:80], known)}")
        label = int(label)
    try:
        number = operator.index(label)
    except TypeError:
        raise InputError(f"expected label as a class number or name, got {type(label).__name__}") from None
    if isinstance(label, bool | np.bool_) or not 0 <= number < classes:
        raise InputError(f"expected label from 0 to {classes - 1}, got {shown(label)}")
    return number


def check_latents(latents: Any, n: int, shape: tuple[int, ...] | None) -> Float32:
    """Finite float32 [n, *shape], contiguous."""
    if shape is None:
        raise InputError("this model takes no latents; leave latents out")
    given = as_array(latents, "latents")
    if given.dtype.kind not in "fiub":
        kind = given.dtype if isinstance(latents, np.ndarray) else type(latents).__name__
        raise InputError(f"expected latents as a float array, got {kind}")
    array = np.ascontiguousarray(given, dtype=np.float32)
    if array.shape != (n, *shape):
        raise InputError(f"expected latents of shape {[n, *shape]}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise InputError("latents hold NaN or infinity; expected finite numbers")
    return array


def check_images(images: Any, spec: ImageSpec, *, levels: int | None) -> Float32:
    """float32 [n, C, H, W] within the value range, from uint8 NHWC or float NCHW; rounded to `levels` grey levels
    of it, unless that is None."""
    array = as_array(images, "images")
    channels, height, width = spec.shape
    low, high = spec.value_range
    if array.dtype == np.uint8:
        if array.ndim == 3 and channels == 1:
            array = array[..., None]
        if array.ndim != 4 or array.shape[1:] != (height, width, channels):
            raise InputError(f"expected uint8 images [n, {height}, {width}, {channels}], got {list(array.shape)}")
        unit = array.transpose(0, 3, 1, 2).astype(np.float64) / 255.0
    elif array.dtype.kind == "f":
        if array.ndim != 4 or array.shape[1:] != spec.shape:
            raise InputError(f"expected float images [n, {channels}, {height}, {width}], got {list(array.shape)}")
        unit = (array.astype(np.float64) - low) / (high - low)
        if not ((unit >= -1e-4) & (unit <= 1 + 1e-4)).all():  # NaN fails both
            raise InputError(f"expected float images within [{low:g}, {high:g}], got values outside or NaN")
    else:
        raise InputError(f"expected images as uint8 NHWC or float NCHW, got dtype {array.dtype}")
    if not len(array):
        raise InputError("expected at least one image, got none")
    unit = np.clip(unit, 0, 1)
    if levels is not None:
        unit = np.rint(unit * (levels - 1)) / (levels - 1)
    return (low + unit * (high - low)).astype(np.float32)


def check_mask(mask: Any, n: int, spec: ImageSpec) -> Float32:
    """float32 [n, 1 or C, H, W] of weights from 0 to 1, from a mask [H, W], [n, H, W] or [n, C, H, W]."""
    array = as_array(mask, "mask")
    if array.dtype.kind not in "bfiu":
        raise InputError(f"expected mask as numbers or bools, got dtype {array.dtype}")
    channels, height, width = spec.shape
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        array = array[:, None]
    fits = array.ndim == 4 and array.shape[0] in (1, n) and array.shape[1] in (1, channels)
    if not fits or array.shape[2:] != (height, width):
        got = list(np.shape(mask))
        raise InputError(
            f"expected mask [{height}, {width}], [{n}, {height}, {width}] or one a channel, got {got}"
        )
    if not ((array >= 0) & (array <= 1)).all():  # NaN fails both
        raise InputError("expected mask from 0 (missing) to 1 (known), got values outside or NaN")
    return np.broadcast_to(array.astype(np.float32), (n, *array.shape[1:]))


def check_sources(images: Any, model: ModelSpec, n: int | None) -> NDArray[Any]:
    """uint8 [n, H, W, C] or float32 [n, C, H, W], contiguous, of a size that `model` takes."""
    spec = model.source
    assert spec is not None  # noqa: S101 - the caller looked
    array = as_array(images, "images")
    if array.dtype == np.uint8:
        if array.ndim == 3 and spec.channels == 1:
            array = array[..., None]
        if array.ndim != 4 or array.shape[3] != spec.channels:
            raise InputError(f"expected uint8 images [n, H, W, {spec.channels}], got {list(array.shape)}")
        height, width = array.shape[1:3]
    elif array.dtype.kind == "f":
        if array.ndim != 4 or array.shape[1] != spec.channels:
            raise InputError(f"expected float images [n, {spec.channels}, H, W], got {list(array.shape)}")
        array, (height, width) = array.astype(np.float32, copy=False), array.shape[2:]
        low, high = spec.value_range
        slack = 1e-3 * (high - low)
        if array.size and not (array.min() >= low - slack and array.max() <= high + slack):  # NaN fails both
            raise InputError(f"expected float images within [{low:g}, {high:g}], got values outside or NaN")
    else:
        raise InputError(f"expected images as uint8 NHWC or float NCHW, got dtype {array.dtype}")
    if not array.size:
        raise InputError(f"expected at least one image with pixels, got shape {list(array.shape)}")
    if n is not None and len(array) != check_count(n):
        raise InputError(f"expected one image for each of the {n} samples, got {len(array)}")
    largest = max_source_size(model)
    if height > largest[0] or width > largest[1]:
        raise InputError(
            f"expected images of at most {largest[0]} x {largest[1]} (height x width), got {height} x {width}; "
            "Generator.translate cuts larger ones into tiles"
        )
    return np.ascontiguousarray(array)


def max_source_size(model: ModelSpec) -> tuple[int, int]:
    """The largest height and width that the graph of a translation model takes at once."""
    spec = model.graph(program_graphs(model.program)[0]).input("source")
    axes = MAX_SIDE, MAX_SIDE
    if spec is not None and len(spec.shape) == 4:
        axes = spec.shape[1:3] if spec.dtype == "uint8" else spec.shape[2:]  # type: ignore[assignment]
    height, width = (axis if isinstance(axis, int) else MAX_SIDE for axis in axes)
    return height, width
