"""What passes between the host and a GPU in one call, counted on a GPU that the CPU plays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.errors import BackendError
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
pytest.importorskip("cuda.bindings.runtime", reason="the extra rtx is not installed")

from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.cuda.device import DeviceMemory, PinnedArray, Stream
from gensdk_runtime.backends.cuda.resident import GpuArray
from support.embedded import IMAGES
from support.engines_here import Host, engines_here
from support.gpu_counts import DOWN, SOLVERS, UP, WAITS, counted
from support.host_driver import RESULTS
from support.host_gpu import HostCuda
from support.inverting_bundle import write_inverting_bundle


@pytest.fixture(params=["rtx", "classic"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return engines_here(request.param, monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def reference() -> Iterator[Callable[..., Samples]]:
    with Generator.load("digits-ddpm", backend=OnnxRuntimeBackend(threads=1)) as model:
        yield model.sample


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (10, 1), (9, 2), (50, 3)])
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
    assert calls[UP] <= 2, "tables and keys"
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    assert repeated[UP] == 1, "the keys alone"
    assert (repeated[DOWN], repeated[WAITS]) == (1, 1)
    expected = reference(3, seed=1, **options).array
    np.testing.assert_array_equal(samples.array, expected)
    np.testing.assert_array_equal(again.array, expected)


@pytest.mark.parametrize(("steps", "interval"), [(1, 1), (10, 1), (9, 2), (12, 3)])
@pytest.mark.parametrize("guidance", [{}, {"guidance_scale": 3.0, "label": [1, 2, 3]}], ids=["free", "guided"])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_prepared_loop_is_one_launch(
    host: Host, reference: Any, steps: int, interval: int, guidance: dict[str, Any], solver: dict[str, Any]
) -> None:
    options = {"num_inference_steps": steps, "cache_interval": interval, **solver, **guidance}
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(3, **options)
        for seed in (4, 5, 6):
            expected = reference(3, seed=seed, **options).array
            np.testing.assert_array_equal(prepared.draw(seed).array, expected)
        again, calls = counted(host.cuda, lambda: prepared.draw(seed=7))
    assert (calls["launch"], calls["enqueue"], calls["captured"]) == (1, 0, 0)
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    np.testing.assert_array_equal(again.array, reference(3, seed=7, **options).array)


def test_what_can_not_be_captured_goes_step_by_step(host: Host, reference: Any) -> None:
    host.trt.capturable = False
    options: dict[str, Any] = {"num_inference_steps": 6, "cache_interval": 2}
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(2, **options)
        for seed in (4, 5, 6, 7):
            expected = reference(2, seed=seed, **options).array
            np.testing.assert_array_equal(prepared.draw(seed).array, expected)
    assert host.cuda.calls["captured"] == 0


def test_a_capture_that_fails_in_the_middle_leaves_all_as_it_was(
    host: Host, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"num_inference_steps": 7, "eta": 1.0}
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(2, **options)
        prepared.draw(1)

        def refused(*_: Any) -> Any:
            return host.cuda.cudaError_t.cudaErrorStreamCaptureInvalidated, 0

        monkeypatch.setattr(host.cuda, "cudaGraphInstantiate", refused)
        for seed in (4, 5, 6):
            expected = reference(2, seed=seed, **options).array
            np.testing.assert_array_equal(prepared.draw(seed).array, expected)


@pytest.mark.parametrize("interval", [1, 2])
def test_given_latents_begin_a_loop_too(host: Host, reference: Any, interval: int) -> None:
    options: dict[str, Any] = {"num_inference_steps": 5, "eta": 1.0, "cache_interval": interval}
    latents = [np.random.default_rng(at).standard_normal((2, 1, 8, 8)).astype(np.float32) for at in range(3)]
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(2, **options)
        for seed in range(8):
            given = None if seed in (4, 5) else latents[seed % 3]
            expected = reference(2, seed=seed, latents=given, **options).array
            np.testing.assert_array_equal(prepared.draw(seed, latents=given).array, expected)
    assert host.cuda.calls["captured"] > 0


def test_what_a_failed_recording_made_is_freed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(2, num_inference_steps=4)
        prepared.draw(0)

        def fails(*_: Any) -> None:
            raise BackendError("as it was asked")

        monkeypatch.setattr("gensdk_runtime.programs.diffusion_loop.Loop._steps", fails)
        before = Counter(host.cuda.objects.values())
        for seed in range(3):
            prepared.draw(seed)
        assert Counter(host.cuda.objects.values())["graph"] == before["graph"]


def test_tables_that_grow_free_idle_buffers(host: Host, reference: Any) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        for n in (64, 1):
            model.sample(n, seed=0, num_inference_steps=2)
        host.cuda.room = host.cuda.taken
        samples = model.sample(1, seed=3, num_inference_steps=60)
    np.testing.assert_array_equal(samples.array, reference(1, seed=3, num_inference_steps=60).array)
    assert host.cuda.calls["refused"] > 0


def test_a_kernel_that_finds_no_memory_gets_a_second_try(host: Host, reference: Any, monkeypatch: Any) -> None:
    launch, tries = host.driver.cuLaunchKernel, iter([True])

    def short(*arguments: Any) -> Any:
        if next(tries, False):
            return (RESULTS.CUDA_ERROR_OUT_OF_MEMORY,)
        return launch(*arguments)

    monkeypatch.setattr(host.driver, "cuLaunchKernel", short)
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        samples = model.sample(2, seed=3, num_inference_steps=3)
    np.testing.assert_array_equal(samples.array, reference(2, seed=3, num_inference_steps=3).array)
    assert next(tries, None) is None


def test_long_tables_go_to_the_gpu_in_parts(host: Host, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensdk_runtime.programs.step_tables.MAX_BYTES", 1)
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        prepared = model.prepare(2, num_inference_steps=6, cache_interval=2)
        for seed in (3, 4):
            expected = reference(2, seed=seed, num_inference_steps=6, cache_interval=2)
            np.testing.assert_array_equal(prepared.draw(seed).array, expected.array)


@pytest.mark.parametrize("prefix", [None, np.full((1, 3, 8), 128, np.uint8)])
@pytest.mark.parametrize("n", [1, 4])
def test_an_image_of_pixels_passes_once_back(host: Host, n: int, prefix: Any) -> None:
    with Generator.load("digits-pixelcnn", backend=OnnxRuntimeBackend(threads=1)) as model:
        expected = model.sample(n, seed=2, prefix=prefix)
    with Generator.load("digits-pixelcnn", backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(n, seed=2, prefix=prefix))
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 0)
    np.testing.assert_array_equal(samples.array, expected.array)


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


def test_a_frame_passes_once_each_way(host: Host, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    bundle = write_inverting_bundle(tmp_path / "negative.gsdk")
    with Generator.load(bundle, backend=host.backend) as model:
        prepared = model.prepare(size=(16, 24))
        result, calls = counted(host.cuda, lambda: prepared.translate(frame))
    assert (calls[UP], calls[DOWN], calls[WAITS], calls["allocated"]) == (1, 1, 1, 0)
    np.testing.assert_array_equal(result, 255 - frame)


def on_gpu(array: np.ndarray, stream: Stream) -> GpuArray:
    memory, pinned = DeviceMemory(array.nbytes), PinnedArray(array.shape, str(array.dtype))
    pinned.array[...] = array
    stream.upload(pinned, memory)
    stream.synchronize()
    return GpuArray(memory, memory.address, array.shape, array.dtype, stream)


def brought(array: GpuArray, stream: Stream) -> np.ndarray:
    whole = GpuArray(memory := DeviceMemory(array.nbytes), memory.address, array.shape, array.dtype, stream)
    whole[...] = array
    target = PinnedArray(array.shape, str(array.dtype))
    stream.bring(whole.plane(), target)
    return target.array.copy()


CUTS = [np.s_[...], np.s_[1], np.s_[:, 1], np.s_[:, :, 2], np.s_[:, :, :, 3], np.s_[1:, :, 2], np.s_[0, 1, 1:3]]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_cuts_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch, cut: Any, dtype: str) -> None:
    cuda = HostCuda()
    monkeypatch.setattr(device, "cuda", lambda: cuda)
    array = np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5).astype(dtype)
    first, second = Stream(), Stream()
    source, target = on_gpu(array, first), on_gpu(np.zeros_like(array), second)
    np.testing.assert_array_equal(brought(source[cut], first), array[cut])
    target[cut] = source[cut]
    source.fill(0)  # after the copy, in another stream
    expected = np.zeros_like(array)
    expected[cut] = array[cut]
    np.testing.assert_array_equal(brought(target, second), expected)
    target[cut].fill(0)
    assert not brought(target, second).any()


def test_what_a_gpu_can_not_do_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = HostCuda()
    monkeypatch.setattr(device, "cuda", lambda: cuda)
    stream = Stream()
    array = on_gpu(np.zeros((4, 6, 5), np.float32), stream)
    with pytest.raises(TypeError, match="expected an array on the GPU, got ndarray"):
        array[...] = np.zeros((4, 6, 5), np.float32)
    with pytest.raises(ValueError, match="expected 0, got 1"):
        array.fill(1)
    with pytest.raises(ValueError, match=r"can't copy <GpuArray: float32 \[6, 5\]> into"):
        array[0:2] = array[0]
    with pytest.raises(TypeError, match="brought by"):
        np.asarray(array)
    for cut in (np.s_[::2, 1:3, 1:3], np.s_[::-1]):
        with pytest.raises(BackendError, match="can't copy a cut"):
            array[cut].fill(0)
