"""Noise that a GPU draws: the shipped kernels against ``noise.py``, and what becomes of them in engines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime import noise
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.errors import BackendError, GensdkWarning
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import MAX_WORD, SampleKey

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
pytest.importorskip("cuda.bindings.runtime", reason="the extra rtx is not installed")

from cuda.bindings import nvrtc
from cuda.bindings.driver import CUresult

from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.cuda.device import DeviceMemory, PinnedArray, Stream
from gensdk_runtime.backends.cuda.noise_kernels import ENTRIES, NoiseKernels
from gensdk_runtime.backends.cuda.resident import GpuArray
from gensdk_runtime.backends.tensorrt.backend import TensorRtBackend
from support import noise_ptx
from support.embedded import IMAGES
from support.engines_here import Host, engines_here
from support.host_driver import Play, play_on
from support.host_gpu import HostCuda
from support.members import a_run, assert_each_is_alone
from support.ptx_in_c import built

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler is here, to run PTX on the CPU")
NVRTC = noise_ptx.version(nvrtc)
needs_nvrtc = pytest.mark.skipif(NVRTC is None, reason="NVRTC is not installed (nvidia-cuda-nvrtc)")
AVAILABLE = TensorRtBackend.availability()
KEYS = [
    SampleKey(0, 0),
    SampleKey(MAX_WORD, MAX_WORD),
    SampleKey(2**63, 1),
    SampleKey(7, MAX_WORD),
    SampleKey(0, 1),
]
UP, DOWN, WAITS = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "waits"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """The PTX of the package, on the CPU."""
    assert COMPILER is not None
    return built(noise_ptx.PTX.read_text(), COMPILER, tmp_path_factory.mktemp("ptx"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    """A GPU of its own, whose driver is NumPy."""
    here = HostCuda()
    play_on(here, monkeypatch)
    return here


def sent(array: np.ndarray, stream: Stream) -> GpuArray:
    memory, pinned = DeviceMemory(array.nbytes), PinnedArray(array.shape, str(array.dtype))
    pinned.array[...] = array
    stream.upload(pinned, memory)
    stream.synchronize()
    return GpuArray(memory, memory.address, array.shape, array.dtype, stream)


def drawn(kernels: NoiseKernels, distribution: Any, keys: list[SampleKey], number: int, shape: Any) -> np.ndarray:
    """By the kernels, with keys that belong to another stream and change right after."""
    stream, other = Stream(), Stream()
    words = sent(np.array(keys, np.uint64).reshape(-1, 2), other)
    out = sent(np.full((len(keys), *shape), np.nan, np.float32), stream)
    kernels.draw(out, distribution, words, number)
    words.fill(0)
    target = PinnedArray(out.shape, "float32")
    stream.bring(out.plane(), target)
    return target.array.copy()


def places_between(drawn: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How many units in the last place lie between float32 numbers of one sign."""
    assert np.array_equal(np.signbit(drawn), np.signbit(expected))
    return np.abs(drawn.view(np.int32).astype(np.int64) - expected.view(np.int32))


SHAPES = [(1,), (2,), (7,), (8,), (9,), (3, 5, 7), (1, 8, 8), (4, 64), (1023,)]


