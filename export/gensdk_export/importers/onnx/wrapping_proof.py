"""Proves a wrapped graph equal to the file it was made of, and says what its bundle may differ by elsewhere.

The reference is the file as it came, in its own operator set, every operator by itself (
:class:`gensdk_export.importers.onnx.original.OriginalFile`). What a bundle runs is judged against it with ONNX
Runtime's optimizer on, as users run it. Where float32 keeps `atol`, that is the bound. Else the drift has a reason
and a ceiling, or there is no bundle:

- The optimizer may add up in another order: :data:`FLOAT_CEILING`, one step of 8 bits.
- Files in half precision round after each operator, and the order of operators differs: :data:`HALF_CEILING`.
- Quantized operators are computed in integers or in float32, as the optimizer happens to fuse them: a value at the
  edge of two steps falls to either side, and all that follows differs. Single pixels may differ much; so the PSNR
  of the whole is bounded (:data:`QUANTIZED_PSNR`).

`gensdk verify` holds the same bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gensdk_export.export_report import GraphRow, rows_of
from gensdk_export.golden_record import record_golden
from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.original import OriginalFile, OriginalSession, PlainSession
from gensdk_export.proof import FLIPPED_FP32, OTHER_MACHINES, GraphSet, prove
from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.drift import measure_drift, sample_drift
from gensdk_runtime.proof.golden import Golden, GoldenBounds, Trajectory
from gensdk_runtime.proof.verify import replay
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.plan import ExportPlan

SAMPLES = 2
FLOAT_CEILING = 2 / 255
"""Scaled difference of a float32 graph: one step of 8 bits, where the range is [-1, 1]."""
HALF_CEILING = 0.02
"""Of a graph with float16 in it, on this machine; others may take :data:`OTHER_MACHINES` times as much."""
QUANTIZED = frozenset(("QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"))
QUANTIZED_ATOL = 1.0
"""What a single value of a quantized model may differ by: one such network differed from itself by 0.43."""
QUANTIZED_PSNR = 25.0
"""dB, the least of a quantized model: that network had 33 dB against itself, and 31 dB in OpenVINO."""


@dataclass(frozen=True)
class Proof:
    """`runs`: golden trajectories of the original; `bounds`: for this and other machines; `rows`: measurements."""

    runs: tuple[Trajectory, ...]
    bounds: GoldenBounds
    rows: tuple[GraphRow, ...]
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class Moved:
    """How far ONNX Runtime takes the wrapped graph from the original: the largest scaled difference, and dB."""

    scaled: float
    psnr: float


def prove_wrapped(model: ModelSpec, original: OriginalFile, data: bytes, *, atol: float) -> Proof:
    """Compares the ONNX file `data`, whose signature is the one graph of `model`, with `original`.

    `atol`: the largest scaled difference. Raises :class:`ExportError` where neither it nor the ceiling of what the
    file holds is kept.
    """
    graph = model.graphs[0]
    plan = ExportPlan(model, modules={})
    originals = {graph.name: OriginalSession(graph, original)}
    runs = record_golden(plan, samples=SAMPLES, steps=None, originals=originals)
    moved = _moved(model, runs, PlainSession(graph, data, optimized=True))
    quantized = any(node.op_type in QUANTIZED for node in original.file.model.graph.node)
    rows = list[GraphRow]()
    if quantized or moved.scaled > atol:
        rows += _prove_operators(model, runs, data, HALF_CEILING if original.file.half else atol)
    bounds, guesses = _bounds(original, moved, atol, quantized=quantized)
    here = bounds if quantized else bounds.model_copy(update=_here(original, bounds, atol))
    rows += prove(plan, Golden(runs, {"fp32": here}), GraphSet({graph.name: data}), "fp32", originals)
    return Proof(runs, bounds, tuple(rows), guesses)


def _bounds(
    original: OriginalFile, moved: Moved, atol: float, *, quantized: bool
) -> tuple[GoldenBounds, tuple[Guess, ...]]:
    """What a bundle may differ by, and the row that says so; :class:`ExportError` beyond the ceiling."""
    half, path = original.file.half, original.file.path
    if quantized:
        if moved.psnr < QUANTIZED_PSNR:
            raise ExportError(
                f"{path}: ONNX Runtime's optimizer changes what this quantized model gives to a PSNR of "
                f"{moved.psnr:.1f} dB, expected at least {QUANTIZED_PSNR:g}; import the model in float32"
            )
        value = f"a PSNR of at least {QUANTIZED_PSNR:g} dB"
        reason = f"8 bits round as operators are fused; here {moved.psnr:.1f} dB"
        bounds = GoldenBounds(
            graph=QUANTIZED_ATOL, flipped=FLIPPED_FP32, samples=QUANTIZED_ATOL, psnr=QUANTIZED_PSNR
        )
        return bounds, (Guess("allowed drift", value, reason),)
    if moved.scaled <= atol and not half:
        return GoldenBounds(graph=atol, flipped=FLIPPED_FP32, samples=atol), ()
    ceiling = HALF_CEILING if half else FLOAT_CEILING
    if moved.scaled > ceiling:
        raise ExportError(
            f"{path}: ONNX Runtime's optimizer changes what the model gives by {moved.scaled:.2e} (PSNR "
            f"{moved.psnr:.1f} dB), allowed at most {ceiling:.2g} of images in [-1, 1]; export it in another "
            "operator set, or in float32"
        )
    allowed = max(atol, OTHER_MACHINES * HALF_CEILING if half else min(OTHER_MACHINES * moved.scaled, ceiling))
    what = "it holds float16, which rounds" if half else "ONNX Runtime's optimizer adds up in another order"
    guess = Guess("allowed drift", f"{allowed:.2g}", f"{what}; here {moved.scaled:.2g} of images in [-1, 1]")
    return GoldenBounds(graph=allowed, flipped=FLIPPED_FP32, samples=allowed), (guess,)


def _here(original: OriginalFile, bounds: GoldenBounds, atol: float) -> dict[str, float]:
    """The bounds of this machine, which half precision is held to."""
    held = max(atol, HALF_CEILING) if original.file.half else bounds.graph
    return {"graph": held, "samples": held}


def _prove_operators(
    model: ModelSpec, runs: tuple[Trajectory, ...], data: bytes, atol: float
) -> tuple[GraphRow, ...]:
    """The wrapped graph without the optimizer keeps `atol`: what is left of the drift is the optimizer's."""
    graph = model.graphs[0]
    sessions: dict[str, Session] = {graph.name: PlainSession(graph, data)}
    report = replay(model, Golden(runs), sessions, GoldenBounds(graph=atol, flipped=FLIPPED_FP32, samples=atol))
    if not report.ok:
        raise ExportError(f"the import does not equal the original: {report.problems[0]}; nothing was written")
    return tuple(rows_of(report, {graph.name: len(data)}))


def _moved(model: ModelSpec, runs: tuple[Trajectory, ...], session: Session) -> Moved:
    sessions: Mapping[str, Session] = {session.graph.name: session}
    generator = Generator.from_sessions(model, sessions)
    drifts = []
    for run in runs:
        drifts.append(measure_drift(model, ((call, session.run(call.feeds)) for call in run.calls)))
        samples = generator.sample(**run.sample_arguments(), progress=False)
        drifts.append(sample_drift(model, run.samples, samples.array))
    return Moved(max(drift.scaled for drift in drifts), min(drift.psnr for drift in drifts))
