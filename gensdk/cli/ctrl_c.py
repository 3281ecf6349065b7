"""Makes Ctrl-C work while the main thread is in native code, which reacts to no signal until it returns.

Python notes a signal and acts on it between two steps of its own; a graph that runs for minutes is one step. So
the signal's number also goes into a pipe, and a thread that waits at its other end ends ONNX Runtime's runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from gensdk_runtime.backends.onnxruntime.graph_runs import let_runs_be_stopped, stop_runs

AGAIN = 1.0
"""Seconds after which a second Ctrl-C ends the process where it stands: what hangs there ends no other way."""
STOPPED = 130

_pressed = threading.Event()


def listen() -> None:
    """Starts the thread, in a process whose main thread is the caller."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    let_runs_be_stopped()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="gensdk-ctrl-c").start()


def was_pressed() -> bool:
    """True if Ctrl-C ended the runs of this process."""
    return _pressed.is_set()


def _watch(reader: int) -> None:
    first = 0.0
    while numbers := os.read(reader, 64):
        if signal.SIGINT not in numbers or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            continue  # who has a handler of his own, as training has, goes on for a while
        if first and time.monotonic() - first > AGAIN:
            os.write(2, b"stopped\n")
            os._exit(STOPPED)
        first = first or time.monotonic()
        _pressed.set()
        stop_runs()
