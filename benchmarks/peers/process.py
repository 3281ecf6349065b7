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
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np
from workloads import Case
from workloads.prepare import Prepared

from peers import Float32, Peer, PeerSpec, peer_spec
from peers.serving import Command, peak_memory, serve, timed


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
        """Times whole calls, in ns."""
        assert self.peer is not None
        found, images = timed(partial(self.peer.run, self.noise), calls=calls, discard=discard)
        self.images = np.array(images)
        return {"ns": found}

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


def start(first: dict[str, Any]) -> Mapping[str, Command]:
    """The commands of the peer that the first line names."""
    server = Server(peer_spec(first["peer"]), Prepared(**first["prepared"]))
    return {name: getattr(server, name) for name in COMMANDS}


if __name__ == "__main__":
    serve(start)
