"""``msvcrt`` as far as gensdk needs it: locks on ranges of bytes, by those of the system that is there."""

from __future__ import annotations

import errno
import fcntl
import os
from types import ModuleType

LK_UNLCK, LK_LOCK, LK_NBLCK = range(3)


def msvcrt() -> ModuleType:
    """The module."""
    module = ModuleType("msvcrt")
    vars(module).update(LK_UNLCK=LK_UNLCK, LK_LOCK=LK_LOCK, LK_NBLCK=LK_NBLCK, locking=locking)
    return module


def locking(descriptor: int, mode: int, size: int) -> None:
    """Locks `size` bytes from the descriptor's place on. Two descriptors of one process exclude each other too."""
    if mode == LK_UNLCK:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return
    if mode != LK_NBLCK or size != 1 or os.lseek(descriptor, 0, os.SEEK_CUR) != 0:
        raise NotImplementedError("only the lock that gensdk takes: the first byte, without waiting")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
