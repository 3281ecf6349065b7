"""All graphs of a plan in one precision: prepared, exported, and replayed in ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import nn

from gensdk_export.batch_norm import bake_parametrizations, fold_batch_norms
from gensdk_export.first_load import first_load
from gensdk_export.islands import Subject
from gensdk_export.onnx import export_onnx, resize_axes
from gensdk_export.precision import make_half
from gensdk_export.report import GraphRow, rows_of
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.drift import measure_drift, sample_drift
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.golden import Call, Golden, GoldenBounds
from gensdk_runtime.manifest import ModelSpec, Precision16Report
from gensdk_runtime.signature import HEIGHT, WIDTH, GraphSpec, Precision
from gensdk_runtime.verify import VerifyReport, replay, settings_label
from gensdk_training.plan import ExportPlan
from gensdk_training.running_statistics import wrong_spectral_norms
from gensdk_training.torch_backend import TorchSession, torch_sessions

PROVED_SIZES = {"batch": (1, 2, 3), "guidance": (1, 2)}
"""Sizes of named axes that every exported graph must get right; other axes: those of the golden calls."""
FOLDING_CALLS = 3


@dataclass(frozen=True)
class GraphSet:
    """The ONNX files of all graphs in one precision, by name; of fp16 also what was measured on the way."""

    files: Mapping[str, bytes]
    rows: tuple[GraphRow, ...] = ()
    fp16: Precision16Report | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemoryGraph:
    """An ONNX file in memory, as the source that a backend loads it from."""

    data: bytes

    @property
    def path(self) -> Path | None:
        """There is no file."""
        return None

    def read(self) -> bytes:
        """The file's bytes."""
        return self.data


LENGTHS_ALONE = -2.0
"""Unit vectors of another weight are the plan's own doing: both sides of the proof divide by them alike."""


def prepare_modules(plan: ExportPlan) -> dict[str, nn.Module]:
    """Copies of the plan's modules in eval mode, parametrized weights made plain.

    Raises :class:`ExportError` where a weight is NaN or infinite, or a spectral norm's vectors are no unit ones.
    """
    modules = {}
    for graph in plan.model.graphs:
        module = copy.deepcopy(plan.modules[graph.name]).eval()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ExportError(
                    f"graph {graph.name!r}: weight {name!r} is NaN or infinite; train the model again"
                )
        if wrong := wrong_spectral_norms(module, near=LENGTHS_ALONE):
            raise ExportError(
                f"graph {graph.name!r}: spectral norm's vectors are no unit vectors ({wrong[0]}); open "
                "the run with load_run(), or call mend_spectral_norms() of gensdk_training.running_statistics"
            )
        bake_parametrizations(module)
        modules[graph.name] = module
    return modules


