"""OpenVINO by hand: ``compile_model`` in its LATENCY mode, one infer request for each graph, and a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openvino
from workloads import Case
from workloads.prepare import Prepared

from gensdk_runtime.backends.openvino.importing import shared_core
from peers import Peer
from peers.loops import Graph, open_loop

_CONFIG = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def open_peer(prepared: Prepared, case: Case, *, static: bool = False) -> Peer:
    """The workload's graphs; `static`: with all shapes fixed before they are compiled."""
    core = shared_core(openvino)  # of many, the order in which they are freed can leave a dead signal stack

    def open_graph(name: str, outputs: Sequence[str]) -> Graph:
        model = core.read_model(str(prepared.graph(name)))
        if static:
            model.reshape({port: _fixed(port.partial_shape, case.batch) for port in model.inputs})
        compiled = core.compile_model(model, "CPU", _CONFIG)
        request = compiled.create_infer_request()
        ports = [compiled.output(output) for output in outputs]

        def run(feeds: Any) -> list[Any]:
            results = request.infer(feeds, share_inputs=True)
            return [results[port] for port in ports]

        return run

    return open_loop(prepared, case, open_graph)


def _fixed(shape: Any, batch: int) -> list[int]:
    """Every dynamic axis is the batch here."""
    return [batch if axis.is_dynamic else axis.get_length() for axis in shape]
