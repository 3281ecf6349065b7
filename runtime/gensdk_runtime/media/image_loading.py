"""Decodes what was opened, and refuses what decoders would fill up in silence: cut files, missing rows."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_pixels import to_array
from gensdk_runtime.media.image_reader import (
    CorruptImageError,
    WatchedBytes,
    check_size,
    decoding,
    open_image,
    png_chunks,
)

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_COMPRESSIONS = (
    "raw",
    "tiff_lzw",
    "tiff_adobe_deflate",
    "tiff_deflate",
    "packbits",
    "jpeg",
    "zstd",
    "lzma",
    "webp",
)
"""Of TIFF. Fax codes are left out, whose decoder goes on after damage, and those that fell out of use long ago."""
_OFFSETS, _ROWS, _COUNTS, _PLANES = 273, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS = 322, 323, 324, 325
"""Tags of TIFF 6.0."""
_MAX_TILE = 1 << 26
_MAX_SCANS = 64
_GREY = {"L": (128, 128), "RGB": ((128, 128),) * 3}
"""Least and largest samples of what a JPEG decoder puts where data is missing."""
_ARITHMETIC = (b"\xff\xc9", b"\xff\xca")
"""Marks of arithmetic codes, where a grey block takes almost nothing."""
_MARGIN = 2
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, and the steps between them."""


def load(image: ImageFile, data: bytes) -> None:
    """Decodes the pixels of the frame at hand. Raises :class:`CorruptImageError` for a cut or damaged file."""
    check_size(image)
    if image.format == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS + (len(data) >> 14):
        raise CorruptImageError("a JPEG of so many scans is not decoded")  # each may cost a pass over all pixels
    if image.format == "TIFF":
        with decoding():
            _check_tiff(image, len(data))
    source = image.fp
    if isinstance(source, WatchedBytes):
        source.ended = False
    with decoding():
        image.load()
    # The application may have told Pillow to fill cut files up. A TIFF was checked; its metadata may lie anywhere.
    if isinstance(source, WatchedBytes) and source.ended and image.format != "TIFF":
        raise CorruptImageError("the file is cut short")
    if image.format == "PNG" and image.tell() == 0:
        _check_png(image, data)
    elif image.format == "JPEG":
        _check_jpeg(image, data)


def _check_tiff(image: ImageFile, size: int) -> None:
    """Its strips or tiles lie inside the file, cover the picture, and none unfolds to more than is read."""
    compression = image.info.get("compression")
    if compression not in _COMPRESSIONS:
        raise CorruptImageError(f"a TIFF compressed as {compression} is not read; save it as PNG")
    tags = getattr(image, "tag_v2", {})
    width, height = getattr(image, "_tile_size", image.size)
    tiled = _TILES in tags
    wide, tall = (
        (tags[_TILE_WIDTH], tags[_TILE_HEIGHT]) if tiled else (width, min(tags.get(_ROWS, height), height))
    )
    if wide <= 0 or tall <= 0 or wide * tall > _MAX_TILE:
        raise CorruptImageError(f"parts of {wide}x{tall} are not a size that is read")
    offsets: Sequence[int] = tags.get(_TILES if tiled else _OFFSETS, ())
    counts: Sequence[int] = tags.get(_TILE_COUNTS if tiled else _COUNTS, ())
    planes = len(image.getbands()) if tags.get(_PLANES, 1) == 2 else 1
    needed = ceil(width / wide) * ceil(height / tall) * planes
    if len(offsets) < needed or any(sum(pair) > size for pair in zip(offsets, counts, strict=False)):
        raise CorruptImageError("the file is cut short, or parts of the picture are missing")


def _check_png(image: ImageFile, data: bytes) -> None:
    """Rows that are missing come as zeros: where the last row is, what the file unfolds to is counted."""
    if data[12:16] != b"IHDR":
        raise CorruptImageError("a PNG that does not begin with its header is not read")
    if not any(kind == b"IEND" for kind, _ in png_chunks(data)):
        raise CorruptImageError("the file is cut short")
    interlaced = data[28] == 1
    if not interlaced and not _ends_in_zeros(image):
        return
    bits = data[24] * {2: 3, 4: 2, 6: 4}.get(data[25], 1)
    needed = 0
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = ceil((image.width - left) / right), ceil((image.height - top) / down)
        if columns > 0 and rows > 0:
            needed += rows * (1 + (columns * bits + 7) // 8)
    unfolding = zlib.decompressobj()
    for kind, body in png_chunks(data):
        if kind == b"IDAT":
            packed = bytes(body)
            while packed and needed > 0:
                with decoding():
                    needed -= len(unfolding.decompress(packed, 1 << 20))
                packed = unfolding.unconsumed_tail
    if needed > 0:
        raise CorruptImageError("the file is cut short: rows are missing")


def _ends_in_zeros(image: ImageFile) -> bool:
    if image.mode.startswith("I"):
        return not np.array(image)[-1].any()
    drawn = image.getbbox(alpha_only=False)
    return drawn is None or drawn[3] < image.height


def _check_jpeg(image: ImageFile, data: bytes) -> None:
    """A JPEG may be cut and yet end as it should; then what is missing, at its lower end, is grey.

    A grey that was drawn takes two bits or more for each block of 8x8 pixels (one in the first scan of a
    progressive file). So the bytes at the end that it must take are left out: if that changes other pixels, they
    were the last of what is left.
    """
    progressive = bool(image.info.get("progressive"))
    spare = _grey_blocks(image) // (8 if progressive else 4) - _MARGIN
    if spare < _MARGIN or any(marker in data for marker in _ARITHMETIC):
        return
    end, scans = _end_of_scans(data)
    if progressive and scans > 1:  # the scan that would be short is not the last one
        return
    again = open_image(data[: end - spare] + b"\xff\xd9")
    with decoding():
        again.load()
    pixels = to_array(image)
    if ((to_array(again) != pixels) & (pixels != 128)).any():
        raise CorruptImageError("the file is cut short: its lower part is missing")


def _grey_blocks(image: ImageFile) -> int:
    """How many blocks at the end of the picture are of the grey that stands for missing data, at least."""
    width, height = image.size
    if (
        image.mode not in ("L", "RGB")
        or image.crop((width - 1, height - 1, width, height)).getextrema() != _GREY[image.mode]
    ):
        return 0
    drawn = (to_array(image) != 128).any(axis=2)
    rows, columns = (_still_at_the_end(drawn.any(axis=1)), 0)
    if rows < height:
        columns = _still_at_the_end(drawn[max(0, height - rows - 8) : height - rows].any(axis=0))
    return rows // 8 * (width // 8) + columns // 8


def _still_at_the_end(drawn: NDArray[np.bool_]) -> int:
    """How many places behind the last one that is drawn."""
    return int(np.argmax(drawn[::-1])) if drawn.any() else len(drawn)


def _end_of_scans(data: bytes) -> tuple[int, int]:
    """Where the marker after the last scan stands, and how many scans there are."""
    position, scans = data.find(b"\xff\xda"), 0
    end = len(data)
    while position >= 0 and data[position + 1] == 0xDA:
        scans += 1
        position += 2
        while True:
            position = data.find(b"\xff", position)
            if position < 0 or position + 1 >= len(data):
                return len(data), scans
            if data[position + 1] != 0 and not 0xD0 <= data[position + 1] <= 0xD7:
                break
            position += 2
        end = position
        if data[position + 1] != 0xD9:  # tables between scans
            position = data.find(b"\xff\xda", position)
    return end, scans
