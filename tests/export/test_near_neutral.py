"""Numbers that are nearly 0 or 1 stay in exported graphs."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

SHAPE = ("batch", 3)


class Quotient(nn.Module):
    """Each number is near one that would change nothing, and the last two are exactly that."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        made: Tensor = (x * 1.000005) / (y + 1e-15) * 1.0 + 0.0
        return made


def test_an_epsilon_keeps_a_quotient_finite() -> None:
    specs = [TensorSpec(name=name, dtype="float32", shape=SHAPE, role="state") for name in ("x", "y", "z")]
    graph = GraphSpec(name="quotient", inputs=tuple(specs[:2]), outputs=tuple(specs[2:]))
    feeds = {"x": np.array([[0, 1, 2]], np.float32), "y": np.array([[0, 1, 0]], np.float32)}
    data = export_onnx(graph, Quotient().eval(), feeds)
    assert sorted(node.op_type for node in onnx.load_from_string(data).graph.node) == ["Add", "Div", "Mul"]
    with create_backend("onnxruntime").open(graph, MemoryGraph(data), precision="fp32") as session:
        found = session.run(feeds)["z"]
    wanted = Quotient()(*(torch.from_numpy(each) for each in feeds.values())).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-7)
