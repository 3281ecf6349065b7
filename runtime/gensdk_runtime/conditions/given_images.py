"""Images as callers pass them: arrays, what turns into arrays (torch tensors), and Pillow's pictures."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array, check_whole, shown
from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.media.image_pixels import MAX_SIDE, to_channels
from gensdk_runtime.spec.outputs import ImageFormat

Images = NDArray[np.uint8]


class Picture(Protocol):
    """An image of Pillow's (``PIL.Image.Image``), which an application need not have."""

    @property
    def mode(self) -> str:
        """What its pixels are, such as RGB."""

    def getbands(self) -> tuple[str, ...]:
        """The names of its channels."""


def is_picture(value: Any) -> bool:
    """True for an image of Pillow's. It need not be imported here: whoever has such an image has imported it."""
    return type(value).__module__.split(".")[0] == "PIL" and hasattr(value, "getbands")


def of_picture(picture: Any, channels: int) -> Images:
    """A picture of Pillow's, upright by its EXIF orientation, as uint8 [H, W, C] with `channels` (1 or 3), and one
    more where it has transparency. :class:`InputError` for more than 8 bits, which only files say how to read.
    """
    from PIL import ImageOps

    if picture.mode.startswith(("I", "F")):
        raise InputError(
            f"expected a picture of 8 bits, got mode {picture.mode!r}; scale it to uint8, or pass the file to "
            "gensdk translate"
        )
    upright = ImageOps.exif_transpose(picture) or picture
    alpha = upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info
    grey = upright.mode in ("1", "L", "LA", "La")
    array = np.asarray(upright.convert("RGBA" if alpha else "L" if grey else "RGB"), np.uint8)
    array = array if array.ndim == 3 else array[..., None]
    return fitted(array, channels)


def fitted(array: Images, channels: int) -> Images:
    """uint8 [H, W, 1, 3 or 4] with the `channels` of a model (1 or 3), and a fourth channel, transparency, kept
    behind them. Says so where colours are lost."""
    if channels not in (1, 3):
        return array
    colours, alpha = (array[..., :3], array[..., 3:]) if array.shape[-1] == 4 else (array, array[..., :0])
    if channels == 1 and colours.shape[-1] == 3:
        if np.ptp(colours, axis=2).any():
            tell("the model takes grey images alone: colours were dropped")
        colours = to_channels(np.ascontiguousarray(colours), 1)
    elif channels == 3 and colours.shape[-1] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return np.ascontiguousarray(np.concatenate([colours, alpha], axis=2))


def as_images(images: Any, channels: int) -> Images | list[Images]:
    """uint8 [H, W, C] or [n, H, W, C], or a list of [H, W, C]; C is `channels`, or one more with transparency.

    A grey image may come without its channel. :class:`InputError` for anything else.
    """
    if is_picture(images):
        return of_picture(images, channels)
    if isinstance(images, list | tuple) and not _numbers(images):
        if not images:
            raise InputError("expected at least one image, got none")
        return [_single(_checked(each, channels)) for each in images]
    return _checked(images, channels)


def _numbers(images: Any) -> bool:
    """True if a list holds numbers, not images."""
    first = images
    while isinstance(first, list | tuple) and first:
        first = first[0]
    return isinstance(first, int | float) and not isinstance(first, bool)


def _single(array: Images) -> Images:
    if array.ndim != 3:
        raise InputError(f"expected each image of a list as [H, W, C], got {list(array.shape)}")
    return array


def _checked(given: Any, channels: int) -> Images:
    if is_picture(given):
        return of_picture(given, channels)
    array = as_array(given, "images")
    if array.dtype != np.uint8:
        raise InputError(f"expected images as uint8, got {array.dtype}; sample(image=...) takes floats")
    if channels == 1 and array.ndim == 2:
        array = array[..., None]
    known = (channels, channels + 1) if channels in (1, 3) else (channels,)
    if array.ndim not in (3, 4) or array.shape[-1] not in known or not array.size:
        raise InputError(f"expected images [H, W, {channels}] or [n, H, W, {channels}], got {list(array.shape)}")
    if max(array.shape[-3:-1]) > MAX_SIDE:
        raise InputError(f"expected images of at most {MAX_SIDE} pixels a side, got {list(array.shape)}")
    return array


def check_size(size: Any, what: str) -> tuple[int, int] | None:
    """(height, width) in pixels, or None; :class:`InputError`, naming `what`, for anything else."""
    if size is None:
        return None
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InputError(f"expected {what} as (height, width), got {shown(size)}")
    height, width = (
        check_whole(side, f"each side of {what} (height, width)", least=1, most=MAX_SIDE) for side in size
    )
    return height, width


def checked_images(images: Any, spec: ImageFormat, size: tuple[int, int] | None = None) -> NDArray[Any]:
    """uint8 [n, H, W, C], or floats [n, C, H, W] within the value range, of one pixel or more; `size`: (H, W).

    Grey bytes may come without their channel. Of Pillow's pictures, one or a list, it takes the colours, upright,
    whatever mode they are in.
    """
    array, sides = _pixels(images, spec.channels), size or ("H", "W")
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


def _pixels(images: Any, channels: int) -> NDArray[Any]:
    """As an array; as which NumPy takes of Pillow's pictures the numbers of a palette, or hues, for colours."""
    if is_picture(images):
        return of_picture(images, channels)[None]
    if not (isinstance(images, list | tuple) and any(map(is_picture, images))):
        return as_array(images, "images")
    rows = [of_picture(each, channels) if is_picture(each) else as_array(each, "images") for each in images]
    if len({row.shape for row in rows}) > 1:
        raise InputError(f"expected images of one size, got {list(rows[0].shape)} and others")
    return np.stack(rows)
