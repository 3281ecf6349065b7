"""Proves a wrapped graph equal to the file it was made of; quantized ones with every operator as it stands.

ONNX Runtime computes quantized operators in integers or in float32, as its optimizer happens to fuse them: then a
value at the edge of two steps falls to either side, and all that follows differs. So the same graph in other
surroundings gives other images, and such a file is compared without the optimizer, where both are equal to the
last bit; what the optimizer makes of it is measured, and allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gensdk_export.export import FLIPPED_FP32
from gensdk_export.golden_record import record_golden
from gensdk_export.graphs import GraphSet, prove
from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx_original import OriginalFile, OriginalSession, PlainSession
from gensdk_export.report import GraphRow, rows_of
from gensdk_runtime.backends.base import Session
from gensdk_runtime.drift import sample_drift
from gensdk_runtime.errors import ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.golden import Golden, GoldenBounds, Trajectory
from gensdk_runtime.manifest import ModelSpec
from gensdk_runtime.verify import replay
from gensdk_training.plan import ExportPlan

SAMPLES = 2
OTHER_MACHINES = 2.0
"""How many times what the optimizer changes here it may change elsewhere."""
QUANTIZED = frozenset(("QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"))
QUANTIZED_ATOL = 1.0
"""What quantized models may differ by elsewhere at least: it may happen that the optimizer changes nothing here.
One such network differed from itself by 0.43 at a PSNR of 33 dB, and in OpenVINO by 0.51 at 31 dB."""


@dataclass(frozen=True)
class Proof:
    """`runs`: golden trajectories of the original; `bounds`: for this and other machines; `rows`: measurements."""

    runs: tuple[Trajectory, ...]
    bounds: GoldenBounds
    rows: tuple[GraphRow, ...]
    guesses: tuple[Guess, ...]


def prove_wrapped(model: ModelSpec, original: OriginalFile, data: bytes, *, atol: float) -> Proof:
    """Compares the ONNX file `data`, whose signature is the one graph of `model`, with `original`.

    `atol`: the largest scaled difference. Raises :class:`ExportError` where it does not hold.
    """
    graph = model.graphs[0]
    plan = ExportPlan(model, modules={})
    originals = {graph.name: OriginalSession(graph, original)}
    runs = record_golden(plan, samples=SAMPLES, steps=None, originals=originals)
    plain = {graph.name: OriginalSession(graph, OriginalFile(original.file, original.meaning, optimized=False))}
    plain_runs = record_golden(plan, samples=SAMPLES, steps=None, originals=plain)
    bounds = GoldenBounds(graph=atol, flipped=FLIPPED_FP32, samples=atol)
    spread = max(_spread(model, runs, plain_runs), _changed(model, runs, data))
    files, rows, guesses = GraphSet({graph.name: data}), list[GraphRow](), list[Guess]()
    quantized = any(node.op_type in QUANTIZED for node in original.file.model.graph.node)
    if spread > atol or quantized:
        sessions: dict[str, Session] = {graph.name: PlainSession(graph, data)}
        report = replay(model, Golden(plain_runs), sessions, bounds)
        rows += rows_of(report, {graph.name: len(data)})
        if not report.ok:
            raise ExportError(f"the import does not equal the original: {report.problems[0]}; nothing was written")
        spread = max(OTHER_MACHINES * spread, QUANTIZED_ATOL if quantized else atol)
        bounds = GoldenBounds(graph=spread, flipped=FLIPPED_FP32, samples=spread)
        reason = "what ONNX Runtime's optimizer may change; without it both are equal"
        guesses.append(Guess("allowed drift", f"{spread:.2g}", reason))
    rows += prove(plan, Golden(runs, {"fp32": bounds}), files, "fp32", originals)
    return Proof(runs, bounds, tuple(rows), tuple(guesses))


def _changed(model: ModelSpec, runs: tuple[Trajectory, ...], data: bytes) -> float:
    """How far the optimizer takes the wrapped graph from the optimized original."""
    session = PlainSession(model.graphs[0], data, optimized=True)
    return max(_drift(model, run, {session.graph.name: session}) for run in runs)


def _drift(model: ModelSpec, run: Trajectory, sessions: Mapping[str, Session]) -> float:
    samples = Generator.from_sessions(model, sessions).sample(**run.sample_arguments(), progress=False)
    return sample_drift(model, run.samples, samples.array).scaled


def _spread(model: ModelSpec, runs: tuple[Trajectory, ...], others: tuple[Trajectory, ...]) -> float:
    pairs = zip(runs, others, strict=True)
    return max(sample_drift(model, run.samples, other.samples).scaled for run, other in pairs)
