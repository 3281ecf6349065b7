"""Samples of any kind and depth as 8-bit grey or RGB, with or without alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_loading import load
from gensdk_runtime.media.image_pixels import Images, to_array, to_picture
from gensdk_runtime.media.image_reader import (
    CorruptImageError,
    UnclearDepthError,
    decoding,
    open_image,
    png_chunks,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

Wide = NDArray[np.uint16]
Sample = TypeVar("Sample", np.uint8, np.uint16)

_AS_READ = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_PLAIN = ("L", "LA", "RGB", "RGBA", "P", *_AS_READ)
UNCLEAR = 1 << 14
"""Samples of 16 bits that all stay below a quarter of the range are those of fewer bits, or very dark."""
_BITS_PER_SAMPLE, _MAX_SAMPLE, _MIN_FLOAT, _MAX_FLOAT = 258, 281, 340, 341
"""Tags of TIFF 6.0."""


def picture(image: ImageFile, data: bytes, depth: int | None = None) -> Image:
    """Decodes what :func:`open_image` opened, into mode L, LA, RGB or RGBA.

    CMYK becomes RGB without a profile, (1 - C) (1 - K). `depth` as in
    :func:`gensdk_runtime.media.image_files.decode`, which says what is raised.
    """
    raw = _raw_mode(image)
    scale_transparency(image)
    load(image, data)
    if image.mode == "F":
        return to_picture(_of_floats(np.array(image, np.float32), image)[..., None])
    if image.mode.startswith("I;16"):
        return _of_wide(_wide(image), image, data, depth)
    if image.mode not in _PLAIN:
        raise CorruptImageError(
            f"samples of kind {image.mode} are not read; save it in grey or RGB, of 8 or 16 bits"
        )
    if ";16" in raw and image.mode in ("RGB", "RGBA"):
        return _of_wide_colour(image, raw, data, depth)
    return plain(image)


def plain(image: ImageFile) -> Image:
    """A picture in mode L, LA, RGB or RGBA, of samples of 16 bits the upper 8; its transparent colour or palette
    becomes alpha."""
    if image.mode.startswith("I;16"):
        return _of_wide(_wide(image), image, b"", 16)
    with decoding():
        if "transparency" in image.info:
            return image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        if image.mode == "P":
            return image.convert("RGB")
        return image.convert(_AS_READ[image.mode]) if image.mode in _AS_READ else image


def scale_transparency(image: ImageFile) -> None:
    """A grey PNG of 2 or 4 bits names its transparent grey in as many, while Pillow's pixels have 8 already."""
    factor = {"L;2": 85, "L;4": 17}.get(_raw_mode(image), 0)
    if factor and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] = (image.info["transparency"] * factor) & 0xFF


def grey_with_alpha(image: ImageFile) -> bool:
    """True for a PNG of 16-bit grey and alpha, which Pillow opens as RGBA."""
    return _raw_mode(image).startswith("LA;16")


