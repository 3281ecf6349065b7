"""Pixels between Pillow and NumPy: channels, transparency, and one way to resize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

Images = NDArray[np.uint8]
Enlarging = Literal["bicubic", "bilinear"]
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def to_array(image: Image) -> Images:
    """A grey, RGB or RGBA picture of Pillow's as uint8 [H, W, C], in memory of its own."""
    array = np.array(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def to_picture(image: Images) -> Image:
    """uint8 [H, W, 1 to 4] as a picture of Pillow's: grey, grey with alpha, RGB or RGBA."""
    from PIL import Image as Pillow

    height, width, channels = image.shape
    return Pillow.frombytes(_MODES[channels], (width, height), np.ascontiguousarray(image).tobytes())


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
    """`image` uint8 [H, W, C] at another size: the mean over areas along an axis that shrinks, else `enlarge`.

    Where one axis shrinks and the other grows, the kernel of `enlarge` is widened along the one that shrinks, so
    that nothing is skipped. The colours of 2 or 4 channels are weighted with their transparency.
    """
    if image.shape[:2] == (height, width):
        return image
    if image.shape[2] not in _MODES:
        parts = [resize(part, height, width, enlarge=enlarge) for part in np.split(image, image.shape[2], axis=2)]
        return np.concatenate(parts, axis=2)
    return to_array(_resized(to_picture(image), height, width, enlarge))


def resize_floats(
    image: NDArray[np.float32], height: int, width: int, *, enlarge: Enlarging = "bicubic"
) -> NDArray[np.float32]:
    """As :func:`resize`, for float32 [H, W, C] of any range; each channel by itself."""
    from PIL import Image as Pillow

    if image.shape[:2] == (height, width):
        return image
    parts = []
    for channel in np.moveaxis(np.asarray(image, np.float32), 2, 0):
        size = (channel.shape[1], channel.shape[0])
        part = Pillow.frombytes("F", size, np.ascontiguousarray(channel).tobytes())
        parts.append(np.array(_resized(part, height, width, enlarge), np.float32))
    return np.stack(parts, axis=2)


def _resized(image: Image, height: int, width: int, enlarge: Enlarging) -> Image:
    if image.height >= height and image.width >= width:
        across, rest = divmod(image.width, width)
        down, left = divmod(image.height, height)
        if not rest and not left:  # the same mean, faster, and rounded once
            return image.reduce((across, down)) if image.mode not in ("LA", "RGBA") else _box(image, width, height)
        return _box(image, width, height)
    return image.resize((width, height), _kernel(enlarge))


def _box(image: Image, width: int, height: int) -> Image:
    from PIL import Image as Pillow

    return image.resize((width, height), Pillow.Resampling.BOX)


def _kernel(enlarge: Enlarging) -> Resampling:
    from PIL import Image as Pillow

    return Pillow.Resampling.BICUBIC if enlarge == "bicubic" else Pillow.Resampling.BILINEAR
