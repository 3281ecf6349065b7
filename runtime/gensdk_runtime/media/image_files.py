"""Image files of unknown origin to uint8 HWC: PNG, JPEG, BMP, WebP, TIFF and GIF, by Pillow.

Sizes are those that the decoder itself found, and are checked before it takes memory for pixels. Colours are taken
as sRGB: a profile inside the file is not applied, as by most training pipelines. Where a file holds several
pictures (GIF, animated WebP and PNG, TIFF), `decode` reads the first; :mod:`gensdk_runtime.media.image_frames` the
others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import Images, flattened, to_array
from gensdk_runtime.media.image_reader import (
    MAX_PIXELS,
    CorruptImageError,
    frame_count,
    ignoring_warnings,
    open_image,
    orientation,
    upright,
    upright_size,
)
from gensdk_runtime.media.image_samples import grey_with_alpha, picture

MAX_FILE_BYTES = 256 << 20
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_START_BYTES = 1 << 16


@dataclass(frozen=True)
class Header:
    """What an image file says about itself before it is decoded.

    `height`, `width`: of the picture as `decode` gives it, upright. `grey`: it has no colours. `alpha`: it has
    transparency. `frames`: how many pictures are in the file (of a TIFF: 2 stands for "more than one").
    """

    height: int
    width: int
    grey: bool = False
    alpha: bool = False
    frames: int = 1


def read_header(data: bytes) -> Header:
    """What the decoder finds in the whole file `data`, told apart by content, not by name.

    Raises :class:`CorruptImageError`, also for other formats: files of unknown origin reach no other decoder.
    """
    return ignoring_warnings(lambda: _read_header(data))


def _read_header(data: bytes) -> Header:
    image = open_image(data)
    height, width = upright_size(image, data)
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F")) or grey_with_alpha(image)
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return Header(height, width, grey, alpha, frame_count(image))


def file_header(path: Path) -> Header:
    """As :func:`read_header`, reading no more of the file than it takes. Raises `OSError` too."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
        if start.startswith((b"\xff\xd8", b"BM")):
            try:
                return read_header(start)
            except CorruptImageError:  # a JPEG may carry a large colour profile first
                pass
        return read_header(read_file(path))


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises :class:`CorruptImageError` for more than 256 MiB, and `OSError`."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise CorruptImageError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def check_pixels(header: Header, name: str) -> None:
    """Raises :class:`InputError` for an image that unfolds beyond the limit."""
    if header.height * header.width > MAX_PIXELS:
        raise InputError(
            f"{name}: {header.width}x{header.height} is more than {MAX_PIXELS} pixels; shrink or remove it"
        )


def decode(data: bytes, channels: int, *, depth: int | None = None) -> Images:
    """The image as uint8 [H, W, channels] (grey, RGB or RGBA), upright by its EXIF orientation.

    Transparent pixels lie on white unless 4 channels are asked for. `depth`: how many bits of 16-bit samples are
    used; None: as many as the file declares. Raises :class:`CorruptImageError` for a file that is cut, damaged or
    too large, and :class:`UnclearDepthError`, one of its kind, for samples of 16 bits that seem to use fewer.
    """
    return ignoring_warnings(lambda: _decode(data, channels, depth))


def _decode(data: bytes, channels: int, depth: int | None) -> Images:
    image = open_image(data)
    turn = orientation(image, data) if image.format != "TIFF" else 1  # Pillow turns a TIFF itself
    return to_array(upright(flattened(picture(image, data, depth), channels), turn))
