"""MNIST in its original idx files (LeCun, Cortes & Burges), plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.data.arrays import array_dataset, to_labels
from gensdk_training.data.dataset import ArrayDataset, LoadOptions

MAX_BYTES = 4 << 30
GZIP_LIMIT = 1040
"""No gzipped stream grows further."""


def load_mnist(folder: Path, options: LoadOptions, *, name: str = "mnist") -> ArrayDataset:
    """The four idx files of `folder` (any data set of MNIST's form): 60,000 for training, 10,000 for testing."""
    if options.holdout > 0:
        raise InputError(f"{name} has its own test split; leave holdout at 0")
    part = "train" if options.split == "train" else "t10k"
    images_file = _find(folder, f"{part}-images", 3)
    labels_file = _find(folder, f"{part}-labels", 1)
    images = read_idx(images_file, 3)[..., None]
    labels, names = to_labels(read_idx(labels_file, 1), len(images), labels_file.name)
    return array_dataset(name, images, labels, names, options)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The bytes of an idx file as uint8 of `dimensions` axes. Raises :class:`InputError` unless it is whole.

    What the header claims is compared with the file's size before memory is taken.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain) if zipped else plain as file:
                shape = _shape(path, file.read(4 + 4 * dimensions), dimensions)
                count = math.prod(shape)
                if not 1 <= count <= min(MAX_BYTES, size * (GZIP_LIMIT if zipped else 1)):
                    raise _wrong(path, shape, "the file is too small for that")
                data = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as failure:
        raise InputError(f"{path}: can't be read ({str(failure)[:100]}); download it again") from None
    if len(data) != count:
        raise _wrong(path, shape, f"{len(data)} bytes follow" if len(data) < count else "more bytes follow")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    if header[:2] != b"\0\0" or len(header) < 4:
        raise InputError(f"{path}: not an idx file; download it again")
    if header[2] != 0x08 or header[3] != dimensions:
        raise InputError(
            f"{path}: expected unsigned bytes with {dimensions} axes, got type 0x{header[2]:02x} with "
            f"{header[3]} axes"
        )
    if len(header) < 4 + 4 * dimensions:
        raise InputError(f"{path}: its header says less than {dimensions} sizes; download it again")
    return tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))


def _wrong(path: Path, shape: tuple[int, ...], what: str) -> InputError:
    return InputError(f"{path}: its header says {'x'.join(map(str, shape))}, but {what}; download it again")


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    for name in (f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte"):
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise InputError(
        f"no {stem}-idx{dimensions}-ubyte[.gz] in {folder}; write mnist:FOLDER with the idx files, or --data-dir"
    )
