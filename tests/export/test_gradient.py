"""Gradient graphs: ONNX Runtime against autograd, for the layers that models are made of."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from gensdk_export.engines import AxisRange, build_engine
from gensdk_export.gradient_rounding import JUMPS, gradient_bounds
from gensdk_export.half.halving import halve
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.errors import ExportError
from gensdk_runtime.proof.golden import Call, GoldenBounds
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, GraphSpec
from gensdk_training.graphs.input_gradient import InputGradient, gradient_graph
from gensdk_training.networks.resnet_generator import ResnetGenerator
from gensdk_training.networks.strided import up_stack
from gensdk_training.networks.translation_unet import TranslationUnet
from gensdk_training.torch_backend import TorchSession


class HalfSquares(nn.Module):
    """Half the sum of squares of what a network gives, for each sample."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, variable: Tensor) -> Tensor:
        return self.network(variable).flatten(1).square().sum(dim=1) / 2


def mlp() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4)), (6,)


def generator() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(up_stack(5, [16, 8], (1, 16, 16)), nn.Tanh()), (5,)


def resnet() -> tuple[nn.Module, tuple[int, ...]]:
    return ResnetGenerator(3, 3, channels=4, blocks=1, norm="instance", upsampling="transposed"), (3, 16, 16)


def unet() -> tuple[nn.Module, tuple[int, ...]]:
    return TranslationUnet(3, 3, channels=8, depth=3, norm="instance", upsampling="transposed"), (3, 16, 16)


def classifier() -> tuple[nn.Module, tuple[int, ...]]:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.AvgPool2d(2)]
    layers += [nn.Upsample(scale_factor=2), nn.MaxPool2d(3, 1, 1), nn.Flatten(), nn.Linear(8 * 16, 10)]
    return nn.Sequential(*layers), (3, 16, 16)


ARCHITECTURES = {f.__name__: f for f in (mlp, generator, resnet, unet, classifier)}
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def made(name: str) -> tuple[GraphSpec, InputGradient, dict[str, np.ndarray]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, shape = ARCHITECTURES[name]()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
        feeds = {"variable": torch.randn(3, *shape).numpy()}
    return gradient_graph("gradient", shape), InputGradient(HalfSquares(network)).eval(), feeds


@functools.cache
def exported(name: str) -> tuple[GraphSpec, InputGradient, dict[str, np.ndarray], bytes]:
    graph, module, feeds = made(name)
    return graph, module, feeds, export_onnx(graph, module, feeds)


@every_architecture
def test_onnx_runtime_gives_what_autograd_gives(name: str) -> None:
    graph, module, feeds, file = exported(name)
    with create_backend("onnxruntime").open(graph, MemoryGraph(file), precision="fp32") as session:
        for batch in (1, 2, 3):
            few = {"variable": feeds["variable"][:batch]}
            found, expected = session.run(few), TorchSession(graph, module).run(few)
            for key, value in expected.items():
                scale = max(1.0, float(np.abs(value).max()))
                np.testing.assert_allclose(found[key] / scale, value / scale, atol=1e-5, err_msg=key)
        assert np.abs(expected["gradient"]).max() > 1e-4


@every_architecture
def test_an_engine_is_built(name: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    graph, _, _, file = exported(name)
    assert len(build_engine(graph, file, precision="fp32", batch=AxisRange(1, 2, 4)).data) > 1000


def test_a_plain_gradient_in_a_graph_is_refused() -> None:
    class Plain(nn.Module):
        def forward(self, variable: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                free = variable.detach().requires_grad_()
                objective = free.square().sum(dim=1)
                (gradient,) = torch.autograd.grad(objective.sum(), free)
            return objective.detach(), gradient

    with pytest.raises(ExportError, match="must be an InputGradient"):
        export_onnx(gradient_graph("gradient", (6,)), Plain(), made("mlp")[2])


def test_a_layer_without_a_gradient_graph_is_refused_in_one_line() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, ceil_mode=True))
    module = InputGradient(HalfSquares(network)).eval()
    feeds = {"variable": np.zeros((2, 3, 16, 16), np.float32)}
    with pytest.raises(ExportError, match="ceil_mode can't be exported") as failure:
        export_onnx(gradient_graph("gradient", (3, 16, 16)), module, feeds)
    assert "\n" not in str(failure.value)


def test_any_size_keeps_its_gradient() -> None:
    """Strided layers and pooling forget how many rows were left over; the gradient has them all."""
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, stride=2, padding=1)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = InputGradient(HalfSquares(nn.Sequential(*layers))).eval()
        images = torch.randn(2, 3, 17, 22).numpy()
    graph = gradient_graph("gradient", (3, HEIGHT, WIDTH))
    file = export_onnx(graph, module, {"variable": images}, {HEIGHT: 1, WIDTH: 1})
    with create_backend("onnxruntime").open(graph, MemoryGraph(file), precision="fp32") as session:
        for height, width in ((16, 16), (17, 22), (9, 13)):
            feeds = {"variable": np.ascontiguousarray(images[:, :, :height, :width])}
            found, expected = session.run(feeds), TorchSession(graph, module).run(feeds)
            np.testing.assert_allclose(found["gradient"], expected["gradient"], atol=1e-5)


def test_half_precision_reaches_the_backward_pass() -> None:
    graph, module, feeds = made("generator")
    half = halve(module, ["objective.network"])
    session = TorchSession(graph, half)
    found, expected = session.run(feeds), TorchSession(graph, module).run(feeds)
    assert 0 < np.abs(found["gradient"] - expected["gradient"]).max() < 0.02 * np.abs(expected["gradient"]).max()
    file = export_onnx(graph, half, feeds)
    types = {value.data_type for value in onnx.load_from_string(file).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    with create_backend("onnxruntime").open(graph, MemoryGraph(file), precision="fp16") as opened:
        result = opened.run(feeds)
    scale = np.abs(expected["gradient"]).max()
    np.testing.assert_allclose(result["gradient"] / scale, expected["gradient"] / scale, atol=0.02)


class Edge(nn.Module):
    """``sum max(0, c - 3 x)``, and without the edge ``sum (c - 3 x)^2``; c is 3 x to a rounding."""

    def __init__(self, *, smooth: bool) -> None:
        super().__init__()
        self.smooth = smooth
        self.register_buffer("edge", torch.tensor(0.3))

    def forward(self, variable: torch.Tensor) -> torch.Tensor:
        rest = self.edge - 3 * variable
        return (rest.square() if self.smooth else torch.relu(rest)).sum(dim=1)


@pytest.mark.parametrize("smooth", [False, True])
def test_only_gradients_that_rounding_moves_are_allowed_more(smooth: bool) -> None:
    graph = gradient_graph("gradient", (4,))
    module = InputGradient(Edge(smooth=smooth)).eval()
    variable = torch.full((2, 4), 0.1)
    outputs = {spec.name: value.numpy() for spec, value in zip(graph.outputs, module(variable), strict=True)}
    call = Call("gradient", 0, {"variable": variable.numpy()}, outputs)
    plan: Any = SimpleNamespace(model=SimpleNamespace(graphs=(graph,)), modules={"gradient": module})
    run: Any = SimpleNamespace(calls=[call])
    allowed = gradient_bounds(plan, [run], 1e-4)
    assert allowed == ({} if smooth else {"gradient": JUMPS}), "from 0 to -3, of at most 3"
    bounds = GoldenBounds(graph=1e-4, flipped=0.0, jumps=allowed)
    assert bounds.of("gradient").graph == (1e-4 if smooth else JUMPS)
    assert bounds.of("generator").graph == 1e-4
