"""What passes between the host and a GPU in one call, counted under ONNX Runtime's CUDA and TensorRT providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples
from support.gpu_onnxruntime import CUDA, TENSORRT

pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

from support.gpu_counts import DOWN, UP, WAITS, counted
from support.onnxruntime_here import Host, onnxruntime_here


@pytest.fixture(params=["cuda", "tensorrt"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return onnxruntime_here(f"onnxruntime:{request.param}", monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def reference() -> Iterator[Callable[..., Samples]]:
    with Generator.load("digits-ddpm", backend=OnnxRuntimeBackend(threads=1)) as model:
        yield model.sample


def test_what_a_provider_is_told(host: Host) -> None:
    with host.open() as session:
        told = host.ort.told[-1]
        assert [name for name, _ in told if name in (CUDA, TENSORRT)]
        assert {its["user_compute_stream"] for name, its in told if name in (CUDA, TENSORRT)} == {
            str(session._stream.handle)
        }
        assert not session.waits


@pytest.fixture
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return onnxruntime_here("onnxruntime:cuda:graphs", monkeypatch, tmp_path)


def test_captured_runs_pass_no_more_than_others(graphs: Host, reference: Any) -> None:
    options: dict[str, Any] = {"num_inference_steps": 12, "cache_interval": 3}
    with Generator.load("digits-ddpm", backend=graphs.backend) as model:
        samples, calls = counted(graphs.cuda, lambda: model.sample(3, seed=1, **options))
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"], calls["captured"]) == (1, 1, 0, 0)
    assert calls["launched"] == calls["enqueue"]
    np.testing.assert_array_equal(samples.array, reference(3, seed=1, **options).array)
