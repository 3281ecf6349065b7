"""Image files: single images, grids and folders, with the settings in the PNG's metadata."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.atomic import write_file
from gensdk_runtime.media.image_pixels import to_channels, to_picture
from gensdk_runtime.media.png import encode_png

Uint8 = NDArray[np.uint8]
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
}
"""Pillow's format and options for each suffix; of TIFF samples the difference is packed (tag 317)."""
SUFFIXES = (".png", *_WRITERS)
OPAQUE = (".jpg", ".jpeg", ".bmp")
"""Formats without transparency."""

GRID_CELL = 48
"""Smallest side of a grid's cell in pixels: a grid is for eyes, so tiny images are enlarged."""

GRID_GAP = 2
"""Black pixels between the cells of a grid."""


def image_grid(images: Uint8, *, columns: int | None = None, scale: int | None = None) -> Uint8:
    """One image [H', W', C] of all `images` [n, H, W, C], in rows, each enlarged `scale` times (nearest).

    Without `columns` the grid is about square; without `scale` cells get at least 48 pixels a side.
    """
    n, height, width, channels = images.shape
    columns = columns or ceil(sqrt(n))
    scale = scale or max(1, ceil(GRID_CELL / min(height, width)))
    rows = ceil(n / columns)
    gap = GRID_GAP if n > 1 else 0
    cell_height, cell_width = height * scale + gap, width * scale + gap
    cells = np.zeros((rows * columns, cell_height, cell_width, channels), np.uint8)
    cells[:n, : height * scale, : width * scale] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    grid = cells.reshape(rows, columns, cell_height, cell_width, channels).transpose(0, 2, 1, 3, 4)
    flat = grid.reshape(rows * cell_height, columns * cell_width, channels)
    return np.ascontiguousarray(flat[: rows * cell_height - gap, : columns * cell_width - gap])


def encode_image(image: Uint8, suffix: str, settings: Mapping[str, Any]) -> bytes:
    """The bytes of an image file [H, W, C] with 1, 3 (RGB) or 4 (RGBA) channels.

    A PNG carries `settings` as JSON in the text chunk ``gensdk``. All but JPEG are lossless; JPEG has quality 95.
    JPEG and BMP know no transparency: it is laid over white. Raises :class:`InputError` for another suffix or
    another number of channels.
    """
    if suffix not in SUFFIXES:
        raise InputError(
            f"can't write {suffix or 'a file without a suffix'}; use one of {', '.join(SUFFIXES)}, .npz"
        )
    if image.shape[2] not in (1, 3, 4):
        raise InputError(f"image files hold 1, 3 or 4 channels, got {image.shape[2]}; save as .npz")
    if image.shape[2] == 4 and suffix in OPAQUE:
        image = to_channels(image, 3)
    if suffix == ".png":
        return encode_png(image, settings)
    name, options = _WRITERS[suffix]
    file = io.BytesIO()
    try:
        to_picture(image).save(file, name, **options)
    except (OSError, ValueError, OverflowError, struct.error):  # more pixels a side than the format holds
        raise InputError(f"can't write {suffix} of {image.shape[1]} x {image.shape[0]} pixels; use .png") from None
    return file.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Writes beside `path`, then renames: a reader sees the old file or the new one, never half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as failure:
        raise InputError(f"can't write {path}: {failure.strerror or failure}") from None
