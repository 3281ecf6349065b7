"""Proves exported files: loaded in ONNX Runtime, replayed call by call, and run at other sizes of their axes.

Nothing here needs PyTorch but the comparison with its modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from gensdk_export.export_report import GraphRow, rows_of
from gensdk_export.isolated_load import load_isolated
from gensdk_export.onnx_check import resize_axes
from gensdk_export.onnx_weights import OnnxFiles
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.proof.drift import measure_drift
from gensdk_runtime.proof.golden import Call, Golden, GoldenBounds
from gensdk_runtime.proof.verify import VerifyReport, replay
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import Precision16Report
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import HEIGHT, ROWS, WIDTH, GraphSpec

if TYPE_CHECKING:
    from gensdk_training.plan import ExportPlan

PROVED_SIZES = {"batch": (1, 2, 3), "guidance": (1, 2), ROWS: (1, 2, 3)}
"""Sizes of named axes that every exported graph must get right; other axes: those of the golden calls."""
FLIPPED_FP32 = 1e-3
"""Share of discrete pixels that may flip against the original in float32, each fed with the true past."""
OTHER_MACHINES = 2.0
"""Kernels round differently elsewhere; a bundle allows other machines so many times what this one was held to."""


@dataclass(frozen=True)
class GraphSet(OnnxFiles):
    """The ONNX files of all graphs in one precision, by name; of fp16 also what was measured on the way."""

    rows: tuple[GraphRow, ...] = ()
    fp16: Precision16Report | None = None
    warnings: tuple[str, ...] = ()


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
    load_isolated(
        {f"{name} ({precision})": graphs.source(name).path or graphs.files[name] for name in graphs.files}
    )
    try:
        report = _replay(plan, golden, graphs, precision, originals)
    except BackendError as failure:
        raise ExportError(f"the export can't run in ONNX Runtime: {failure}; nothing was written") from failure
    return list(rows_of(report, {name: graphs.size(name) for name in graphs.files}))


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
            session = backend.open(graph, graphs.source(graph.name), precision=precision)
            sessions[graph.name] = opened.enter_context(session)
        report = replay(plan.model, golden, sessions, bounds)
        if not report.ok:
            raise ExportError(f"the export does not equal {whom}: {report.problems[0]}; nothing was written")
        for graph in plan.model.graphs:
            original = originals[graph.name] if originals else _live(plan, graph)
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


def _live(plan: ExportPlan, graph: GraphSpec) -> Session:
    from gensdk_training.torch_backend import TorchSession

    return TorchSession(graph, plan.modules[graph.name])
