"""Puts a finished file or folder in place, all or nothing: a kill at any moment leaves the old or the new one.

The new one is built beside the old one under a hidden name, made durable, and then takes its place: a file by
rename, a folder by the exchange of two paths in one system call (``renameat2`` with RENAME_EXCHANGE on Linux,
``renamex_np`` with RENAME_SWAP on macOS). Where the system or the file system has no exchange, the old folder
is first renamed to :func:`previous_of`, where readers look when the path itself is empty; of two writers at the
same moment one may then fail and must try again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux, renameat2
_RENAME_SWAP = 2  # macOS, renamex_np
_ABANDONED_AFTER = 24 * 3600.0  # seconds, where file locks don't tell whether a writer lives


def previous_of(path: Path) -> Path:
    """Where the old bundle waits while it is replaced, on systems that can't exchange two paths at once."""
    return path.parent / f".{path.name}.previous"


@contextlib.contextmanager
def sibling(target: Path, *, folder: bool) -> Iterator[Path]:
    """A fresh empty file or folder beside `target`, locked while in use, and gone afterwards if still there.

    After :func:`put_in_place` its name may hold the old `target`, which is then removed.
    """
    _remove_abandoned(target)
    path, descriptor = _create(target, folder=folder)
    try:
        yield path
    finally:
        if descriptor is not None:
            os.close(descriptor)
        _remove(path)


def put_in_place(new: Path, target: Path) -> None:
    """Moves the durable `new` to `target`; what stood there lies at `new` afterwards, or is gone. OSError."""
    try:
        new.replace(target)  # to a free path, a file over a file, a folder over an empty one
    except OSError:
        if not target.exists():
            raise
        if not _exchange(new, target):
            _rename_in_two_steps(new, target)
    sync(target.parent)
    _remove(previous_of(target))


def sync(path: Path) -> None:
    """Waits until a file, or the list of names of a folder, is on the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, target: Path) -> bool:
    """Swaps two paths in one step; False where the system or the file system can't."""
    name = {"linux": "renameat2", "darwin": "renamex_np"}.get(sys.platform)
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    if call is None:
        return False
    paths = os.fsencode(new), os.fsencode(target)
    if name == "renameat2":
        result = call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    else:
        result = call(*paths, _RENAME_SWAP)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(target))


def _rename_in_two_steps(new: Path, target: Path) -> None:
    """Between the steps the old one is found at :func:`previous_of`."""
    previous = previous_of(target)
    _remove(previous)  # of a writer that was killed after its second step: `target` stands
    target.replace(previous)
    try:
        new.replace(target)
    except OSError:
        previous.replace(target)
        raise


def _create(target: Path, *, folder: bool) -> tuple[Path, int | None]:
    """An empty sibling with a fresh name, and the descriptor that locks it."""
    while True:
        path = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}")
        try:
            path.mkdir() if folder else path.touch(exist_ok=False)
        except FileExistsError:
            continue
        if sys.platform == "win32":
            return path, None  # an open file could not be renamed
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            if _lock(descriptor) is not False and path.exists():
                return path, descriptor
            os.close(descriptor)  # another writer took it for abandoned, and removes it


def _remove_abandoned(target: Path) -> None:
    """Removes what killed writers left beside `target`; that of living ones is locked."""
    for path in target.parent.iterdir():
        if not path.name.startswith(_prefix(target)):
            continue
        with contextlib.suppress(OSError):
            old = time.time() - path.lstat().st_mtime > _ABANDONED_AFTER
            if sys.platform == "win32":
                if old:
                    _remove(path)
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                free = _lock(descriptor)
                if free or (free is None and old):
                    _remove(path)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """True if the lock was free and is now held, False if another holds it, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _prefix(target: Path) -> str:
    return f".{target.name}.new-"


def _remove(path: Path) -> None:
    """Best effort: what stays is removed by the next writer."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
