"""CUDA graphs of ONNX Runtime's CUDA provider: a run is captured once, and launched as a whole the next times.

They are made where they are asked for, as in ``onnxruntime:cuda:graphs``: in small networks launches take longer
than what they launch, but ONNX Runtime keeps what it captured as long as the session, for each thread anew; its
older releases wait after each launch (pull request 28686), and while they capture no other thread of the process
may allocate on the GPU. Its TensorRT provider captures one graph a session, where states that change places need
two. A capture of ours around its runs, as engines have it, can end the process (pull request 32081).
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from gensdk_runtime.backends.onnxruntime.graph_runs import captured
from gensdk_runtime.errors import tell

MOST = 128
"""Graphs of one session, none of which is freed before it."""
PLAIN_RUNS = 2
"""Of new buffers, before one is captured: ONNX Runtime's arena grows in the first and, with memory patterns, again
in the second, and must not in a capture."""


class Captures:
    """The CUDA graphs of a session; `graph` is what it is called."""

    def __init__(self, ort: Any, graph: str) -> None:
        self._ort, self._graph = ort, graph
        self._numbers = itertools.count(1)
        self.refused = False

    def new(self) -> Any | None:
        """Options for the runs of one more graph; None where there are enough."""
        number = next(self._numbers)
        if number > MOST:
            if number == MOST + 1:
                tell(f"graph {self._graph!r} has {MOST} CUDA graphs; further sizes and threads run without")
            return None
        return captured(self._ort, number)

    def refuse(self, reason: str) -> None:
        """Has all further runs launched one kernel after another, and says so."""
        if not self.refused:
            self.refused = True
            tell(f"graph {self._graph!r} runs without a CUDA graph ({reason})")


class CapturedRuns:
    """Which runs over one set of buffers are launched as CUDA graphs: those of a turn and a thread as one."""

    def __init__(self, captures: Captures | None) -> None:
        self._captures = captures
        self._runs = 0
        self._options: dict[tuple[int, int], Any] = {}

    def options(self, turn: int) -> Any | None:
        """Those of the next run, in this `turn`; None: it is no graph."""
        if self._captures is None or self._captures.refused:
            return None
        self._runs += 1
        if self._runs <= PLAIN_RUNS:
            return None
        key = (threading.get_ident(), turn)
        if key not in self._options:
            self._options[key] = self._captures.new()
        return self._options[key]
