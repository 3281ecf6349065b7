"""Weights that are too many for one ONNX file lie beside it, in a bundle too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gensdk_export import onnx_weights
from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import OnnxFiles
from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from support import captioned
from support.plans import linear_plan


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kilobyte is much, here and when a bundle is loaded."""
    monkeypatch.setattr(onnx_weights, "SEPARATE_BYTES", 1024)
    monkeypatch.setattr("gensdk_runtime.bundles.bundle.LARGEST_INLINED", 1024)


def test_tensors_go_to_a_file_beside_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    x = TensorSpec(name="x", dtype="float32", shape=("batch", 32), role="state")
    graph = GraphSpec(name="g", inputs=(x,), outputs=(x.model_copy(update={"name": "y", "shape": ("batch", 4)}),))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)}
    place = tmp_path / "g.fp32.weights"
    files = OnnxFiles({"g": export_onnx(graph, module, feeds, weights=place)}, {"g": place})
    model = onnx.load(tmp_path / "g.fp32.onnx", load_external_data=False)
    outside = {each.name: {e.key: e.value for e in each.external_data} for each in model.graph.initializer}
    assert {said["location"] for said in outside.values() if said} == {"g.fp32.weights"}
    assert files.size("g") > 32 * 32 * 4 > len(files.files["g"])
    with create_backend("onnxruntime").open(graph, files.source("g"), precision="fp32") as session:
        found = session.run(feeds)["y"]
    torch.testing.assert_close(torch.from_numpy(found), module(torch.from_numpy(feeds["x"])), atol=1e-5, rtol=1e-5)


def test_few_weights_stay_in_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_weights, "SEPARATE_BYTES", 10**9)
    plan = linear_plan(1)
    export_plan(plan, Provenance(), tmp_path / "x.gsdk")
    assert not list((tmp_path / "x.gsdk/graphs").glob("*.weights"))


def test_a_bundle_of_such_graphs_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "x.gsdk"
    few = ExportOptions(golden_samples=1, golden_steps=2, as_zip=True)
    report = export_plan(captioned.plan(), Provenance(), out, few)
    with Bundle.open(out) as bundle:
        assert "graphs/step.fp32.weights" in bundle.manifest.files
        sizes = sum(bundle.manifest.files[f"graphs/step.fp32.{end}"].size for end in ("onnx", "weights"))
        assert {row.size for row in report.rows if row.what == "step"} == {sizes}
        assert verify_bundle(bundle).ok
    with Generator.load(out) as model:
        assert model.sample(1, seed=0, prompt="red dragon", num_inference_steps=2).images.any()


def test_what_takes_whole_graphs_says_so_where_they_are_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_weights, "MOST_INSIDE", 2048)
    few = ExportOptions(golden_samples=1, golden_steps=2, half_weights=True)
    with pytest.raises(ExportError, match=r"graph 'step' has \d+ bytes of weights.*leave these out") as failure:
        export_plan(captioned.plan(), Provenance(), tmp_path / "x.gsdk", few)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "x.gsdk").exists()
