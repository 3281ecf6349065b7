"""Files and folders that gensdk keeps for itself, opened only where they are what they should be.

A run folder or a cache may come from a stranger. A name in it may be a link to a file of the user's, a pipe that
blocks for ever, or a device without an end. So: no links, plain files alone, nothing emptied before it is known to
be ours, and sizes looked at before anything is read. All refusals are OSError, whose ``strerror`` says why.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gensdk_runtime.host.system import NO_LINK, OPENS_FOLDERS, READ, block


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the plain file at `path`; with ``O_CREAT`` in `flags` it is made, for this user alone.

    Raises OSError for anything else: a link (also a dangling one), a folder, a pipe, a socket, a device.
    ``O_TRUNC`` is refused: opening would empty a file before it is checked.
    """
    if flags & os.O_TRUNC:
        raise ValueError("open without O_TRUNC, and truncate what turned out to be the right file")
    if path.is_symlink():  # on Windows, which has no O_NOFOLLOW; elsewhere the words are clearer than the system's
        raise _refused(path, errno.ELOOP, "it is a link, which is not followed")
    if not OPENS_FOLDERS and path.is_dir():
        raise _refused(path, errno.EISDIR, "it is not a plain file")
    descriptor = os.open(path, flags | READ | NO_LINK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _refused(path, errno.EINVAL, "it is not a plain file")
        block(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def opened_own(path: Path, *, limit: int) -> Iterator[BinaryIO]:
    """The plain file at `path`, of at most `limit` bytes, to read. OSError as from :func:`open_own`."""
    with open(open_own(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise _refused(path, errno.EFBIG, f"it has {size} bytes, where at most {limit} are expected")
        yield file


def read_own(path: Path, *, limit: int) -> bytes:
    """All of the plain file at `path`, at most `limit` bytes. OSError as from :func:`opened_own`."""
    with opened_own(path, limit=limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # not of `limit`, for which memory would be taken


def check_own_folder(path: Path) -> None:
    """OSError where `path` is there and is no folder, or is a link to one: what lies behind belongs to others."""
    if path.is_symlink():
        raise _refused(path, errno.ELOOP, "it is a link, which is not followed")
    if path.exists() and not path.is_dir():
        raise _refused(path, errno.ENOTDIR, "it is not a folder")


def _refused(path: Path, code: int, why: str) -> OSError:
    return OSError(code, why, str(path))
