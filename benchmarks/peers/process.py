"""A peer in a process of its own: commands as JSON lines on standard input, answers as JSON lines.

Thread pools of different runtimes disturb each other, so each peer lives alone. What its libraries print goes to
standard error. It ends when its standard input does, so it dies with whoever started it, even in mid-run.

    open {batch, steps, noise}   loads the case; `noise` is an .npy file
    run {calls, discard}         times `calls` runs, after `discard` that are not counted
    save {to}                    the last images, as .npy
    differing {images}           see Peer.differing
    memory                       this process's peak of resident memory, in bytes
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any, TextIO

import numpy as np
from workloads import Case
from workloads.prepare import Prepared

from peers import PEERS, Float32, Peer, PeerSpec


@dataclass
class Server:
    """Answers the commands for one peer of one workload."""

    spec: PeerSpec
    prepared: Prepared
    peer: Peer | None = None
    noise: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    images: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))

    def open(self, *, batch: int, steps: int | None, noise: str) -> dict[str, Any]:
        """Opens a case in place of the one before, and makes its first images."""
        self.peer = None
        gc.collect()
        self.noise = np.load(noise, allow_pickle=False)
        start = perf_counter_ns()
        self.peer = self.spec.open(self.prepared, Case(batch, steps))
        opened = perf_counter_ns()
        self.images = np.array(self.peer.run(self.noise))
        ended = perf_counter_ns()
        return {
            "open_ns": opened - start,
            "first_ns": ended - opened,
            "detail": self.peer.detail(),
            "scale": self.peer.scale,
            "whole": self.peer.whole,
        }

    def run(self, *, calls: int, discard: int) -> dict[str, Any]:
        """Times whole calls, with the garbage collector off, in ns."""
        assert self.peer is not None
        peer, noise, found = self.peer, self.noise, []
        gc.collect()
        gc.disable()
        for _ in range(discard + calls):
            start = perf_counter_ns()
            images = peer.run(noise)
            found.append(perf_counter_ns() - start)
        gc.enable()
        self.images = np.array(images)
        return {"ns": found[discard:]}

    def save(self, *, to: str) -> dict[str, Any]:
        """Writes the last images."""
        np.save(to, self.images, allow_pickle=False)
        return {}

    def differing(self, *, images: str) -> dict[str, Any]:
        """Compares images of another peer with what this one would draw."""
        assert self.peer is not None
        return dict(self.peer.differing(self.noise, np.load(images, allow_pickle=False)))

    def memory(self) -> dict[str, Any]:
        """The peak so far."""
        return {"bytes": peak_memory()}


COMMANDS = ("open", "run", "save", "differing", "memory")


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


def answers() -> TextIO:
    """A private copy of standard output; whatever else is printed goes to standard error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def lines() -> queue.SimpleQueue[str]:
    """Lines of standard input; the process ends with them, in the middle of a run if need be."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            found.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def main() -> None:
    """Serves until standard input ends."""
    out, commands = answers(), lines()
    first = json.loads(commands.get())
    server = Server(PEERS[first["peer"]], Prepared(**first["prepared"]))
    while True:
        command = json.loads(commands.get())
        name = command.pop("do")
        try:
            if name not in COMMANDS:
                raise ValueError(f"no command {name!r}")
            answer = getattr(server, name)(**command)
        except Exception as failure:  # a peer may raise anything; the others go on
            answer = {"error": f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
