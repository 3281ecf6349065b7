"""A second try where the GPU has no memory left: what waits for its next run is freed first, in every session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from weakref import WeakSet

from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import OutOfMemoryError
from gensdk_runtime.host.forking import new_lock

TakenT = TypeVar("TakenT")

IDLE_SHARE = 8
"""Buffers that wait for their next run may take so small a part of the GPU's memory in each graph."""
IDLE_BYTES = 2**29
"""Where that is not known."""

_sessions: WeakSet[Session] = WeakSet()
_lock = new_lock()


def idle_bytes(memory: int) -> int:
    """:attr:`Session.idle_bytes` for a GPU with so many bytes of `memory`, 0 where that is not known."""
    return memory // IDLE_SHARE or IDLE_BYTES


def frees_when_short(session: Session) -> None:
    """Has :meth:`Session.free_idle` called on `session` where others need memory, while it lives."""
    with _lock:
        _sessions.add(session)


def with_room(take: Callable[[], TakenT]) -> TakenT:
    """What `take` gives; called again, with all idle buffers freed, where the GPU had no memory for it."""
    with suppress(OutOfMemoryError):  # what it had taken before it failed is freed with the error, here
        return take()
    with _lock:
        sessions = tuple(_sessions)
    for session in sessions:
        session.free_idle()
    return take()