@needs_compiler
@pytest.mark.parametrize("distribution", ENTRIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", [0, 1, 1000, MAX_WORD])
def test_the_shipped_kernels_draw_the_numbers_of_noise(
    monkeypatch: pytest.MonkeyPatch, shipped: Play, distribution: Any, shape: tuple[int, ...], number: int
) -> None:
    play_on(HostCuda(), monkeypatch, shipped)
    made = drawn(NoiseKernels(), distribution, KEYS, number, shape)
    expected = noise.DRAWS[distribution](KEYS, number, shape)
    if distribution == "uniform":
        np.testing.assert_array_equal(made, expected)
    assert places_between(made, expected).max() <= (0 if distribution == "uniform" else 1)


@needs_compiler
@pytest.mark.parametrize("nudge", [-1, 0, 1])
def test_a_normal_number_in_a_million_is_off_by_one_place_at_most(tmp_path: Path, nudge: int) -> None:
    """Whatever the last bits of the reciprocal are that PTX leaves open."""
    assert COMPILER is not None
    play = built(noise_ptx.PTX.read_text(), COMPILER, tmp_path, nudge=nudge)
    keys, made = np.array(KEYS, np.uint64), np.empty((len(KEYS), 400_001), np.float32)
    words = len(KEYS) * 200_001
    play("gensdk_normal", (keys.ctypes.data, 3, len(KEYS), 400_001, made.ctypes.data), -(-words // 128), 128)
    places = places_between(made, noise.normal(KEYS, 3, (400_001,)))
    assert places.max() <= 1
    assert np.count_nonzero(places) <= 2


def test_ptx_is_that_of_the_source() -> None:
    text = noise_ptx.PTX.read_text()
    assert text.startswith(noise_ptx.header()), "noise.cu was changed: python tests/support/noise_ptx.py"
    assert f"release {noise_ptx.VERSION[0]}.{noise_ptx.VERSION[1]}," in text
    assert {f".entry {entry.decode()}(" in text for entry in ENTRIES.values()} == {True}
    assert ".target sm_75\n" in text
    assert ".version 8.0\n" in text, "a newer one would be refused by drivers of CUDA 12.0"


@needs_nvrtc
def test_a_fresh_compilation_gives_the_same_file() -> None:
    """The same file from the same NVRTC; from another one a file that has the same kernels."""
    fresh, text = noise_ptx.compiled(nvrtc), noise_ptx.PTX.read_text()
    assert (fresh == text) == (NVRTC == noise_ptx.VERSION)
    assert {f".entry {entry.decode()}(" in fresh for entry in ENTRIES.values()} == {True}


@pytest.mark.parametrize("distribution", ENTRIES)
@pytest.mark.parametrize(("n", "shape"), [(0, (3,)), (2, (0,)), (2, (3, 0, 5)), (0, ())])
def test_nothing_is_launched_where_there_is_nothing(cuda: HostCuda, distribution: Any, n: int, shape: Any) -> None:
    made = drawn(NoiseKernels(), distribution, KEYS[:n], 0, shape)
    assert made.shape == (n, *shape)
    assert made.size == cuda.calls["drawn"] == 0


@pytest.mark.parametrize("distribution", ENTRIES)
def test_batches_are_cut_anywhere(cuda: HostCuda, distribution: Any) -> None:
    kernels, whole = NoiseKernels(), noise.DRAWS[distribution](KEYS, 2, (3, 5))
    for cut in range(1, len(KEYS)):
        parts = [drawn(kernels, distribution, part, 2, (3, 5)) for part in (KEYS[:cut], KEYS[cut:])]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert cuda.calls["modules"] == 1


def test_what_can_not_be_drawn_is_refused(cuda: HostCuda) -> None:
    kernels, stream = NoiseKernels(), Stream()
    out, keys = sent(np.zeros((3, 4), np.float32), stream), sent(np.array(KEYS[:3], np.uint64), stream)
    with pytest.raises(ValueError, match=r"expected keys as \[2, 2\]"):
        kernels.draw(out[:2], "normal", keys, 0)
    with pytest.raises(BackendError, match="not in one piece"):
        kernels.draw(out[:, 1:3], "normal", keys, 0)
    assert cuda.calls["drawn"] == 0


def test_threads_share_the_kernels(cuda: HostCuda) -> None:
    """Of which the driver knows nothing yet: each gets the context when it first needs it."""
    kernels = NoiseKernels()
    seeds = range(12)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda seed: drawn(kernels, "normal", [SampleKey(seed, 0)], seed, (9,)), seeds))
    np.testing.assert_array_equal(made, [noise.normal([SampleKey(seed, 0)], seed, (9,)) for seed in seeds])
    assert cuda.calls["modules"] == 1
    assert len(cuda.threads) > 1


def test_the_module_goes_with_the_kernels(cuda: HostCuda) -> None:
    kernels = NoiseKernels()
    assert kernels.usable
    modules = device.driver().modules
    assert len(modules) == 1
    del kernels
    assert not modules


@pytest.fixture(params=["rtx", "classic"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return engines_here(request.param, monkeypatch, tmp_path)


REFUSALS = [CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION, CUresult.CUDA_ERROR_INVALID_PTX]
OPTIONS: dict[str, dict[str, Any]] = {"digits-ddpm": {"num_inference_steps": 5, "eta": 1.0, "cache_interval": 2}}


@pytest.fixture(scope="module", params=IMAGES)
def bundle(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(bundle: str) -> Iterator[Any]:
    with Generator.load(bundle, backend=OnnxRuntimeBackend(threads=1)) as model:
        yield lambda n, seed: model.sample(n, seed=seed, **OPTIONS.get(bundle, {})).array


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: each.name)
def test_a_driver_that_refuses_is_told_of_once_and_noise_is_sent(
    host: Host, bundle: str, expected: Any, refusal: Any
) -> None:
    host.driver.refuses = refusal
    with Generator.load(bundle, backend=host.backend) as model:
        with pytest.warns(GensdkWarning, match=f"noise is drawn by the CPU.*{refusal.name}") as told:
            first = model.sample(3, seed=1, **OPTIONS.get(bundle, {})).array
        second = model.sample(3, seed=2, **OPTIONS.get(bundle, {})).array
    assert len(told) == 1
    np.testing.assert_array_equal(first, expected(3, 1))
    np.testing.assert_array_equal(second, expected(3, 2))
    assert host.cuda.calls["drawn"] == 0


def test_seeds_are_whatever_they_may_be(host: Host, bundle: str, expected: Any) -> None:
    with Generator.load(bundle, backend=host.backend) as model:
        made = model.sample(len(KEYS), seed=KEYS, **OPTIONS.get(bundle, {})).array
        halves = [
            model.sample(len(some), seed=some, **OPTIONS.get(bundle, {})).array for some in (KEYS[:2], KEYS[2:])
        ]
    np.testing.assert_array_equal(made, expected(len(KEYS), KEYS))
    np.testing.assert_array_equal(np.concatenate(halves), made)
    assert host.cuda.calls["drawn"] > 0


def test_threads_draw_their_own(host: Host, bundle: str, expected: Any) -> None:
    with Generator.load(bundle, backend=host.backend) as model, ThreadPoolExecutor(2) as threads:
        made = list(
            threads.map(lambda seed: model.sample(2, seed=seed, **OPTIONS.get(bundle, {})).array, range(4))
        )
    assert host.cuda.calls["drawn"] > 0
    for seed, each in enumerate(made):
        np.testing.assert_array_equal(each, expected(2, seed))


@needs_compiler
def test_samples_of_the_shipped_kernels_are_those_of_the_cpu(
    host: Host, bundle: str, expected: Any, shipped: Play
) -> None:
    host.driver.play = shipped
    with Generator.load(bundle, backend=host.backend) as model:
        made = model.sample(3, seed=1, **OPTIONS.get(bundle, {})).array
    assert host.cuda.calls["drawn"] > 0
    np.testing.assert_allclose(made, expected(3, 1), atol=1e-5)


def test_keys_are_sent_when_they_change(host: Host, bundle: str, expected: Any) -> None:
    with Generator.load(bundle, backend=host.backend) as model:
        prepared, ups = model.prepare(2, **OPTIONS.get(bundle, {})), []
        for seed in (1, 1, 1, 2):
            host.cuda.calls.clear()
            np.testing.assert_array_equal(prepared.draw(seed).array, expected(2, seed))
            ups.append(host.cuda.calls[UP])
    assert ups[3] == ups[2] + 1
    assert ups[2] <= 2


def test_an_input_is_what_was_put_there_last(host: Host) -> None:
    with Generator.load("digits-dcgan", backend=host.backend) as model:
        session: Any = model._sampling.program._session
        (name,) = (spec.name for spec in session.graph.inputs if spec.role == "noise")
        first, second = (tuple(SampleKey(seed, place) for place in range(2)) for seed in (1, 2))
        with session.bound({"batch": 2}) as bound:
            shape = bound.shape(name)[1:]

            def comes(stream: int, keys: Any) -> None:
                np.testing.assert_array_equal(bound.input(name), noise.normal(keys, stream, shape))

            bound.input("label")[...] = 3
            bound.draw(name, "normal", bound.hold_keys(first), 5)
            bound.draw(name, "normal", bound.hold_keys(second), 6)  # before the first keys were surely sent
            comes(6, second)
            bound.input(name)[...] = 1
            bound.draw(name, "normal", bound.hold_keys(first), 7)
            comes(7, first)
            bound.draw(name, "uniform", bound.hold_keys(first), 8)
            bound.overwrite(name)[...] = 1
            bound.run()
            ones = bound.output("image").copy()
            bound.draw(name, "normal", bound.hold_keys(first), 9)
            bound.run()
            made = bound.output("image").copy()
            comes(9, first)
            feeds = {name: np.ones((2, *shape), np.float32), "label": bound.input("label").copy()}
        np.testing.assert_array_equal(ones, session.run(feeds)["image"])
        feeds[name] = noise.normal(first, 9, shape)
        np.testing.assert_array_equal(made, session.run(feeds)["image"])


def test_given_latents_are_sent_and_the_rest_is_drawn(host: Host) -> None:
    latents = noise.normal(KEYS[:2], 77, (1, 8, 8))
    options: dict[str, Any] = {"seed": 3, "latents": latents, "num_inference_steps": 7, "eta": 1.0}
    with Generator.load("digits-ddpm", backend=OnnxRuntimeBackend(threads=1)) as model:
        expected = model.sample(2, **options).array
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        model.sample(2, **options)
        host.cuda.calls.clear()
        made, calls = model.sample(2, **options).array, host.cuda.calls.copy()
    np.testing.assert_array_equal(made, expected)
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["drawn"]) == (1, 1, 6)


def test_runs_that_join_and_leave_go_on_with_their_own(host: Host) -> None:
    """Alone on the GPU, then side by side, where the CPU draws, then alone again."""
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        program: Any = model._sampling.program
        settings = program.resolve({"num_inference_steps": 6, "eta": 1.0, "cache_interval": 2})
        stays, goes = a_run(program, 1, 2), a_run(program, 2, 3)
        drawn_there = []
        with program.begin(stays, settings) as state:
            for change in (None, lambda: state.join(program.begin(goes, settings)), lambda: state.leave(goes)):
                if change is not None:
                    change()
                host.cuda.calls.clear()
                state.step()
                state.step()
                drawn_there.append(host.cuda.calls["drawn"])
            state.finish()
        assert_each_is_alone(program, stays, [settings] * 2)
    assert drawn_there == [3, 0, 1], "x_T and two steps; none; two steps, of which the last one adds no noise"


@pytest.mark.gpu
@pytest.mark.skipif(not AVAILABLE.available, reason=AVAILABLE.reason)
def test_a_gpu_draws_the_numbers_of_noise() -> None:
    kernels = NoiseKernels()
    assert kernels.usable
    for distribution in ENTRIES:
        made, here = (
            drawn(kernels, distribution, KEYS, 3, (1_000_001,)),
            noise.DRAWS[distribution](KEYS, 3, (1_000_001,)),
        )
        places = places_between(made, here)
        assert places.max() <= (distribution == "normal")
        assert np.count_nonzero(places) <= 4
