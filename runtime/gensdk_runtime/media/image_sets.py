"""Images of one size from a file, a folder or an archive, with the names that reports call them by."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.bundles.arrays_file import npz_names, read_npy, read_npz
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import check_pixels, decode, read_file, read_header
from gensdk_runtime.media.image_folder import list_images
from gensdk_runtime.media.image_pixels import Fit, Images, fit_size, to_channels
from gensdk_runtime.media.image_reader import CorruptImageError
from gensdk_runtime.media.pixel_values import ValueRange, to_pixels
from gensdk_runtime.spec.outputs import ImageSpec

log = logging.getLogger("gensdk.images")

MAX_ARRAY_BYTES = 2**31
MAX_FILES = 1_000_000
IMAGE_KEYS = ("images", "image", "x", "data", "array", "arr_0")
"""Where an archive's images are looked for, in this order."""


@dataclass(frozen=True)
class Shaping:
    """How pictures are brought to a model's size and values, as in its training.

    `fit`: how pictures of other sizes are resized; None: they are refused, since a score changes with it.
    `sized_by`: the option of a command line by which they would be; None: it has none.
    `value_range`: (black, white) of arrays; None: found by their values. `depth`: bits that files of 16 use.
    """

    fit: Fit | None = None
    value_range: ValueRange | None = None
    depth: int | None = None
    sized_by: str | None = "--size"


@dataclass(frozen=True)
class ImageSet:
    """`names`, and `images` uint8 [n, H, W, C]; `skipped`: files that can't be used, with the reason of each;
    `left_out`: how many files are no images by their suffix."""

    names: list[str]
    images: Images
    skipped: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0


def load_images(path: str | Path, spec: ImageSpec, shaping: Shaping | None = None) -> ImageSet:
    """The pictures of `path` with the size and the channels of `spec`.

    `path`: an image file; a folder, with all folders in it; ``FILE.npz``, ``FILE.npz:KEY`` or ``FILE.npy`` as
    :func:`gensdk_runtime.media.pixel_values.to_pixels` reads it. Raises :class:`InputError` for one file that is
    damaged, for a size that is not to be changed, and where nothing is left.
    """
    how, path = shaping or Shaping(), Path(path)
    file, dot, key = str(path).partition(".npz:")
    if dot or path.suffix.lower() in (".npz", ".npy"):
        return _array(Path(file + ".npz") if dot else path, key, spec, how)
    if not path.is_dir():
        return ImageSet(
            [path.name], _shaped(load_image(path, spec.channels, depth=how.depth), path, spec, how)[None]
        )
    listing = list_images(path)
    if len(listing.files) > MAX_FILES:
        raise InputError(f"{path}: expected 1 to {MAX_FILES} image files, got {len(listing.files)}")
    names, images = [], []
    skipped = [(str(broken.relative_to(path)), problem) for broken, problem in listing.broken]
    for found in listing.files:
        name = found.relative_to(path).as_posix()
        try:
            image = _decoded(found, spec.channels, how.depth)
        except CorruptImageError as problem:
            skipped.append((name, str(problem)))
            continue
        images.append(_shaped(image, found, spec, how))
        names.append(name)
    if not images:
        first = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise InputError(f"{path}: expected 1 to {MAX_FILES} image files, got none that can be read{first}")
    return ImageSet(names, np.stack(images), skipped, sum(listing.left_out.values()))


def load_image(path: Path, channels: int, *, depth: int | None = None) -> Images:
    """uint8 [H, W, channels]; :class:`InputError`, naming the file, for one that can't be read."""
    try:
        return _decoded(path, channels, depth)
    except CorruptImageError as failure:
        raise InputError(f"{path}: {failure}; remove it") from None


def _decoded(path: Path, channels: int, depth: int | None) -> Images:
    """Of several pictures in a file the first, which is told in the log."""
    try:
        data = read_file(path)
    except OSError as failure:
        raise InputError(f"can't read {path}: {failure.strerror or failure}") from None
    header = read_header(data)
    check_pixels(header, str(path))
    if header.frames > 1:
        log.warning("%r holds several pictures; the first is taken", str(path))
    return decode(data, channels, depth=depth)


def _shaped(image: Images, where: Path, spec: ImageSpec, how: Shaping) -> Images:
    size = spec.height, spec.width
    if image.shape[:2] == size:
        return image
    if how.fit is None:
        height, width = image.shape[:2]
        option = "" if how.sized_by is None else f", or say {how.sized_by} {spec.height}x{spec.width}"
        raise InputError(
            f"{where}: expected {spec.width}x{spec.height} pixels, got {width}x{height}; resize it{option}"
        )
    return fit_size(image, size, how.fit)


def _array(path: Path, key: str, spec: ImageSpec, how: Shaping) -> ImageSet:
    array: Any
    if path.suffix.lower() == ".npy":
        array = read_npy(path, limit_bytes=MAX_ARRAY_BYTES)
    else:
        names = npz_names(path)
        chosen = key or next((known for known in IMAGE_KEYS if known in names), "")
        if chosen not in names:
            raise InputError(f"{path}: no array {chosen or 'images'!r} in it; it has {', '.join(names[:20])!a}")
        array = read_npz(path, names=[chosen], limit_bytes=MAX_ARRAY_BYTES)[chosen]
    pixels = to_pixels(array, path.name, how.value_range).images
    if pixels.shape[3] != spec.channels:
        pixels = np.stack([to_channels(image, spec.channels) for image in pixels])
    if pixels.shape[1:3] != (spec.height, spec.width):
        pixels = np.stack([_shaped(image, path, spec, how) for image in pixels])
    return ImageSet([f"{path.name}[{i}]" for i in range(len(pixels))], pixels)
