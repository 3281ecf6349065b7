"""The parts by name: what they ask, how long they may take, and into which pieces they fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WORKLOADS = ("digits-dcgan", "digits-ddpm")
"""What latencies are compared with, each in a process of its own."""
MACHINE = "machine"
PREPARE = "prepare"
"""A piece that makes what the others of its part need."""


@dataclass(frozen=True)
class Part:
    """`seconds`: its limit, for all pieces together; `by`: what its pieces are. `prepares`: it begins with one
    that makes what the others need."""

    name: str
    title: str
    seconds: float
    by: Literal["whole", "backend", "workload"] = "backend"
    prepares: bool = False

    @property
    def module(self) -> str:
        """Where its ``rows(order)`` is."""
        return f"day_one.part_{self.name}"

    def pieces(self, backends: Sequence[str]) -> tuple[str, ...]:
        """What goes into processes of their own, where `backends` open."""
        if not backends and self.by != "whole":
            return ()
        pieces = {"whole": (self.name,), "backend": tuple(backends), "workload": WORKLOADS}[self.by]
        return (PREPARE, *pieces) if self.prepares else pieces


_ALL = (
    Part(MACHINE, "The machine, and which backends open on it", 30.0, "whole"),
    Part("proof", "Samples against PyTorch's, twice, and in parts", 140.0),
    Part("memory", "Memory that is taken, and given back", 60.0),
    Part("latency", "Latency beside PyTorch and bare ONNX Runtime, interleaved in one run", 230.0, "workload"),
    Part("transfers", "What passes between host and device in one call", 35.0),
    Part("frames", "Frames of video through a translation model", 95.0, prepares=True),
)

PARTS = {part.name: part for part in _ALL}
TOTAL_SECONDS = 600.0
"""For everything, whatever the limits of the parts."""
