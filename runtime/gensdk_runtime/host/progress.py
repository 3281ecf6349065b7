"""A progress bar for long work; silent unless stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from threading import Lock
from time import monotonic
from typing import Any

from gensdk_runtime.host.closable import Closable
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.printable import printable

PATIENCE = 1.0
"""Seconds before the bar appears: short work needs none, and rich is imported only when it does."""


_asked: tuple[object, bool] = (None, False)
"""The stream that was asked last whether it is a terminal, and its answer: asking is a call of the system."""


def _on_a_terminal() -> bool:
    """True if stderr is a terminal; programs without a console have no stderr."""
    global _asked  # noqa: PLW0603 - of the process
    stream = sys.stderr
    if stream is None:
        return False
    if _asked[0] is not stream:
        _asked = stream, stream.isatty()
    return _asked[1]


class Progress(Closable):
    """Counts `parts` of work, each from 0 to 1. `show`: None decides by whether stderr is a terminal."""

    def __init__(self, parts: int, title: str, *, show: bool | None = None) -> None:
        self._parts = parts
        self._title = title
        self._show = _on_a_terminal() if show is None else show
        self._start = monotonic()
        self._done = 0.0
        self._bar: Any = None
        self._task: Any = None

    @cached_property
    def _lock(self) -> Lock:
        """Made where it is needed: a call without a bar takes some tens of microseconds in all."""
        return new_lock()

    @property
    def shown(self) -> bool:
        """True if there will be a bar once the work is long."""
        return self._show

    def share(self, parts: int) -> Callable[[float], None]:
        """A function to call, in any thread, with how far `parts` of the work have come, from 0 to 1."""
        before, lock = 0.0, self._lock

        def tell(fraction: float) -> None:
            nonlocal before
            with lock:
                self._done += parts * (fraction - before)
                before = fraction
                self._tell(self._done)

        return tell

    def _tell(self, done: float) -> None:
        if not self._show or monotonic() - self._start < PATIENCE:
            return
        if self._bar is None:
            self._open()
        self._bar.update(self._task, completed=done)

    def _open(self) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress as Bar

        self._bar = Bar(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(escape(printable(self._title)), total=self._parts)
        self._bar.start()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
