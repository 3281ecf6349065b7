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
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gensdk_runtime.host.locks import try_lock
from gensdk_runtime.host.system import NO_LINK, OPENS_FOLDERS, READ, is_own, move, sync

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux, renameat2
_RENAME_SWAP = 2  # macOS, renamex_np
_SIBLING = re.compile(r"\..+\.new-[0-9a-f]{8}")
_swept: set[Path] = set()  # folders that were looked through by write_file in this process
_ABANDONED_AFTER = 24 * 3600.0  # seconds, where file locks don't tell whether a writer lives


def previous_of(path: Path) -> Path:
    """Where the old bundle waits while it is replaced, on systems that can't exchange two paths at once."""
    return path.parent / f".{path.name}.previous"


@contextlib.contextmanager
def sibling(target: Path, *, folder: bool) -> Iterator[Path]:
    """A fresh empty file or folder beside `target`, locked while in use, and gone afterwards if still there.

    After :func:`put_in_place` its name may hold the old `target`, which is then removed.
    """
    remove_abandoned(target.parent, _SIBLING)
    path, descriptor = _create(target, folder=folder)
    try:
        yield path
    finally:
        if descriptor is not None:
            os.close(descriptor)
        _remove(path)


def write_file(path: Path, *parts: bytes, durable: bool = False) -> None:
    """Writes `parts` beside `path`, then renames: a reader sees the old file or the new one. A link is replaced.

    `durable`: it waits for the disk; without that many small files are quick. Raises OSError.
    """
    folder = path.parent.absolute()
    if folder not in _swept:
        _swept.add(folder)
        remove_abandoned(folder, _SIBLING)
    new, descriptor = _create(path, folder=False)
    try:
        with new.open("wb") as file:
            file.writelines(parts)
        if durable:
            sync(new)
        move(new, path)
        if durable:
            sync(folder)
    except BaseException:
        _remove(new)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def check_no_dangling_link(path: Path) -> None:
    """Raises OSError if `path` is a link to nothing: a file written there would appear in an unexpected place."""
    if path.is_symlink() and not path.exists():
        raise OSError(errno.ELOOP, "it is a link to something that is not there; remove it", str(path))


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
        path = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
        try:
            path.mkdir() if folder else path.touch(exist_ok=False)
        except FileExistsError:
            continue
        if not OPENS_FOLDERS:
            return path, None  # nor could an open file be renamed
        if (descriptor := held(path)) is not None:
            return path, descriptor


def held(path: Path) -> int | None:
    """The descriptor that locks the fresh `path`; None: another process took it for abandoned, and removes it."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, READ)
        if try_lock(descriptor) is not False and path.exists():
            return descriptor
        os.close(descriptor)
    return None


def remove_abandoned(folder: Path, names: re.Pattern[str]) -> None:
    """Removes what killed processes left in `folder` under such `names`; what living ones have is locked.

    Without locks, what is less than a day old stays.
    """
    for name in os.listdir(folder):  # noqa: PTH208 - cheap where there are many
        if names.fullmatch(name):
            with contextlib.suppress(OSError):
                _remove_if_abandoned(folder / name)


def _remove_if_abandoned(path: Path) -> None:
    found = path.lstat()
    old = time.time() - found.st_mtime > _ABANDONED_AFTER
    if not OPENS_FOLDERS:
        if old:
            _remove(path)
        return
    if not is_own(found):
        return
    descriptor = os.open(path, READ | NO_LINK)
    try:
        free = try_lock(descriptor)
        if free or (free is None and old):
            _remove(path)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Best effort: what stays is removed by the next writer."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
