"""Group norms in exported files: no GroupNormalization is left, and the values are PyTorch's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

GROUPS, CHANNELS = 3, 6


class Plain(nn.Module):
    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return functional.group_norm(x, GROUPS, eps=1e-3)


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, CHANNELS)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return self.norm(x)


class Shifted(Learned):
    """Scale 1 is left out, a shift is not."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.ones_(self.norm.weight)


class Computed(nn.Module):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return functional.group_norm(x, GROUPS, scale, scale * 2 - 1, eps=1e-2)


def graph(*size: int | str) -> GraphSpec:
    shape = ("batch", CHANNELS, *size)
    return GraphSpec(
        name="norm",
        inputs=(
            TensorSpec(name="x", dtype="float32", shape=shape, role="image"),
            TensorSpec(name="scale", dtype="float32", shape=(CHANNELS,), role="coefficient"),
        ),
        outputs=(TensorSpec(name="y", dtype="float32", shape=shape, role="image"),),
    )


@pytest.mark.parametrize("module", [Plain, Learned, Shifted, Computed])
@pytest.mark.parametrize("size", [(4, 5), (1, 1), ("height", "width"), (), (7,), ("height",), (2, 3, 4)])
def test_the_values_are_those_of_pytorch(module: type[nn.Module], size: tuple[int | str, ...]) -> None:
    torch.manual_seed(0)
    spec, live = graph(*size), module().eval()

    def feeds(batch: int, height: int, width: int) -> dict[str, np.ndarray]:
        named = {"height": height, "width": width}
        known = [axis if isinstance(axis, int) else named[axis] for axis in size]
        x = torch.randn(batch, CHANNELS, *known) * 3 + 1
        return {"x": x.numpy(), "scale": torch.randn(CHANNELS).numpy()}

    data = export_onnx(spec, live, feeds(2, 3, 4))
    operators = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert "GroupNormalization" not in operators
    assert "ConstantOfShape" not in operators
    assert ("Mul" in operators) == (module not in (Plain, Shifted))
    with OnnxRuntimeBackend(threads=1).open(spec, MemoryGraph(data), precision="fp32") as session:
        for sizes in ((1, 3, 4), (4, 7, 2)):
            given = feeds(*sizes)
            expected = live(torch.from_numpy(given["x"]), torch.from_numpy(given["scale"]))
            np.testing.assert_allclose(session.run(given)["y"], expected.detach().numpy(), atol=2e-5)
