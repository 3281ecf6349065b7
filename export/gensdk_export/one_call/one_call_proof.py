"""The proof of a one-call graph: the same samples as step by step, from the golden seeds, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from gensdk_export.export_report import GraphRow, check_row
from gensdk_export.isolated_load import load_isolated
from gensdk_export.one_call.sampler import OneCall
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_export.proof import GraphSet
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host.known_files import remember
from gensdk_runtime.plan.runner import one_call_runner
from gensdk_runtime.programs.proving import one_same
from gensdk_runtime.proof.golden import Golden
from gensdk_runtime.proof.verify import Check, replay_one_call
from gensdk_runtime.spec.fields import BundlePath, Precision
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.signature import GraphSpec

ATOL: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3}
"""Largest scaled difference of whole samples of a diffusion model. Half rounds differently in fused operators."""


@dataclass(frozen=True)
class ProvedOneCall:
    """What the manifest says of a one-call graph, its files by their paths, and rows for the report."""

    spec: OneCallSpec
    files: Mapping[str, bytes]
    rows: tuple[GraphRow, ...]

    def built(self, precision: Precision) -> tuple[GraphSpec, bytes, Precision]:
        """The graph and its file in one precision."""
        return self.spec.graph, self.files[self.spec.files[precision]], precision


def prove_one_call(one_call: OneCall, sets: Mapping[Precision, GraphSet], golden: Golden) -> ProvedOneCall:
    """Builds the graph in the precisions of `sets`, and replays it against the graphs that it was made of.

    Raises :class:`ExportError` where it does not load, or does not make the same samples.
    """
    name = one_call.graph.name
    built = {precision: one_call.build(graphs.files) for precision, graphs in sets.items()}
    load_isolated({f"{name} ({precision})": data for precision, data in built.items()})
    paths: dict[Precision, BundlePath] = {precision: f"graphs/{name}.{precision}.onnx" for precision in built}
    spec = OneCallSpec(graph=one_call.graph, files=paths, settings=one_call.settings)
    rows = []
    for precision, data in built.items():
        check = _replay(one_call, spec, sets[precision], data, precision, golden)
        if check.problem:
            raise ExportError(f"the one-call graph ({precision}): {check.problem}; nothing was written")
        remember(data, "ran")
        rows.append(check_row(check, len(data), judge=check.backend))
    return ProvedOneCall(spec, {paths[precision]: data for precision, data in built.items()}, tuple(rows))


def _replay(  # noqa: PLR0917 - all that one replay is about
    one_call: OneCall, spec: OneCallSpec, graphs: GraphSet, data: bytes, precision: Precision, golden: Golden
) -> Check:
    model, backend = one_call.model, create_backend("onnxruntime")
    atol: float | None = ATOL[precision]
    if one_same(model):
        atol = 0.0 if precision == "fp32" else None  # the same pixels, in half at least in one sample
    with ExitStack() as opened:
        files = {**graphs.files, spec.graph.name: data}

        def session(graph: GraphSpec) -> Session:
            return opened.enter_context(backend.open(graph, MemoryGraph(files[graph.name]), precision=precision))

        generator = Generator.from_sessions(model, {graph.name: session(graph) for graph in model.graphs})
        try:
            return replay_one_call(generator, spec, one_call_runner(model, spec, session), golden, atol)
        except BackendError as failure:
            raise ExportError(f"the one-call graph can't run: {failure}; nothing was written") from failure
