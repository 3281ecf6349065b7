"""Masks of what is painted anew, as callers pass them: arrays, and Pillow's pictures, white where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array
from gensdk_runtime.conditions.given_images import is_picture, of_picture
from gensdk_runtime.errors import InputError, tell

Masks = NDArray[np.bool_]


def checked_masks(masks: Any, height: int, width: int) -> Masks:
    """[m, 1, H, W], True where an image is painted anew, of masks [H, W], [m, H, W], [m, H, W, 1] or [m, 1, H, W].

    bool, float in [0, 1], or uint8, of which 255 is painted anew; or 1, where none is larger. Those of Pillow's,
    one or a list, are read as grey. What lies between is cut in the middle, as diffusers does: an image is kept or
    it is not. Says so where it is. Raises :class:`InputError` for other shapes and types, NaN, and values outside.
    """
    array = _pixels(masks)
    if array.dtype.kind not in "bfiu":
        raise InputError(f"expected mask_image as numbers or bools, got dtype {array.dtype}")
    found = array[None] if array.ndim == 2 else array
    if found.ndim == 4:
        last, first = found.shape[1:] == (height, width, 1), found.shape[1:] == (1, height, width)
        found = found[..., 0] if last else found[:, 0] if first else found
    if found.ndim != 3 or found.shape[1:] != (height, width) or not found.size:
        raise InputError(
            f"expected mask_image [{height}, {width}] or [n, {height}, {width}], of the size of the model's "
            f"images, got {list(array.shape)}; scale it"
        )
    return np.ascontiguousarray(_cut(found)[:, None])


def _cut(values: NDArray[Any]) -> Masks:
    """True for what is painted anew; see :func:`checked_masks`."""
    if values.dtype.kind == "b":
        return values.astype(np.bool_, copy=False)
    most = values.max()
    full = 255 if values.dtype == np.uint8 and most > 1 else 1
    if not (values.min() >= 0 and most <= full):  # NaN fails both
        raise InputError("expected mask_image from 0 (kept) to 1, or 255 in bytes, got values outside or NaN")
    anew: Masks = values >= full / 2
    if not ((values == 0) | (values == full)).all():
        tell(f"mask_image has values between 0 and {full}: from the middle on an image is painted anew")
    return anew


def _pixels(masks: Any) -> NDArray[Any]:
    if is_picture(masks):
        return _of_picture(masks)[None]
    if not (isinstance(masks, list | tuple) and any(map(is_picture, masks))):
        return as_array(masks, "mask_image")
    rows = [_of_picture(each) if is_picture(each) else as_array(each, "mask_image") for each in masks]
    if len({row.shape for row in rows}) > 1:
        raise InputError(f"expected masks of one size, got {list(rows[0].shape)} and others")
    return np.stack(rows)


def _of_picture(picture: Any) -> NDArray[np.uint8]:
    """uint8 [H, W]: of a mask of one bit too, 255 is white."""
    pixels = of_picture(picture, 1)
    if pixels.shape[-1] > 1:
        raise InputError("expected mask_image without transparency; save it in grey, white where it is painted")
    return pixels[..., 0]
