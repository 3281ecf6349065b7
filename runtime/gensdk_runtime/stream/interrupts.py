"""Signals that come while a frame is written, kept until it is: what was written is what was counted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from gensdk_runtime.host.closable import Closable

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class Interrupts(Closable):
    """Wraps the Python handlers of SIGINT (Ctrl-C), SIGTERM and SIGHUP.

    While it is held (``with interrupts.held():``) the first signal waits for the end of that; a second one goes
    to its handler at once, so that a sink which hangs can be left. In other threads than the main one it does
    nothing, since signals do not arrive there.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._holding = False
        self._waiting: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            self._before = {number: handler for number, handler in handlers.items() if callable(handler)}
            for number in self._before:
                signal.signal(number, self._receive)
        return self

    def close(self) -> None:
        """Gives the signals back to their handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """In it the first signal waits; at its end what that signal's handler raises is raised."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            if self._waiting is not None:
                (number, frame), self._waiting = self._waiting, None
                self._before[number](number, frame)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._holding and self._waiting is None:
            self._waiting = (number, frame)
        else:
            self._waiting = None
            self._before[number](number, frame)
