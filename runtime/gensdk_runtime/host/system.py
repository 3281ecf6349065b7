"""What operating systems do differently with files and memory, in one place.

Windows opens no folders and no file beneath an open folder, tells Python of no owners of files, syncs only what
was opened to write, and moves nothing over a file that is open, be it for a moment, by a reader or a scanner. What
Python documents for Unix alone is used here, or behind a function from here.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

READ: int = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags that open a file's bytes. A pipe in its place is not waited for. Python keeps it from children."""
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
"""The flag that refuses a link in the last place of a path; 0, and a check of one's own, on Windows."""
FOLDER: int = getattr(os, "O_DIRECTORY", 0)
"""The flag that opens folders alone; 0 on Windows."""
OPENS_BENEATH = os.open in os.supports_dir_fd and os.scandir in os.supports_fd and NO_LINK != 0
"""True where a file can be opened beneath an open folder, so that nothing is slipped in between."""
OPENS_FOLDERS = sys.platform != "win32"
"""True where a folder can be opened, to be locked or synced, and a file be renamed while it is open."""
READS_AT = hasattr(os, "pread")
"""True where :func:`read_at` is there: it neither moves a descriptor's place nor depends on it."""

_PATIENCE = 2.0  # seconds for which a move waits on Windows
_PAUSE = 0.01


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes from `offset` on, where :data:`READS_AT` says that there is a way."""
    if sys.platform == "win32":
        raise NotImplementedError("expected a system that reads at a place")
    return os.pread(descriptor, size, offset)


def block(descriptor: int) -> None:
    """Makes reads of what :data:`READ` opened wait for data again, once it is known to be a plain file."""
    if sys.platform != "win32":
        os.set_blocking(descriptor, True)


def sync(path: Path) -> None:
    """Waits until a file, or the list of names of a folder, is on the disk."""
    if not OPENS_FOLDERS and path.is_dir():
        return  # there is no way
    descriptor = os.open(path, os.O_RDONLY if OPENS_FOLDERS else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Renames a file over another, or to a free path. On Windows it waits a while for who has one of them open."""
    until = time.monotonic() + (0.0 if OPENS_FOLDERS else _PATIENCE)
    while True:
        try:
            source.replace(target)
        except PermissionError:
            if time.monotonic() >= until or target.is_dir():
                raise
            time.sleep(_PAUSE)
        else:
            return


def is_own(found: os.stat_result) -> bool:
    """True if this user owns the file; always on Windows, where access lists keep the user's folders private."""
    if sys.platform == "win32":
        return True
    return found.st_uid == os.geteuid()


def others_may_write(found: os.stat_result) -> bool:
    """True if a file's mode lets others write to it; never on Windows, where modes say nothing of others."""
    return sys.platform != "win32" and bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def physical_memory() -> int:
    """Bytes of memory that the machine has; 0 where the system does not say."""
    if sys.platform == "win32":
        return _windows_memory()[0]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def free_memory() -> int | None:
    """Bytes that no process uses, where the system says so in a call: on Windows."""
    return _windows_memory()[1] if sys.platform == "win32" else None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows's ``sysinfoapi.h``."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load_percent", ctypes.c_uint32),
        ("physical", ctypes.c_uint64),
        ("free_physical", ctypes.c_uint64),
        ("page_file", ctypes.c_uint64),
        ("free_page_file", ctypes.c_uint64),
        ("virtual", ctypes.c_uint64),
        ("free_virtual", ctypes.c_uint64),
        ("free_extended_virtual", ctypes.c_uint64),
    )


def _windows_memory() -> tuple[int, int | None]:
    """All and free memory, as ``GlobalMemoryStatusEx`` gives them; 0 and None where it fails."""
    libraries: Any = getattr(ctypes, "windll")  # noqa: B009 - mypy knows it on Windows alone
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not libraries.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0, None
    return int(status.physical), int(status.free_physical)
