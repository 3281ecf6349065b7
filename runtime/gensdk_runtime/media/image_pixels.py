"""Pixels between Pillow and NumPy: channels, transparency, and one way to resize."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

Images = NDArray[np.uint8]
Enlarging = Literal["bicubic", "bilinear"]
Fit = Literal["crop", "stretch"]
MAX_SIDE = 16384
"""Pixels of the largest height and width of an image."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def to_array(image: Image) -> Images:
    """A grey, RGB or RGBA picture of Pillow's as uint8 [H, W, C], in memory of its own."""
    array = np.array(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def to_picture(image: Images) -> Image:
    """uint8 [H, W, 1 to 4] as a picture of Pillow's: grey, grey with alpha, RGB or RGBA."""
    from PIL import Image as Pillow

    height, width, channels = image.shape
    return Pillow.frombytes(_MODES[channels], (width, height), np.ascontiguousarray(image).data)


def flattened(image: Image, channels: int) -> Image:
    """A picture in mode L, LA, RGB or RGBA with 1, 3 or 4 channels; transparency is laid over white."""
    from PIL import Image as Pillow

    if channels == 4:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        opaque = image.mode[:-1]
        white = Pillow.new(opaque, image.size, "white")
        white.paste(image.convert(opaque), mask=image.getchannel("A"))
        image = white
    mode = _MODES[channels]
    return image if image.mode == mode else image.convert(mode)


def to_channels(image: Images, channels: int) -> Images:
    """`image` uint8 [H, W, 1, 3 or 4] with 1, 3 or 4 channels; transparency is laid over white.

    Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
    """
    have = image.shape[2]
    if have == channels:
        return image
    if have == 1:
        colour = np.repeat(image, 3, axis=2)
        return colour if channels == 3 else np.concatenate([colour, np.full_like(image, 255)], axis=2)
    return to_array(flattened(to_picture(image), channels))


def resize(image: Images, height: int, width: int, *, enlarge: Enlarging = "bicubic") -> Images:
    """`image` uint8 [H, W, C] at another size: the mean over areas where no side grows, else `enlarge`.

    Where one side shrinks and the other grows, the kernel of `enlarge` is widened along the one that shrinks, so
    that nothing is skipped. The colours of 2 or 4 channels are weighted with their transparency.
    """
    old = image.shape[:2]
    if old == (height, width):
        return image
    if old[0] >= height and old[1] >= width:
        return _shrunk(image, height, width)
    if image.shape[2] not in _MODES:
        parts = [resize(part, height, width, enlarge=enlarge) for part in np.split(image, image.shape[2], axis=2)]
        return np.concatenate(parts, axis=2)
    return to_array(to_picture(image).resize((width, height), _kernel(enlarge)))


def fit_size(image: Images, size: tuple[int, int], fit: Fit) -> Images:
    """`image` uint8 [H, W, C] at `size` (height, width): cut to the shape from the centre, or stretched.

    The mean over areas where it shrinks, bicubic where it grows.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    if fit == "crop":
        scale = min(image.shape[0] / height, image.shape[1] / width)
        cut_h, cut_w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (image.shape[0] - cut_h) // 2, (image.shape[1] - cut_w) // 2
        image = image[top : top + cut_h, left : left + cut_w]
    return resize(image, height, width)


def resize_floats(
    image: NDArray[np.float32], height: int, width: int, *, enlarge: Enlarging = "bicubic"
) -> NDArray[np.float32]:
    """As :func:`resize`, for float32 [H, W, C] of any range; each channel by itself."""
    from PIL import Image as Pillow

    old = image.shape[:2]
    if old == (height, width):
        return image
    if old[0] >= height and old[1] >= width:
        return _area(_area(image, height, old[0], 0), width, old[1], 1)
    parts = []
    for channel in np.moveaxis(np.asarray(image, np.float32), 2, 0):
        part = Pillow.frombytes("F", (old[1], old[0]), np.ascontiguousarray(channel).tobytes())
        parts.append(np.array(part.resize((width, height), _kernel(enlarge)), np.float32))
    return np.stack(parts, axis=2)


def _shrunk(image: Images, height: int, width: int) -> Images:
    """The mean over areas: by Pillow in whole blocks of pixels first, what is left of the factor exactly."""
    tall, wide, channels = image.shape
    down, across = tall // height, wide // width
    whole = tall % height == 0 and wide % width == 0
    if not whole:  # an area of four blocks or more is near enough to that of their pixels
        down, across = max(1, down // 4), max(1, across // 4)
    if channels in _MODES and (down > 1 or across > 1):
        image = to_array(to_picture(image).reduce((across, down)))
        if whole:
            return image
        tall, wide = tall / down, wide / across
    values = image.astype(np.float32)
    if channels in (2, 4):
        values[..., :-1] *= values[..., -1:]
    values = _area(_area(values, height, tall, 0), width, wide, 1)
    if channels in (2, 4):
        values[..., :-1] /= np.maximum(values[..., -1:], 1e-6)
    return np.rint(values).astype(np.uint8)


def _area(values: NDArray[np.float32], count: int, length: float, axis: int) -> NDArray[np.float32]:
    """Means over `count` equal parts of the first `length` values along `axis`, which count as they lie inside."""
    step = length / count
    begin = np.arange(count) * step
    first = begin.astype(np.intp)
    total = np.zeros([count if each == axis else side for each, side in enumerate(values.shape)], np.float32)
    shape = [-1 if each == axis else 1 for each in range(values.ndim)]
    for offset in range(ceil(step) + 1):
        inside = np.minimum(begin + step, first + offset + 1) - np.maximum(begin, first + offset)
        weights = np.clip(inside / step, 0.0, 1.0).astype(np.float32).reshape(shape)
        total += weights * np.take(values, np.minimum(first + offset, values.shape[axis] - 1), axis)
    return total


def _kernel(enlarge: Enlarging) -> Resampling:
    from PIL import Image as Pillow

    return Pillow.Resampling.BICUBIC if enlarge == "bicubic" else Pillow.Resampling.BILINEAR
