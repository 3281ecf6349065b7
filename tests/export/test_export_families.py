"""What every family's export must be, whatever the family."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from gensdk_export.onnx_check import MAX_IR_VERSION
from gensdk_export.onnx_export import OPSET
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from gensdk_runtime.spec.model import AutoregressiveSpec, DiffusionSpec
from gensdk_training.registry import get_family
from gensdk_training.torch_backend import torch_sessions
from support.tiny import FAMILIES, POINT_FAMILIES, given

# Points: one family with labels and one without. What is exported is the same layer for all of them.
POINTS = {get_family(name).needs_labels: f"{name}:points" for name in POINT_FAMILIES}
CASES = (*FAMILIES, *POINTS.values())

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("family", CASES)]

Export = Callable[[str], object]


def test_the_bundle_verifies_in_both_precisions(family: str, exported: Export) -> None:
    report = verify_bundle(exported(family).bundle)
    assert report.ok, report.problems
    assert {check.precision for check in report.checks} == {"fp32", "fp16"}
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_bundle_samples_what_pytorch_samples(family: str, exported: Export) -> None:
    """With guidance and without, where there is any."""
    found = exported(family)
    diffusion = isinstance(found.plan.model.program, DiffusionSpec)
    guided = [{"num_inference_steps": 6, "guidance_scale": scale} for scale in (1.0, 3.0)]
    live = Generator.from_sessions(found.plan.model, torch_sessions(found.plan))
    with Generator.load(found.bundle) as generator:
        for settings in guided if diffusion else [{}]:
            arguments = {**given(found.plan.model, 5), **settings}
            expected = live.sample(5, seed=3, **arguments).array
            samples = generator.sample(5, seed=3, batch_size=3, **arguments).array
            np.testing.assert_allclose(samples, expected, atol=1e-3)


def test_the_files_are_clean_onnx(family: str, exported: Export) -> None:
    with Bundle.open(exported(family).bundle) as bundle:
        of_graphs = bundle.manifest.graph_files
        assert set(of_graphs) == {graph.name for graph in bundle.manifest.model.graphs}
        for file in (file for files in of_graphs.values() for file in files.values()):
            model = onnx.load_from_string(bundle.read(file))
            onnx.checker.check_model(model, full_check=True)
            assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
            assert model.ir_version <= MAX_IR_VERSION
            assert not model.functions
            assert not model.metadata_props
            assert not model.graph.value_info
            nodes = model.graph.node
            assert not any(node.doc_string or node.metadata_props for node in nodes)
            assert not any(node.op_type == "BatchNormalization" for node in nodes)


def test_half_files_are_half_as_large(family: str, exported: Export) -> None:
    sizes = {(row.what, row.precision): row.size for row in exported(family).report.rows if row.size}
    halved = exported(family).plan.half
    large = [name for name in halved if sizes[name, "fp32"] > 100_000]
    assert bool(large) == bool(halved)
    whole = [graph.name for graph in exported(family).plan.model.graphs if graph.name not in halved]
    assert all(sizes[name, "fp16"] == sizes[name, "fp32"] for name in whole)
    for name in large:
        assert sizes[name, "fp16"] <= 0.55 * sizes[name, "fp32"]


def test_every_graph_has_an_engine_in_both_precisions(family: str, exported: Export) -> None:
    with Bundle.open(exported(family).bundle) as bundle:
        engines = bundle.manifest.engines
        graphs = {graph.name for graph in bundle.manifest.model.graphs}
        assert {(engine.graph, engine.precision) for engine in engines} == {
            (graph, precision) for graph in graphs for precision in ("fp32", "fp16")
        }
        assert all(len(bundle.read(engine.file)) > 10_000 and engine.version for engine in engines)
        largest = bundle.manifest.model.max_batch
        assert {(engine.min_batch, engine.max_batch) for engine in engines} == {(1, largest)}


def test_the_golden_file_covers_every_graph(family: str, exported: Export) -> None:
    with Bundle.open(exported(family).bundle) as bundle:
        golden = load_golden(bundle)
        assert all(golden.calls(graph.name) for graph in bundle.manifest.model.graphs)
        assert len(bundle.read(bundle.manifest.golden)) < 300_000
        program = bundle.manifest.model.program
        if isinstance(program, DiffusionSpec):
            solvers = {program.defaults.solver, *make_schedule(program.schedule).proving}
            assert {run.settings.solver for run in golden.trajectories} == solvers
            passes = {len(call.feeds["guidance_weights"]) for call in golden.calls(program.graph)}
            assert passes == {1, 2}
        if isinstance(program, AutoregressiveSpec):
            assert golden.calls(program.likelihood_graph)


def test_the_report_and_the_card_tell_what_was_measured(family: str, exported: Export) -> None:
    found = exported(family)
    report = found.report
    graphs = {graph.name for graph in found.plan.model.graphs}
    judged = {(row.what, row.precision, row.judge) for row in report.rows if row.size}
    halved = {(graph, "fp16", "torch half") for graph in found.plan.half}
    assert judged == halved | {
        (graph, precision, "onnxruntime") for graph in graphs for precision in ("fp32", "fp16")
    }
    assert all(row.verdict in ("ok", "reported") for row in report.rows)
    assert report.fp16 is not None
    assert report.fp16.max_abs_activation < 65504
    assert bool(report.fp16.max_abs_activation) == bool(halved)
    json.dumps(report.to_dict(), allow_nan=False)
    with Bundle.open(found.bundle) as bundle:
        card = bundle.read("README.md").decode()
    for row in report.table():
        assert row[0] in card
    assert "What it does not do" in card
    assert f'Generator.load("{found.bundle.name}")' in card
