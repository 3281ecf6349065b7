"""What a forked child must not inherit unchanged: locks, threads and native handles of its parent.

Servers load a model and then fork their workers (``gunicorn --preload``, Celery, ``multiprocessing`` on Linux).
The child has one thread: a lock that another thread held stays locked in it for ever, and pools of threads, those
inside native libraries too, wait for threads that are not there. So locks are made here, and what holds threads or
native handles is notified in the child before anything else runs there.
"""

from __future__ import annotations

import ctypes
import os
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

from gensdk_runtime.errors import UnavailableError

_locks: WeakSet[Any] = WeakSet()
_renewed: WeakSet[Renewable] = WeakSet()


class Renewable(Protocol):
    """Something that has to change in a forked child."""

    def after_fork(self) -> None:
        """Called in the child, in its only thread. Must neither fail nor wait."""


def new_lock() -> Lock:
    """A lock that is open in a forked child, whoever held it in the parent."""
    lock = Lock()
    open_in_children(lock)
    return lock


def open_in_children(lock: Any) -> None:
    """Makes sure that a standard-library `lock` is open in every child that is forked while it lives."""
    _locks.add(lock)


def renew_in_children(thing: Renewable) -> None:
    """Calls ``thing.after_fork()`` in every child that is forked while `thing` lives."""
    _renewed.add(thing)


def abandon(thing: object) -> None:
    """Keeps `thing` for ever: to free a native thread pool in a forked child would wait for its threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class ParentOnly:
    """A native library that no forked child can use once its parent did: `name` is what errors call it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._used = self._lost = False
        renew_in_children(self)

    def check(self) -> None:
        """Raises :class:`UnavailableError` in a child whose parent used it."""
        if self._lost:
            raise UnavailableError(
                f"{self.name} can't run in a process that was forked after it had been used; load the bundle in "
                'the child alone (gunicorn without --preload), or start the child with "spawn"'
            )

    def use(self) -> None:
        """Checks, and notes that it is used."""
        self.check()
        self._used = True

    def after_fork(self) -> None:
        """See :class:`Renewable`."""
        self._lost |= self._used


OPENVINO = ParentOnly("OpenVINO")
"""Its pools of threads are kept for the process, and waited for: the child would hang."""
CUDA = ParentOnly("a GPU")
"""CUDA's contexts do not survive a fork."""


def _after_fork() -> None:
    for lock in tuple(_locks):
        lock._at_fork_reinit()  # as the standard library does for its own
    for thing in tuple(_renewed):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
