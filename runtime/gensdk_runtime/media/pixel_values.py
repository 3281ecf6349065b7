"""Arrays of pixels to uint8 NHWC: which value is black and which is white is decided by all values together.

One value slightly outside proves nothing: resampling by bicubic or Lanczos kernels overshoots at every edge. Where
the values allow two readings, the caller must give the range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_samples import UNCLEAR

Images = NDArray[np.uint8]
ValueRange = tuple[float, float]
"""(black, white)."""

OVERSHOOT = 0.6
"""How far beyond a range resampling may reach, as a share of it: hard dots enlarged by a bicubic kernel reach
0.26, by Lanczos 0.6; digits 0.42."""
NEGATIVE_SHARE, FAR, FAR_SHARE = 0.3, 0.25, 0.03
"""Of all values, so many below black, or so many further below than `FAR`, and the range is in doubt: overshoot is
found beside edges alone."""
SEEN_SHARE = 0.001
"""A range needs so many values in it that no narrower range has."""
OUTSIDE_SHARE = 0.05
"""Of the values, at most, outside of a range that was given."""
FEW_LEVELS = 16
"""Whole numbers that end here are rarely levels of 255: the digits of scikit-learn end at 16, masks at 1."""
_CHUNK = 4096
_ASK = "say which values are black and white, as in --value-range 0,255"


@dataclass(frozen=True)
class Pixels:
    """`images` uint8 [N, H, W, C], and `told`: how the values were read and what became of them, in words."""

    images: Images
    told: str


def to_pixels(array: NDArray[Any], what: str, value_range: ValueRange | None = None) -> Pixels:
    """Images as uint8 from bools, whole numbers or floats, in NHWC, NCHW or NHW order.

    The channel axis is the one of size 1, 3 or 4, the last one where both could be. `value_range`: the values that
    are black and white; None: bools are both; whole numbers go to 255, or 65535; floats to 1 from 0 or -1, or from
    0 to 255. What lies outside is clipped, and told. `what` names the array in errors. Raises :class:`InputError`
    for other shapes, NaN, values far outside, and values whose range is in doubt.
    """
    array = _as_nhwc(array, what)
    if array.dtype == np.bool_:
        return Pixels(array.astype(np.uint8) * np.uint8(255), "bool, read as black and white")
    if array.dtype.kind not in "uif":
        raise InputError(f"{what}: expected uint8 or float images, got {array.dtype}; convert them to uint8")
    low, high = float(array.min()), float(array.max())  # NaN, where there is one, comes through min and max
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{what}: has NaN or infinite values; remove those images")
    black, white = value_range or (_of_floats if array.dtype.kind == "f" else _of_integers)(array, low, high, what)
    told = f"{array.dtype} from {low:g} to {high:g}"
    if (black, white) == (0, 255) and array.dtype == np.uint8:
        return Pixels(np.ascontiguousarray(array), told)
    least, most = sorted((black, white))
    outside = 0 if least <= low and high <= most else _count(array, lambda part: (part < least) | (part > most))
    if value_range and outside > OUTSIDE_SHARE * array.size:
        raise InputError(
            f"{what}: {outside / array.size:.0%} of the values, from {low:g} to {high:g}, lie outside of "
            f"{black:g} to {white:g}; {_ASK}"
        )
    told += f", read as {black:g} (black) to {white:g} (white)"
    if outside:
        told += f"; {outside} of {array.size} values outside were clipped"
    result = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _CHUNK):  # a chunk at a time: a float64 copy of everything may not fit
        part = (array[start : start + _CHUNK].astype(np.float64) - black) * (255 / (white - black))
        result[start : start + _CHUNK] = np.rint(np.clip(part, 0, 255))
    return Pixels(result, told)


def check_value_range(value_range: ValueRange | None) -> None:
    """Raises :class:`InputError` unless it is two finite numbers that differ."""
    if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] != value_range[1]):
        raise InputError(f"expected a value range of two numbers, black and white, got {value_range}")


def _as_nhwc(array: NDArray[Any], what: str) -> NDArray[Any]:
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.shape[1] > 4:
        raise InputError(
            f"{what}: shape {list(array.shape)} may be one image, or {array.shape[0]} of {array.shape[2]} pixels "
            "a row; write it as [N, H, W, C]"
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise InputError(f"{what}: expected images as NHWC, NCHW or NHW, got shape {list(array.shape)}")
    if array.shape[3] not in (1, 3, 4):
        if array.shape[1] not in (1, 3, 4):
            raise InputError(f"{what}: expected 1, 3 or 4 channels, got shape {list(array.shape)}")
        array = np.moveaxis(array, 1, 3)
    return array


def _of_floats(array: NDArray[Any], low: float, high: float, what: str) -> ValueRange:
    """The range that all values together suggest."""
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        if _only_overshoot(array, low, 1.0) and not 0 < high < 2 / 255:
            return 0.0, 1.0
    elif low >= -1 - OVERSHOOT and high <= 1 + OVERSHOOT:
        if _count(array, lambda part: part < -FAR) >= SEEN_SHARE * array.size:
            return -1.0, 1.0
    elif (
        127 < high <= 255 * (1 + OVERSHOOT)
        and low >= -255 * OVERSHOOT
        and _count(array, lambda part: part > 2) >= 0.01 * array.size
        and _only_overshoot(array, low, 255.0)
    ):
        return 0.0, 255.0
    raise InputError(
        f"{what}: expected float images in [0, 1] or [-1, 1], got [{low:g}, {high:g}], and can't tell what is "
        f"meant; {_ASK}, or scale them"
    )


def _only_overshoot(array: NDArray[Any], low: float, white: float) -> bool:
    """True if what lies below 0 may come of resampling values from 0 to `white`."""
    if low >= -0.02 * white:
        return True
    few = _count(array, lambda part: part < -0.02 * white) <= NEGATIVE_SHARE * array.size
    return few and _count(array, lambda part: part < -FAR * white) <= FAR_SHARE * array.size


def _of_integers(array: NDArray[Any], low: float, high: float, what: str) -> ValueRange:
    byte = array.dtype == np.uint8
    if (byte and high == 0) or (low >= 0 and FEW_LEVELS < high <= 255 and (byte or high > 127)):
        return 0.0, 255.0
    if array.dtype == np.uint16 and high >= UNCLEAR:
        return 0.0, 65535.0
    raise InputError(
        f"{what}: expected uint8 or float images, got {array.dtype} from {low:g} to {high:g}, and can't tell what "
        f"is meant; {_ASK}"
    )


def _count(array: NDArray[Any], test: Any) -> int:
    return sum(int(np.count_nonzero(test(part))) for part in _parts(array))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(array), _CHUNK):
        yield array[start : start + _CHUNK]
