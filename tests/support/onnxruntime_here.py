"""ONNX Runtime's providers for NVIDIA over a GPU that the CPU plays, and a graph whose state is carried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.onnxruntime import tf32
from gensdk_runtime.backends.onnxruntime.resident import CudaBound, CudaSession
from gensdk_runtime.errors import UnavailableError
from support.gpu_onnxruntime import GpuOnnxRuntime, put_in
from support.host_driver import play_on
from support.host_gpu import HostCuda
from support.onnx_graphs import OnnxBytes, graph_spec, onnx_bytes, spec

GRAPH = graph_spec(
    {"x": spec("batch", 3), "a": spec("batch", 3), "scale": spec()},
    {"y": spec("batch", 3), "next_a": spec("batch", 3)},
)
NODES = [
    helper.make_node("Mul", ["a", "scale"], ["scaled"]),
    helper.make_node("Add", ["scaled", "x"], ["next_a"]),
    helper.make_node("Sub", ["next_a", "a"], ["y"]),
]
CARRY = {"next_a": "a"}


@dataclass
class Host:
    cuda: HostCuda
    ort: GpuOnnxRuntime
    backend: str
    """What `create_backend` takes."""

    def open(self) -> CudaSession:
        source = OnnxBytes(onnx_bytes(GRAPH, NODES))
        session = create_backend(self.backend).open(GRAPH, source, precision="fp32")
        assert isinstance(session, CudaSession)
        return session


def onnxruntime_here(backend: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Host:
    """What runs on `backend`, as long as the patches last; what it builds is kept in `folder`."""
    monkeypatch.setenv("GENSDK_CACHE", str(folder / "cache"))
    monkeypatch.setenv(tf32.VARIABLE, "set by a test")  # so that the end of the test takes it away again
    monkeypatch.delenv(tf32.VARIABLE)
    monkeypatch.setattr(tf32, "_settled", None)
    monkeypatch.setattr(tf32, "_beside_pytorch", lambda: False)
    cuda = HostCuda()
    play_on(cuda, monkeypatch)
    return Host(cuda, put_in(monkeypatch, GpuOnnxRuntime(gpu=cuda)), backend)


def take_cuda_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise UnavailableError("cuda-bindings is missing (No module named 'cuda'); pip install cuda-bindings")

    monkeypatch.setattr(device, "cuda", missing)


def some_feeds(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    shapes = {each.name: [batch if axis == "batch" else int(axis) for axis in each.shape] for each in GRAPH.inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def expected_after(runs: int, feeds: dict[str, np.ndarray]) -> np.ndarray:
    state = feeds["a"]
    for _ in range(runs):
        state = state * feeds["scale"] + feeds["x"]
    return state


def run_bound(session: CudaSession, batch: int, runs: int) -> np.ndarray:
    with session.bound({"batch": batch}, CARRY) as bound:
        assert isinstance(bound, CudaBound)
        for name, value in some_feeds(batch).items():
            bound.overwrite(name)[...] = value
        for _ in range(runs):
            bound.run()
        return bound.output("next_a").copy()
