"""Ending a run early without losing a step: Ctrl-C, SIGTERM, a terminal that closes, or a limit of time."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Literal, Self

from accelerate import Accelerator

from gensdk_runtime.host.closable import Closable

StopReason = Literal["steps", "seconds", "signal"]
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopper(Closable):
    """Says after each step whether to end: in `max_seconds`, or when asked by SIGINT, SIGTERM or SIGHUP (unless it
    is ignored, as under nohup).

    The first signal asks for a clean end with a checkpoint, the second one interrupts at once. Signals can be
    caught in the main thread only; elsewhere they are left alone. With several processes all end together.
    """

    def __init__(self, accelerator: Accelerator, max_seconds: float | None) -> None:
        self._accelerator = accelerator
        self._end = None if max_seconds is None else time.monotonic() + max_seconds
        self._signalled = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heard = list(_SIGNALS)
            if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
                heard.append(_HANGUP)
            self._previous = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def close(self) -> None:
        """Gives the signals back to their handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal() gave

    def reason(self) -> StopReason | None:
        """Why to end now, or None to go on."""
        own: StopReason | None = None
        if self._signalled:
            own = "signal"
        elif self._end is not None and time.monotonic() >= self._end:
            own = "seconds"
        if self._accelerator.num_processes == 1:
            return own
        if own is not None:
            self._accelerator.set_trigger()
        return (own or "signal") if self._accelerator.check_trigger() else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
