"""Image files of unknown origin to uint8 HWC: checked by their headers first, then decoded by OpenCV."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

Images = NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Larger pictures are refused by their header, before a decoder could unfold a decompression bomb."""

MAX_FILE_BYTES = 256 << 20
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class CorruptImageError(Exception):
    """The bytes are no whole image; the message says what is wrong. Callers name the file and skip it."""


@dataclass(frozen=True)
class Header:
    """What an image file says about itself before it is decoded; `alpha`: it has a transparent layer."""

    height: int
    width: int
    grey: bool = False
    alpha: bool = False


def read_header(data: bytes) -> Header:
    """Size and kind from the first bytes of a PNG, JPEG, BMP or WebP file, told apart by content, not by name.

    Other formats are refused, so that files of unknown origin reach only these four decoders. Raises
    :class:`CorruptImageError`.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", data[16:24])
            return Header(height, width, grey=data[25] in (0, 4), alpha=data[25] in (4, 6))
        if data.startswith(b"\xff\xd8"):
            return _jpeg_header(data)
        if data.startswith(b"BM"):
            width, height = struct.unpack("<ii", data[18:26])
            return Header(abs(height), width)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_header(data)
    except (struct.error, IndexError):
        raise CorruptImageError("the file ends inside its header") from None
    raise CorruptImageError("no PNG, JPEG, BMP or WebP")


def _jpeg_header(data: bytes) -> Header:
    position = 2
    while position < len(data):
        marker, length = struct.unpack(">xBH", data[position : position + 4])
        if marker == 0xFF:  # fill byte before a marker
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width, components = struct.unpack(">HHB", data[position + 5 : position + 10])
            return Header(height, width, grey=components == 1)
        else:
            position += 2 + length
    raise CorruptImageError("the file ends inside its header")


def _webp_header(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        return Header(height, width, alpha=bool(data[20] & 0x10))
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return Header((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    width, height = struct.unpack("<HH", data[26:30])
    return Header(height & 0x3FFF, width & 0x3FFF)


def check_pixels(header: Header, name: str) -> None:
    """Raises :class:`InputError` for an image that unfolds beyond the limit."""
    if header.height * header.width > MAX_PIXELS:
        raise InputError(
            f"{name}: {header.width}x{header.height} is more than {MAX_PIXELS} pixels; shrink or remove it"
        )


def decode(data: bytes, channels: int) -> Images:
    """The image as uint8 [H, W, channels] (grey, RGB or RGBA); transparent pixels lie on white unless 4 channels.

    Raises :class:`CorruptImageError` for a file that is cut, damaged or too large.
    """
    header = read_header(data)
    if not 0 < header.height * header.width <= MAX_PIXELS:
        raise CorruptImageError(f"{header.width}x{header.height} is not a size that is read")
    _check_whole(data)
    import cv2

    # IMREAD_COLOR turns the picture upright by its EXIF tag; IMREAD_UNCHANGED is needed to see transparency.
    flag = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as failure:
        raise CorruptImageError(str(failure).strip().splitlines()[0][:120]) from None
    if image is None:
        raise CorruptImageError("it can't be decoded")
    return to_channels(_to_rgb(np.asarray(image)), channels)


def _check_whole(data: bytes) -> None:
    """Refuses what decoders treat badly: a cut JPEG may be filled with grey in silence, and for a PNG whose chunk
    claims to be huge that much memory may be taken first."""
    if data.startswith(b"\xff\xd8"):
        if b"\xff\xd9" not in data[-1024:]:
            raise CorruptImageError("the file is cut short")
    elif data.startswith(b"\x89PNG"):
        position = 8
        while data[position + 4 : position + 8] != b"IEND":
            if position + 12 > len(data):
                raise CorruptImageError("the file is cut short, or a length inside it is wrong")
            position += 12 + int.from_bytes(data[position : position + 4], "big")


def _to_rgb(image: NDArray[Any]) -> Images:
    """What OpenCV gave (uint8 or uint16; grey, BGR or BGRA) as uint8 [H, W, 1, 3 or 4]."""
    if image.dtype == np.uint16:
        image = image // 257
    elif image.dtype != np.uint8:
        raise CorruptImageError(f"{image.dtype} samples are not supported")
    image = image.astype(np.uint8, copy=False)
    if image.ndim == 2:
        return image[..., None]
    order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
    return np.ascontiguousarray(image[..., order])


def to_channels(image: Images, channels: int) -> Images:
    """`image` uint8 [H, W, 1, 3 or 4] with 1, 3 or 4 channels; transparency is laid over white."""
    have = image.shape[2]
    if have == channels:
        return image
    if have == 4:
        alpha = image[..., 3:].astype(np.uint16)
        over = (image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return to_channels(over.astype(np.uint8), channels)
    if channels == 1:
        import cv2

        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
    colour = np.repeat(image, 3, axis=2) if have == 1 else image
    if channels == 3:
        return colour
    return np.concatenate([colour, np.full_like(colour[..., :1], 255)], axis=2)
