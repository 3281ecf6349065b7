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
from support.embedded import IMAGES
from support.gpu_onnxruntime import CUDA, TENSORRT
from support.inverting_bundle import write_inverting_bundle

pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

from support.gpu_counts import DOWN, SOLVERS, UP, WAITS, counted
from support.onnxruntime_here import Host, onnxruntime_here


@pytest.fixture(params=["cuda", "tensorrt"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return onnxruntime_here(f"onnxruntime:{request.param}", monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def reference() -> Iterator[Callable[..., Samples]]:
    with Generator.load("digits-ddpm", backend=OnnxRuntimeBackend(threads=1)) as model:
        yield model.sample


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (9, 2), (50, 3)])
@pytest.mark.parametrize("guidance", [{}, {"guidance_scale": 3.0, "label": [1, 2, 3]}], ids=["free", "guided"])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_diffusion_of_any_length_passes_twice_to_the_gpu_and_once_back(
    host: Host, reference: Any, steps: int, interval: int, guidance: dict[str, Any], solver: dict[str, Any]
) -> None:
    options = {"num_inference_steps": steps, "cache_interval": interval, **solver, **guidance}
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(3, seed=1, **options))
        prepared = model.prepare(3, **options)
        seeds = iter((2, 1))
        again, repeated = counted(host.cuda, lambda: prepared.draw(next(seeds)))
    assert calls["enqueue"] >= steps
    assert calls[UP] <= 2, "tables and keys"
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    assert (repeated[UP], repeated[DOWN], repeated[WAITS]) == (1, 1, 1)
    expected = reference(3, seed=1, **options).array
    np.testing.assert_array_equal(samples.array, expected)
    np.testing.assert_array_equal(again.array, expected)


@pytest.mark.parametrize("n", [1, 4])
def test_an_image_of_pixels_passes_once_back(host: Host, n: int) -> None:
    with Generator.load("digits-pixelcnn", backend=OnnxRuntimeBackend(threads=1)) as model:
        expected = model.sample(n, seed=2)
    with Generator.load("digits-pixelcnn", backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(n, seed=2))
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    np.testing.assert_array_equal(samples.array, expected.array)


def test_a_frame_passes_once_each_way(host: Host, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    bundle = write_inverting_bundle(tmp_path / "negative.gsdk")
    with Generator.load(bundle, backend=host.backend) as model:
        prepared = model.prepare(size=(16, 24))
        result, calls = counted(host.cuda, lambda: prepared.translate(frame))
    assert (calls[UP], calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 1, 0)
    np.testing.assert_array_equal(result, 255 - frame)


@pytest.mark.parametrize("bundle", IMAGES)
def test_listening_changes_no_sample(host: Host, bundle: str) -> None:
    def seen(backend: Any) -> tuple[Any, list[Any]]:
        heard: list[Any] = []
        with Generator.load(bundle, backend=backend) as model:
            samples = model.sample(3, seed=4, callback_on_step_end=lambda step: heard.append(step.x0))
        return samples.array, heard

    expected, given = seen(OnnxRuntimeBackend(threads=1)), seen(host.backend)
    np.testing.assert_array_equal(given[0], expected[0])
    np.testing.assert_array_equal(given[1], expected[1])


def test_sizes_in_turn_allocate_in_the_first_round_alone(host: Host) -> None:
    def round_of_sizes() -> None:
        for n in range(1, 65):
            model.sample(n, seed=0, num_inference_steps=2)

    with Generator.load("digits-ddpm", backend=host.backend) as model:
        _, calls = counted(host.cuda, round_of_sizes)
    assert calls["enqueue"] >= 128
    assert calls["allocated"] == 0


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
