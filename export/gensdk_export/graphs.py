"""All graphs of a plan in one precision: prepared, exported, and replayed in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from gensdk_export.export_report import GraphRow
from gensdk_export.half.islands import Subject
from gensdk_export.half.precision import make_half
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import OnnxFiles
from gensdk_export.proof import GraphSet, multiples
from gensdk_export.rewrites.batch_norm import (
    bake_parametrizations,
    fold_batch_norms,
    plain_copy,
    refuse_batch_statistics,
)
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.drift import sample_drift
from gensdk_runtime.proof.golden import Golden, GoldenBounds
from gensdk_runtime.proof.verify import settings_label
from gensdk_runtime.spec.manifest import Precision16Report
from gensdk_training.plan import ExportPlan
from gensdk_training.running_statistics import wrong_spectral_norms
from gensdk_training.torch_backend import torch_sessions

FOLDING_CALLS = 3


LENGTHS_ALONE = -2.0
"""Unit vectors of another weight are the plan's own doing: both sides of the proof divide by them alike."""


def prepare_modules(plan: ExportPlan) -> dict[str, nn.Module]:
    """Copies of the plan's modules in eval mode, parametrized weights made plain.

    Raises :class:`ExportError` where a weight is NaN or infinite, or a spectral norm's vectors are no unit ones.
    """
    modules = {}
    for graph in plan.model.graphs:
        refuse_batch_statistics(plan.modules[graph.name], f"graph {graph.name!r}")
        module = plain_copy(plan.modules[graph.name]).eval()
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


def export_fp32(
    plan: ExportPlan, modules: Mapping[str, nn.Module], golden: Golden, folder: Path | None = None
) -> GraphSet:
    """The float32 files. Batch norms of `modules` are folded in place first.

    `folder`: for weights that are too many for an ONNX file; it is to stay until the bundle is written. Without it
    they can't be exported.
    """
    files, weights = {}, {}
    for graph in plan.model.graphs:
        calls, module = golden.calls(graph.name), modules[graph.name]
        step = max(1, len(calls) // FOLDING_CALLS)
        feeds = [[torch.from_numpy(call.feeds[spec.name]) for spec in graph.inputs] for call in calls[::step]]
        fold_batch_norms(module, [tuple(arguments) for arguments in feeds])
        place = None if folder is None else folder / f"{graph.name}.fp32.weights"
        files[graph.name] = export_onnx(graph, module, calls[0].feeds, multiples(plan.model), weights=place)
        weights[graph.name] = place
    return GraphSet(files, _written(weights))


def _written(weights: Mapping[str, Path | None]) -> dict[str, Path]:
    """Those that are there."""
    return {name: path for name, path in weights.items() if path is not None and path.exists()}


def export_fp16(
    plan: ExportPlan,
    modules: Mapping[str, nn.Module],
    golden: Golden,
    fp32: GraphSet,
    bounds: GoldenBounds,
    *,
    folder: Path | None = None,
) -> GraphSet:
    """The half-precision files of the (folded) `modules`; a graph without a half part keeps its float32 file.
    `folder` as in :func:`export_fp32`.

    Raises :class:`ExportError` where no set of islands keeps `bounds`.
    """
    files, rows, warnings = dict(fp32.files), [], []
    weights: dict[str, Path | None] = dict(fp32.weights)
    halved, islands, largest = dict(plan.modules), {}, 0.0
    for graph in plan.model.graphs:
        regions = plan.half.get(graph.name, ())
        if not regions:
            continue
        calls = golden.calls(graph.name)
        half = make_half(Subject(plan.model, graph, modules[graph.name], regions, bounds), calls)
        place = None if folder is None else folder / f"{graph.name}.fp16.weights"
        files[graph.name] = export_onnx(graph, half.module, calls[0].feeds, multiples(plan.model), weights=place)
        weights[graph.name] = place
        size = OnnxFiles(files, _written(weights)).size(graph.name)
        allowed = bounds.of(graph.name).graph
        rows.append(GraphRow(graph.name, "fp16", "torch half", size, half.drift, "ok", allowed))
        warnings += [f"graph {graph.name!r}: {half.warning}"] if half.warning else []
        islands[graph.name], halved[graph.name] = half.islands, half.module
        largest = max(largest, half.max_abs_activation)
    rows += _half_samples(replace(plan, modules=halved), golden)
    report = Precision16Report(
        islands={name: found for name, found in islands.items() if found},
        max_abs_activation=largest,
        max_abs_difference={row.what: row.drift.max_abs for row in rows if row.what in files},
    )
    return GraphSet(files, _written(weights), tuple(rows), report, tuple(warnings))


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
