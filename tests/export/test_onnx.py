"""Single graphs as ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gensdk_export.isolated_load import load_isolated
from gensdk_export.onnx_check import check_onnx, resize_axes
from gensdk_export.onnx_export import example_sizes, export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_export.rewrites.batch_norm import bake_parametrizations, fold_batch_norms
from gensdk_runtime.backends import create_backend
from gensdk_runtime.errors import ExportError
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from support.another_os import WINDOWS
from support.plans import linear_plan, module_plan, random_call


def normal_statistics(module: nn.Module) -> nn.Module:
    """Batch norms that are no identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(part.weight, mean=1.0)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module


def test_the_file_equals_pytorch_at_every_batch_size() -> None:
    plan = linear_plan()
    graph = plan.model.graphs[0]
    call = random_call(plan)
    file = export_onnx(graph, plan.modules[graph.name], call.feeds)
    with create_backend("onnxruntime").open(graph, MemoryGraph(file), precision="fp32") as session:
        for batch in (1, 2, 3, 7):
            expected = random_call(plan, batch)
            np.testing.assert_allclose(session.run(expected.feeds)["image"], expected.outputs["image"], atol=1e-6)


def test_equal_weights_give_equal_files() -> None:
    files = []
    for _ in range(2):
        plan = linear_plan()
        files.append(export_onnx(plan.model.graphs[0], plan.modules["generator"], random_call(plan).feeds))
    assert files[0] == files[1]


def test_constants_are_not_inflated() -> None:
    class Wide(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.sum(1)[:, None, None, None] + torch.ones(1, 1, 1, 1).expand(1, 1, 512, 512)[:, :, :8, :8]

    plan = module_plan(Wide())
    assert len(export_onnx(plan.model.graphs[0], plan.modules["generator"], random_call(plan).feeds)) < 10_000


def test_axes_are_resized_by_name() -> None:
    specs = (
        TensorSpec(name="label", dtype="int64", shape=("guidance", "batch"), role="condition"),
        TensorSpec(name="weights", dtype="float32", shape=("guidance",), role="coefficient"),
    )
    graph = GraphSpec(name="g", inputs=specs, outputs=(specs[1].model_copy(update={"name": "out"}),))
    assert len(set(example_sizes(graph).values())) == 2
    assert min(example_sizes(graph).values()) == 2
    feeds = {"label": np.arange(6).reshape(2, 3), "weights": np.ones(2, np.float32)}
    resized = resize_axes(graph, feeds, {"guidance": 1, "batch": 4})
    assert resized["label"].tolist() == [[0, 1, 2, 0]]
    assert resized["weights"].shape == (1,)


@pytest.mark.parametrize("layer", ["convolution", "transposed", "linear", "spectral"])
def test_batch_norm_is_folded(layer: str) -> None:
    layers = {
        "convolution": lambda: nn.Conv2d(3, 5, 3, bias=False),
        "transposed": lambda: nn.ConvTranspose2d(3, 5, 4, 2, 1),
        "spectral": lambda: spectral_norm(nn.Conv2d(3, 5, 3)),
        "linear": lambda: nn.Linear(3, 5),
    }
    norm = nn.BatchNorm1d(5) if layer == "linear" else nn.BatchNorm2d(5)
    module = normal_statistics(nn.Sequential(layers[layer](), norm, nn.ReLU())).eval()
    example = torch.randn(4, 3) if layer == "linear" else torch.randn(4, 3, 6, 6)
    expected = module(example)
    bake_parametrizations(module)
    assert fold_batch_norms(module, [(example,)]) == ("1",)
    torch.testing.assert_close(module(example), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in module.modules())
    assert not any("parametrizations" in name for name, _ in module.named_parameters())


def test_a_layer_that_others_read_keeps_its_batch_norm() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.layer(x)
            return self.norm(hidden) + hidden

    module = normal_statistics(Skip()).eval()
    example = torch.randn(2, 1, 4, 4)
    expected = module(example)
    assert fold_batch_norms(module, [(example,)]) == ()
    torch.testing.assert_close(module(example), expected)


def test_a_wrong_signature_is_refused() -> None:
    plan = linear_plan()
    graph, call = plan.model.graphs[0], random_call(plan)
    model = onnx.load_from_string(export_onnx(graph, plan.modules[graph.name], call.feeds))
    output = graph.outputs[0]
    for change, message in (
        ({"dtype": "float16"}, "should be float16"),
        ({"shape": ("batch", 1, 8, 9)}, "should have shape"),
        ({"name": "picture"}, "expected outputs"),
    ):
        other = graph.model_copy(update={"outputs": (output.model_copy(update=change),)})
        with pytest.raises(ExportError, match=message):
            check_onnx(model, other)


CRASHING = """
import os, signal
class SessionOptions: pass
class InferenceSession:
    def __init__(self, path, *_, **__):
        if path.endswith("1.onnx"):
            os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.skipif(WINDOWS, reason="signals")
def test_a_crash_of_the_runtime_is_an_error_that_names_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExportError, match=r"'second': it crashed \(SIGSEGV\)"):
        load_isolated({"first": b"", "second": b"", "third": b""})


def test_files_load_in_a_process_of_their_own() -> None:
    plan = linear_plan()
    good = export_onnx(plan.model.graphs[0], plan.modules["generator"], random_call(plan).feeds)
    load_isolated({"good": good})
    with pytest.raises(ExportError, match="'noise'"):
        load_isolated({"good": good, "noise": b"\x00" * 64})
