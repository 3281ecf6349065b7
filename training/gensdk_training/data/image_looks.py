"""A first look at image files: their headers, and digests of what is in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import MAX_FILE_BYTES, Header, check_pixels, file_header, read_header
from gensdk_runtime.media.image_reader import CorruptImageError
from gensdk_runtime.printable import printable
from gensdk_training.data.dataset import text_fingerprint
from gensdk_training.data.findings import SkipLog

_HEADER_BYTES = 1 << 16
_TOGETHER = 64
"""Files that a thread looks at in one go: threads that wait for each other after each file cost more than that."""


def read_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of an image file; :class:`CorruptImageError` where it can't be read or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as failure:
        raise CorruptImageError(failure.strerror or "it can't be read") from None
    if len(data) > limit:
        raise CorruptImageError(f"larger than {limit} bytes")
    return data


@dataclass(frozen=True)
class Look:
    """The result of one look at a file: its header, and a digest of its size, its beginning and its end."""

    header: Header
    digest: str


def look_at_all(files: Sequence[Path], skipped: SkipLog) -> dict[int, Look]:
    """The readable files, by index. Raises :class:`InputError` for one that is too large."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        parts = [files[first : first + _TOGETHER] for first in range(0, len(files), _TOGETHER)]
        results = [result for part in pool.map(lambda part: list(map(_look_at, part)), parts) for result in part]
    looks: dict[int, Look] = {}
    for index, result in enumerate(results):
        if isinstance(result, str):
            skipped.add(str(files[index]), result)
        else:
            check_pixels(result.header, printable(str(files[index])))
            looks[index] = result
    return looks


def _look_at(path: Path) -> Look | str:
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.blake2b(str(size).encode() + start, digest_size=16)
            if size > _HEADER_BYTES:  # whatever is changed inside a compressed picture changes its end, too
                file.seek(max(_HEADER_BYTES, size - _HEADER_BYTES))
                digest.update(file.read(_HEADER_BYTES))
        header = read_header(start) if size <= _HEADER_BYTES else file_header(path)
    except CorruptImageError as problem:
        return str(problem)
    except OSError as failure:
        return failure.strerror or "it can't be read"
    return Look(header, digest.hexdigest())


def names_and_sizes(files: Sequence[Path], root: Path) -> str:
    """The fingerprint that older versions gave the same files."""
    return text_fingerprint(f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in files)


def one_size(headers: dict[int, Header], files: Sequence[Path]) -> tuple[int, int]:
    """The (height, width) of all files; :class:`InputError`, naming two, where they differ."""
    first, *others = headers
    size = (headers[first].height, headers[first].width)
    for index in others:
        other = (headers[index].height, headers[index].width)
        if other != size:
            raise InputError(
                f"images differ in size: {printable(files[first].name)} is {size[1]}x{size[0]}, "
                f"{printable(files[index].name)} {other[1]}x{other[0]}; give a size to resize them (--size)"
            )
    return size
