"""Packs what was exported and proved into one bundle."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gensdk_export.card import CardNotes, model_card
from gensdk_export.engines import Engine
from gensdk_export.export_report import ExportReport, GraphRow
from gensdk_export.proof import GraphSet
from gensdk_export.receptive_proof import with_proved_field
from gensdk_runtime.bundles.model_files import HeldFiles
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.conditions.base import conditions_of
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.proof.golden import Golden
from gensdk_runtime.spec.fields import BundlePath, Precision
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.version import __version__

if TYPE_CHECKING:
    from gensdk_export.one_call.one_call_proof import ProvedOneCall

GOLDEN_FILE = "golden/golden.npz"
CARD_FILE = "README.md"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")
"""Those that shape graphs."""


def write_proved(
    model: ModelSpec,
    provenance: Provenance,
    out: Path,
    *,
    golden: Golden,
    sets: Mapping[Precision, GraphSet],
    rows: tuple[GraphRow, ...],
    engines: Sequence[Engine] = (),
    one_call: ProvedOneCall | None = None,
    files: Mapping[str, bytes] | None = None,
    warnings: tuple[str, ...] = (),
    as_zip: bool,
    started: float,
    told: CardNotes | None = None,
) -> ExportReport:
    """Packs what was exported and proved into one bundle, written at once; `started` as `time.monotonic` has it.

    `files`: those that the output and the conditions need beside graphs; `told`: what else the card says. Raises
    :class:`BundleError` where `out` can't be written; then what stood there stays.
    """
    held = HeldFiles(files or {}, "the export plan")
    output_of(model.output).with_files(held)
    conditions = conditions_of(model, held)
    model = with_proved_field(model, sets["fp32"].files)
    packed: dict[str, bytes | Path] = {**(files or {}), GOLDEN_FILE: golden.to_bytes()}
    graph_files: dict[str, dict[Precision, BundlePath]] = {graph.name: {} for graph in model.graphs}
    for precision, graphs in sets.items():
        for name, data in graphs.files.items():
            full = graph_files[name].get("fp32", "")
            path = full if packed.get(full) == data else f"graphs/{name}.{precision}.onnx"
            packed[path], graph_files[name][precision] = data, path
            if name in graphs.weights:  # which the graph calls by their name, beside it
                weights = graphs.weights[name]
                packed[f"graphs/{weights.name}"] = weights
    packed.update({engine.spec.file: engine.data for engine in engines})
    packed.update({} if one_call is None else one_call.files)
    half = sets.get("fp16")
    fp16 = half.fp16 if half else None
    built = tuple((engine.spec, len(engine.data)) for engine in engines)
    card = model_card(model, provenance, conditions, rows=rows, engines=built, fp16=fp16, name=out.name, told=told)
    packed[CARD_FILE] = card.encode()
    draft = Manifest(
        gensdk_version=__version__,
        model=model,
        graph_files=graph_files,
        one_call=None if one_call is None else one_call.spec,
        golden=GOLDEN_FILE,
        engines=tuple(engine.spec for engine in engines),
        fp16=fp16,
        provenance=provenance.model_copy(update={"versions": {**provenance.versions, **_versions()}}),
    )
    with write_bundle(out, draft, packed, as_zip=as_zip) as bundle:
        size = sum(entry.size for entry in bundle.manifest.files.values())
    warnings = (*warnings, *(half.warnings if half else ()))
    return ExportReport(out, model.name, rows, built, fp16, warnings, size, time.monotonic() - started)


def _versions() -> dict[str, str]:
    """The packages that shaped the graphs, as far as they are installed: a plain ONNX file needs no PyTorch."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