def _raw_mode(image: ImageFile) -> str:
    """How the samples lie in the file, by Pillow's name for it, such as ``RGB;16B``; empty where it has none."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments if isinstance(arguments, str) or not arguments else arguments[0]
    return first if isinstance(first, str) else ""


def _wide(image: ImageFile) -> Wide:
    """Grey of 16 bits, [H, W, 1]."""
    return np.array(image).astype(np.uint16)[..., None]


def _of_wide_colour(image: ImageFile, raw: str, data: bytes, depth: int | None) -> Image:
    """Colours of 16 bits, of which Pillow keeps the upper 8; the lower 8 are read where they are needed."""
    upper = to_array(image)
    colours = upper[..., :3]
    declared = _declared_depth(image, data)
    if (
        "transparency" not in image.info
        and (depth or declared or 16) == 16
        and (depth == 16 or colours.max() >= UNCLEAR >> 8)
    ):
        return to_picture(_without_grey_copies(upper, raw))
    lower = _lower_bytes(raw, data)
    wide = upper.astype(np.uint16) * np.uint16(256) + lower
    return _of_wide(_without_grey_copies(wide, raw), image, data, depth)


def _without_grey_copies(array: NDArray[Sample], raw: str) -> NDArray[Sample]:
    """Grey with alpha comes as RGBA where it has 16 bits."""
    return array[..., [0, 3]] if raw.startswith("LA") else array


def _lower_bytes(raw: str, data: bytes) -> Images:
    """The lower bytes of samples of 16 bits, by decoding again with the order of bytes turned round."""
    again = open_image(data)
    name, _, order = raw.partition(";16")
    if name == "LA":  # as four samples of a byte each: the upper and the lower one of grey, then those of alpha
        again.tile = [tile._replace(args="RGBA") for tile in again.tile]
        load(again, data)
        return to_array(again)[..., [1, 1, 1, 3]]
    turned = f"{name};16{'L' if order == 'B' else 'B'}"
    again.tile = [
        tile._replace(args=turned if isinstance(tile.args, str) else (turned, *(tile.args or ())[1:]))
        for tile in again.tile
    ]
    load(again, data)
    return to_array(again)


def _of_wide(wide: Wide, image: ImageFile, data: bytes, depth: int | None) -> Image:
    """Samples [H, W, 1 to 4] of 16 bits at 8; the transparent colour of a PNG becomes alpha."""
    clear = image.info.get("transparency")
    colours = wide if wide.shape[2] in (1, 3) else wide[..., :-1]
    white = _depth(colours, image, data, depth)
    narrow = _narrow(colours, white)
    if wide.shape[2] in (2, 4):
        opacity = wide[..., -1:]
        alpha = _narrow(opacity, white if opacity.max() <= white else 0xFFFF)
    elif clear is not None:
        shown = (wide != np.asarray(clear, np.uint16)).any(axis=2, keepdims=True)
        alpha = shown.astype(np.uint8) * np.uint8(255)
    else:
        return to_picture(narrow)
    return to_picture(np.concatenate([narrow, alpha], axis=2))


def _narrow(wide: Wide, largest: int) -> Images:
    """Samples from 0 to `largest` as 0 to 255; of the whole range the upper byte, as PNG's readers take it."""
    if largest == 0xFFFF:
        return (wide >> 8).astype(np.uint8)
    return ((wide.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _depth(colours: Wide, image: ImageFile, data: bytes, depth: int | None) -> int:
    """What stands for white: as asked for, else as the file declares, else 65535 if the samples reach there."""
    largest = int(colours.max())
    if depth is not None:
        if largest >> depth:
            raise CorruptImageError(f"its samples reach {largest}, which is more than {depth} bits hold")
        return (1 << depth) - 1
    declared = _declared_depth(image, data)
    if image.format == "TIFF":
        white = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE)
        white = white[0] if isinstance(white, tuple) and white else white
        if declared and declared < 16:
            return (1 << declared) - 1
        if isinstance(white, int) and largest <= white < 0xFFFF and white > 0:
            return white
    elif declared and declared < 16:
        # The standard spreads n bits over 16, so that the lowest 16 - n add nothing; many writers leave them as
        # they are, at the lower end.
        as_they_are = not largest >> declared and bool((colours & ((1 << 16 - declared) - 1)).any())
        return (1 << declared) - 1 if as_they_are else 0xFFFF
    if 0 < largest < UNCLEAR and (declared != 16) and (colours % 257).any():
        raise UnclearDepthError(largest)
    return 0xFFFF


def _declared_depth(image: ImageFile, data: bytes) -> int | None:
    """Bits of a sample that the file says are used: PNG's sBIT, TIFF's BitsPerSample; None if it doesn't say."""
    if image.format == "PNG":
        body = next((bytes(body) for kind, body in png_chunks(data) if kind == b"sBIT"), b"")
        return max(body[:3] if image.mode.startswith("RGB") else body[:1], default=None) if body else None
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return bits[0] if isinstance(bits, tuple) and bits and bits[0] < 16 else None


def _of_floats(values: NDArray[np.float32], image: ImageFile) -> Images:
    """Floats between the bounds that a TIFF declares, else between 0 and 1."""
    tags = getattr(image, "tag_v2", {})
    low, high = (_number(tags.get(tag), default) for tag, default in ((_MIN_FLOAT, 0.0), (_MAX_FLOAT, 1.0)))
    least, largest = float(values.min()), float(values.max())
    if not (low < high and low <= least <= largest <= high):  # NaN fails too
        raise CorruptImageError(
            f"its samples are floats from {least:.4g} to {largest:.4g}, expected {low:g} to {high:g}; scale them"
        )
    return np.asarray(np.rint((values - low) * (255.0 / (high - low))), np.uint8)


def _number(value: object, default: float) -> float:
    first = value[0] if isinstance(value, tuple) and value else value
    return float(first) if isinstance(first, int | float) else default
