"""Locks between processes. The system takes them back when their holder ends, however that happens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gensdk_runtime.host.own_files import open_own
from gensdk_runtime.host.system import OPENS_FOLDERS

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL = 0.05  # seconds between looks at a lock that another process holds


def try_lock(descriptor: int) -> bool | None:
    """True if the lock was free and is now held, False if another holds it, None where there are no locks.

    It is held until the descriptor is closed.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


@contextmanager
def locked(
    path: Path, *, patience: float = 0.0, on_wait: Callable[[], None] | None = None
) -> Iterator[bool | None]:
    """Holds the lock of the plain file `path`, which is made for it and removed afterwards.

    Gives what :func:`try_lock` does. Where another process or thread holds it, it waits for up to `patience`
    seconds and calls `on_wait` again and again. OSError where `path` can't be made or is something else.
    """
    end = time.monotonic() + patience
    while (found := _take(path))[0] is False and time.monotonic() < end:
        if on_wait is not None:
            on_wait()
        time.sleep(_POLL)
    held, descriptor = found
    try:
        yield held
    finally:
        if descriptor is not None:
            if held and OPENS_FOLDERS:
                _remove(path)  # before it is let go: who waits for it finds out, and tries again
            os.close(descriptor)
            if held and not OPENS_FOLDERS:
                _remove(path)  # Windows removes no file that is open, here or with who waits for it


@contextmanager
def locked_if_possible(
    path: Path, *, patience: float = 0.0, on_wait: Callable[[], None] | None = None
) -> Iterator[bool | None]:
    """As :func:`locked`; None also where the file can't be made, as in a read-only folder."""
    with ExitStack() as stack:
        try:
            held = stack.enter_context(locked(path, patience=patience, on_wait=on_wait))
        except OSError:
            held = None
        yield held


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _take(path: Path) -> tuple[bool | None, int | None]:
    """What :func:`try_lock` says, and the descriptor unless another holds the lock."""
    while True:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        held = try_lock(descriptor)
        if held is None or (held and _is_at(path, descriptor)):
            return held, descriptor
        os.close(descriptor)
        if held is False:
            return False, None


def _is_at(path: Path, descriptor: int) -> bool:
    """False if the file was removed, by the one that held it, before it was locked here."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
