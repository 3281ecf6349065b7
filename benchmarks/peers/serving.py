"""What every peer's process has in common: JSON lines in and out, and the clock around its calls.

Of the standard library alone, so that a process can serve another version of gensdk than the one beside it.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Any, TextIO

Command = Callable[..., Mapping[str, Any]]

CLOCKS = {"wall": perf_counter_ns, "cpu": process_time_ns}
"""What time is measured by, in ns: time that passes, or processor time of all threads, which other processes on a
busy machine disturb less, but which waiting does not count in."""


def serve(start: Callable[[dict[str, Any]], Mapping[str, Command]]) -> None:
    """Answers commands, a JSON line each, until standard input ends.

    The first line goes to `start`, which gives the commands by name. What a command raises is its answer.
    """
    out, waiting = private_output(), _lines()
    commands = start(json.loads(waiting.get()))
    while True:
        given = json.loads(waiting.get())
        name = given.pop("do")
        try:
            if name not in commands:
                raise ValueError(f"no command {name!r}")
            answer = commands[name](**given)
        except Exception as failure:  # a peer may raise anything; the others go on
            answer = {"error": f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"}
        print(json.dumps(answer), file=out, flush=True)


def timed(call: Callable[[], Any], *, calls: int, discard: int, clock: str = "wall") -> tuple[list[int], Any]:
    """Nanoseconds of each of `calls` calls after `discard` others, without the garbage collector; and what the
    last one gave. `clock`: one of CLOCKS."""
    now, found, result = CLOCKS[clock], [], None
    gc.collect()
    gc.disable()
    try:
        for _ in range(discard + calls):
            start = now()
            result = call()
            found.append(now() - start)
    finally:
        gc.enable()
    return found[discard:], result


def peak_memory() -> int:
    """Peak of resident memory of this process in bytes, since its program started."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def private_output() -> TextIO:
    """A private copy of standard output; whatever else is printed goes to standard error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def _lines() -> queue.SimpleQueue[str]:
    """Lines of standard input; the process ends with them, in the middle of a run if need be."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            found.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found
