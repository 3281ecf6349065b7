"""The libraries that a library of Linux needs, read off its file: the loader names only the first it misses."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from pathlib import Path
from typing import BinaryIO

_DYNAMIC, _NEEDED = 6, 1  # SHT_DYNAMIC, DT_NEEDED
_HEADER, _SECTION, _ENTRY = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<qQ")
_MAX_SECTIONS, _MAX_BYTES = 1024, 2**20


def needed_libraries(path: Path) -> tuple[str, ...]:
    """The names in a 64-bit ELF file's list of needed libraries; empty for any other file."""
    with contextlib.suppress(OSError, struct.error, ValueError, IndexError), path.open("rb") as file:
        return _needed(file)
    return ()


def missing_libraries(path: Path) -> tuple[str, ...]:
    """Those among :func:`needed_libraries` that the loader does not find; it loads the others."""
    return tuple(name for name in needed_libraries(path) if not _loads(name))


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _needed(file: BinaryIO) -> tuple[str, ...]:
    header = _HEADER.unpack(file.read(_HEADER.size))
    identity, table, size, count = header[0], header[6], header[11], header[12]
    if identity[:6] != b"\x7fELF\x02\x01" or size != _SECTION.size or count > _MAX_SECTIONS:
        return ()
    file.seek(table)
    sections = [_SECTION.unpack(file.read(size)) for _ in range(count)]
    dynamic = next((each for each in sections if each[1] == _DYNAMIC), None)
    if dynamic is None:
        return ()
    entries = list(_ENTRY.iter_unpack(_bytes(file, dynamic)))
    strings = _bytes(file, sections[dynamic[6]])
    places = [value for tag, value in entries if tag == _NEEDED]
    return tuple(strings[place : strings.index(b"\0", place)].decode() for place in places)


def _bytes(file: BinaryIO, section: tuple[int, ...]) -> bytes:
    """The content of a section, at most _MAX_BYTES of it."""
    file.seek(section[4])
    return file.read(min(section[5], _MAX_BYTES))
