"""The first thing that runs in a child: ties its life to its parent's and sets its limits, then runs a module.

``python -P -m gensdk_runtime.host.child_main ORDER ARGUMENTS...``, where ORDER is JSON made by
:func:`gensdk_runtime.host.child_process.start_module`. Nothing is imported here but Python's own: a child that
hangs in an import of the module has its limits already.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from threading import Thread
from typing import Any

if sys.platform != "win32":
    import resource

_PR_SET_PDEATHSIG = 1
ORPHANED = 70
"""Exit code of a child whose parent is gone; nobody reads it."""


def main() -> None:
    """Does what the order says."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    die_with(order["parent"])
    limit_memory(order["memory"])
    allow_processor_time(order["processor_seconds"])
    if order["lifeline"]:
        on_end_of_input(lambda line: None)
    sys.argv = [order["module"], *sys.argv[2:]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def die_with(parent: int) -> None:
    """On Linux the system kills this process when `parent` dies, even where native code holds the interpreter."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os._exit(ORPHANED)


def on_end_of_input(each_line: Callable[[bytes], object]) -> None:
    """Gives lines of standard input to `each_line`, in a thread; at their end the process ends, even in a run."""

    def read() -> None:
        rest = b""
        while data := os.read(0, 2**16):  # not sys.stdin: a thread that waits in it aborts Python at its end
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                each_line(line)
        os._exit(0)  # some runtimes crash while they are taken down; there is nothing left to do

    Thread(target=read, daemon=True, name="gensdk-parent").start()


def limit_memory(size: int | None) -> None:
    """At most `size` bytes of private memory: an allocation beyond fails. And no core files.

    On Linux the limit is on data, not on address space, of which GPU drivers reserve hundreds of gigabytes.
    """
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if size is not None:
            _lower(resource.RLIMIT_DATA, size)


def allow_processor_time(seconds: int | None) -> None:
    """From now on at most so many `seconds` of all threads together; the system ends the process after them."""
    if sys.platform != "win32" and seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds)


if sys.platform != "win32":

    def _lower(which: int, value: int) -> None:
        """Sets the soft limit, below a hard one that stands."""
        _, hard = resource.getrlimit(which)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bounded, hard))


if __name__ == "__main__":
    main()
