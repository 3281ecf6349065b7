"""ONNX Runtime by hand: ``InferenceSession`` with its default options, and a loop."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime
from workloads import Case
from workloads.prepare import Prepared

from gensdk_runtime.backends.onnxruntime.package import load_gpu_libraries
from peers import Peer
from peers.loops import Graph, open_loop

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def open_peer(prepared: Prepared, case: Case, *, provider: str = CPU) -> Peer:
    """The workload's graphs on one provider; CUDA without TF32, which is on by default.

    RuntimeError where ONNX Runtime falls back to another provider.
    """
    options: dict[str, str] = {}
    if provider == CUDA:
        load_gpu_libraries(onnxruntime)
        options["use_tf32"] = "0"

    def open_graph(name: str, outputs: Sequence[str]) -> Graph:
        session = onnxruntime.InferenceSession(str(prepared.graph(name)), providers=[(provider, options)])
        if (running := session.get_providers()[0]) != provider:
            raise RuntimeError(f"ONNX Runtime fell back from {provider} to {running}")
        return lambda feeds: session.run(list(outputs), dict(feeds))

    return open_loop(prepared, case, open_graph)
