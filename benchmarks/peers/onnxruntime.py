"""ONNX Runtime by hand: ``InferenceSession`` with its default options, and a loop."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime
from workloads import Case
from workloads.prepare import Prepared

from peers import Peer
from peers.loops import Graph, open_loop


def open_peer(prepared: Prepared, case: Case) -> Peer:
    """The workload's graphs on the CPU provider."""

    def open_graph(name: str, outputs: Sequence[str]) -> Graph:
        session = onnxruntime.InferenceSession(str(prepared.graph(name)), providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(list(outputs), dict(feeds))

    return open_loop(prepared, case, open_graph)
