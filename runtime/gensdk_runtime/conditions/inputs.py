"""Checks of what callers pass to a generator, each with the remedy in its message."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array, check_whole, shown
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.noise import Float32
from gensdk_runtime.spec.manifest import ModelSpec, program_graphs
from gensdk_runtime.spec.signature import ImageSpec, SourceSpec

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


def checked_images(images: Any, spec: ImageSpec | SourceSpec, size: tuple[int, int] | None = None) -> NDArray[Any]:
    """uint8 [n, H, W, C], or floats [n, C, H, W] within the value range, of one pixel or more; `size`: (H, W).

    Grey bytes may come without their channel.
    """
    array, sides = as_array(images, "images"), size or ("H", "W")
    if array.dtype == np.uint8:
        if array.ndim == 3 and spec.channels == 1:
            array = array[..., None]
        kind, axes = "uint8", ("n", *sides, spec.channels)
    elif array.dtype.kind == "f":
        kind, axes = "float", ("n", spec.channels, *sides)
    else:
        raise InputError(f"expected images as uint8 NHWC or float NCHW, got dtype {array.dtype}")
    wanted = [have if isinstance(axis, str) else axis for axis, have in zip(axes, array.shape, strict=False)]
    if array.ndim != 4 or list(array.shape) != wanted:
        raise InputError(f"expected {kind} images [{', '.join(map(str, axes))}], got {list(array.shape)}")
    if not array.size:
        raise InputError(f"expected at least one image with pixels, got shape {list(array.shape)}")
    low, high = spec.value_range
    slack = 1e-3 * (high - low)  # what half precision rounds away
    if kind == "float" and not (array.min() >= low - slack and array.max() <= high + slack):  # NaN fails both
        raise InputError(f"expected float images within [{low:g}, {high:g}], got values outside or NaN")
    return array


def check_images(images: Any, spec: ImageSpec, *, levels: int | None) -> Float32:
    """float32 [n, C, H, W] within the value range, from uint8 NHWC or float NCHW; rounded to `levels` grey levels
    of it, unless that is None."""
    array = checked_images(images, spec, (spec.height, spec.width))
    low, high = spec.value_range
    if array.dtype == np.uint8:
        unit = array.transpose(0, 3, 1, 2).astype(np.float64) / 255.0
    else:
        unit = (array.astype(np.float64) - low) / (high - low)
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
    array = checked_images(images, spec)
    if array.dtype != np.uint8:
        array = array.astype(np.float32, copy=False)
    height, width = array.shape[1:3] if array.dtype == np.uint8 else array.shape[2:]
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
