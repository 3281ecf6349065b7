"""Images of one size from a file, a folder or an archive, with the names that reports call them by."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import (
    SUFFIXES,
    CorruptImageError,
    Images,
    check_pixels,
    decode,
    read_file,
    read_header,
)
from gensdk_runtime.signature import ImageSpec

log = logging.getLogger("gensdk.images")

MAX_ARCHIVE_BYTES = 2**31
MAX_FILES = 1_000_000


def load_images(path: str | Path, spec: ImageSpec) -> tuple[list[str], Images]:
    """Names, and uint8 [n, H, W, C] of the size of `spec`.

    `path`: an image file; a folder, whose image files are read in the order of their names; or an ``.npz`` with an
    array ``images`` uint8 [n, H, W, C]. Raises :class:`InputError`, naming the file, for one that is damaged or
    has another size: nothing is resized, since a score would change with it.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        images = _archive(path, spec)
        return [f"{path.name}[{i}]" for i in range(len(images))], images
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    else:
        files = [path]
    if not files or len(files) > MAX_FILES:
        raise InputError(f"{path}: expected 1 to {MAX_FILES} image files, got {len(files)}")
    return [file.name for file in files], np.stack([_of_size(file, spec) for file in files])


def load_image(path: Path, channels: int) -> Images:
    """uint8 [H, W, channels], of an animation the first frame, which is told in the log.

    Raises :class:`InputError`, naming the file, for one that can't be read.
    """
    try:
        data = read_file(path)
        header = read_header(data)
        check_pixels(header, str(path))
        if header.frames > 1:
            log.warning("%r holds several pictures; the first is taken", str(path))
        return decode(data, channels)
    except OSError as failure:
        raise InputError(f"can't read {path}: {failure.strerror or failure}") from None
    except CorruptImageError as failure:
        raise InputError(f"{path}: {failure}; remove it") from None


def _of_size(path: Path, spec: ImageSpec) -> Images:
    image = load_image(path, spec.channels)
    if image.shape[:2] != (spec.height, spec.width):
        height, width = image.shape[:2]
        raise InputError(f"{path}: expected {spec.width}x{spec.height} pixels, got {width}x{height}; resize it")
    return image


def _archive(path: Path, spec: ImageSpec) -> Images:
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARCHIVE_BYTES:
                raise InputError(f"{path}: it unpacks to over {MAX_ARCHIVE_BYTES} bytes; cut it into parts")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            images = arrays["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as failure:
        raise InputError(f"{path}: no readable .npz with an array 'images' ({str(failure)[:120]})") from None
    wanted = (spec.height, spec.width, spec.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        raise InputError(
            f"{path}: expected images uint8 [n, *{list(wanted)}], got {images.dtype} {list(images.shape)}"
        )
    return np.asarray(images, np.uint8)