def export_fp32(plan: ExportPlan, modules: Mapping[str, nn.Module], golden: Golden) -> GraphSet:
    """The float32 files. Batch norms of `modules` are folded in place first."""
    files = {}
    for graph in plan.model.graphs:
        calls, module = golden.calls(graph.name), modules[graph.name]
        step = max(1, len(calls) // FOLDING_CALLS)
        feeds = [[torch.from_numpy(call.feeds[spec.name]) for spec in graph.inputs] for call in calls[::step]]
        fold_batch_norms(module, [tuple(arguments) for arguments in feeds])
        files[graph.name] = export_onnx(graph, module, calls[0].feeds, multiples(plan.model))
    return GraphSet(files)


def export_fp16(
    plan: ExportPlan, modules: Mapping[str, nn.Module], golden: Golden, fp32: GraphSet, bounds: GoldenBounds
) -> GraphSet:
    """The half-precision files of the (folded) `modules`; a graph without a half part keeps its float32 file.

    Raises :class:`ExportError` where no set of islands keeps `bounds`.
    """
    files, rows, warnings = dict(fp32.files), [], []
    halved, islands, largest = dict(plan.modules), {}, 0.0
    for graph in plan.model.graphs:
        regions = plan.half.get(graph.name, ())
        if not regions:
            continue
        calls = golden.calls(graph.name)
        half = make_half(Subject(plan.model, graph, modules[graph.name], regions, bounds), calls)
        files[graph.name] = export_onnx(graph, half.module, calls[0].feeds, multiples(plan.model))
        rows.append(GraphRow(graph.name, "fp16", "torch half", len(files[graph.name]), half.drift, "ok"))
        warnings += [f"graph {graph.name!r}: {half.warning}"] if half.warning else []
        islands[graph.name], halved[graph.name] = half.islands, half.module
        largest = max(largest, half.max_abs_activation)
    rows += _half_samples(replace(plan, modules=halved), golden)
    report = Precision16Report(
        islands={name: found for name, found in islands.items() if found},
        max_abs_activation=largest,
        max_abs_difference={row.what: row.drift.max_abs for row in rows if row.what in files},
    )
    return GraphSet(files, tuple(rows), report, tuple(warnings))


def _half_samples(halved: ExportPlan, golden: Golden) -> list[GraphRow]:
    """Whole samples of the halved modules against float32: reported, not judged, since errors add up."""
    generator = Generator.from_sessions(halved.model, torch_sessions(halved))
    rows = []
    for run in golden.trajectories:
        try:
            samples = generator.sample(**run.sample_arguments(), progress=False)
        except BackendError as failure:
            raise ExportError(f"sampling in half fails: {failure}; export without fp16") from failure
        drift = sample_drift(halved.model, run.samples, samples.array)
        rows.append(GraphRow(f"samples{settings_label(run)}", "fp16", "torch half", None, drift, "reported"))
    return rows


def multiples(model: ModelSpec) -> dict[str, int]:
    """What the sizes of named axes are multiples of, where not any size will do."""
    return {} if model.source is None else dict.fromkeys((HEIGHT, WIDTH), model.source.multiple)


def _proved_sizes(model: ModelSpec, graph: GraphSpec) -> Iterator[dict[str, int]]:
    """All sizes of :data:`PROVED_SIZES`; and images that are larger or smaller than the model's own."""
    axes = {axis for spec in graph.inputs for axis in spec.shape}
    named = [name for name in PROVED_SIZES if name in axes]
    for chosen in product(*(PROVED_SIZES[name] for name in named)):
        sizes = dict(zip(named, chosen, strict=True))
        if sizes.get("batch", 1) <= model.max_batch:
            yield sizes
    source = model.source
    if source is not None and axes >= {HEIGHT, WIDTH}:
        step = source.multiple
        for height, width in ((1, 0), (0, 2), (-1, 1), (2, -1)):
            yield {
                "batch": 1,
                HEIGHT: source.padded(source.height + height * step),
                WIDTH: source.padded(source.width + width * step),
            }


def prove(
    plan: ExportPlan,
    golden: Golden,
    graphs: GraphSet,
    precision: Precision,
    originals: Mapping[str, Session] | None = None,
) -> list[GraphRow]:
    """Loads the exported files in ONNX Runtime, replays `golden`, tries several batch sizes; rows for the report.

    `originals`: what takes the place of the plan's modules, of a model that was never in PyTorch. Raises
    :class:`ExportError` where a file does not load, or with the first bound that does not hold.
    """
    first_load({f"{name} ({precision})": data for name, data in graphs.files.items()})
    try:
        report = _replay(plan, golden, graphs, precision, originals)
    except BackendError as failure:
        raise ExportError(f"the export can't run in ONNX Runtime: {failure}; nothing was written") from failure
    return list(rows_of(report, {name: len(data) for name, data in graphs.files.items()}))


def _replay(
    plan: ExportPlan,
    golden: Golden,
    graphs: GraphSet,
    precision: Precision,
    originals: Mapping[str, Session] | None,
) -> VerifyReport:
    bounds, backend = golden.bounds[precision], create_backend("onnxruntime")
    whom = "the original" if originals else "PyTorch"
    with ExitStack() as opened:
        sessions: dict[str, Session] = {}
        for graph in plan.model.graphs:
            session = backend.open(graph, MemoryGraph(graphs.files[graph.name]), precision=precision)
            sessions[graph.name] = opened.enter_context(session)
        report = replay(plan.model, golden, sessions, bounds)
        if not report.ok:
            raise ExportError(f"the export does not equal {whom}: {report.problems[0]}; nothing was written")
        for graph in plan.model.graphs:
            original = originals[graph.name] if originals else TorchSession(graph, plan.modules[graph.name])
            _prove_sizes(plan, golden, sessions[graph.name], original, bounds)
    return report


def _prove_sizes(
    plan: ExportPlan, golden: Golden, session: Session, original: Session, bounds: GoldenBounds
) -> None:
    """Runs the last golden call at other sizes of its named axes, in the original and in ONNX Runtime."""
    graph = session.graph
    feeds = golden.calls(graph.name)[-1].feeds
    for sizes in _proved_sizes(plan.model, graph):
        resized = resize_axes(graph, feeds, sizes)
        call = Call(graph.name, 0, resized, original.run(resized))
        problem = measure_drift(plan.model, [(call, session.run(resized))]).problem(bounds.of(graph.name))
        if problem:
            raise ExportError(
                f"graph {graph.name!r} at {sizes} differs from {original.backend}: {problem}; nothing was written"
            )
