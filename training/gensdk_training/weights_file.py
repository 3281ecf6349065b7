"""Checks a file of weights that a setting names, before it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

from gensdk_runtime.errors import InputError

MAX_BYTES = 2**30
_PIECE = 2**20


def check_weights_file(path: Path) -> None:
    """Raises :class:`InputError` for what is no plain file, or a link to one: a pipe would block, a device never
    end; and for more than a GiB. A file that is missing is left to who reads it."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file of weights, and it is not a plain file")
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES} bytes; expected the weights of a small network")


def refuse_damage(path: Path) -> None:
    """:class:`InputError` for a file of ``torch.save`` with a part that is not what its checksum says.

    ``torch.load`` takes a flipped bit for a weight like any other. Files that were written without checksums, or
    in the format before archives, have nothing to compare with.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return
    with archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > path.stat().st_size:
            return  # it unfolds, which no file of torch.save does
        for part in parts:
            if part.CRC == 0:  # torch.serialization.set_crc32_options(False), or an empty part
                continue
            try:
                with archive.open(part) as file:
                    while file.read(_PIECE):
                        pass
            except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError):
                raise InputError(
                    f"{path}: its part {part.filename[:80]!r} is damaged; copy or download the file again"
                ) from None
