"""The tensorrt backend on a real GPU: engines against ONNX Runtime. Skipped where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.backends import get_backend
from gensdk_runtime.backends.background import BackgroundSession
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.backends.tensorrt.backend import TensorRtBackend
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.fields import Precision
from support.embedded import IMAGES

AVAILABLE = get_backend("tensorrt").availability()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not AVAILABLE.available, reason=AVAILABLE.reason)]

CARRY = {"next_sample": "sample", "next_previous_x0": "previous_x0"}


@pytest.fixture(scope="module", params=AVAILABLE.devices or ["none"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TensorRtBackend:
    return TensorRtBackend(request.param, cache=EngineCache(tmp_path_factory.mktemp("engines")))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", IMAGES)
def test_golden_trajectories_hold(name: str, precision: Precision, backend: TensorRtBackend) -> None:
    report = verify_bundle(name, backend=backend, precision=precision)
    assert report.ok, report.problems


@pytest.mark.parametrize("name", IMAGES)
def test_samples_are_those_of_onnx_runtime(name: str, backend: TensorRtBackend) -> None:
    with Generator.load(name, backend=OnnxRuntimeBackend(threads=1)) as reference:
        expected = reference.sample(16, seed=0, batch_size=5).array
        flips = reference.model.program.kind == "autoregressive"
    with Generator.load(name, backend=backend) as generator:
        for _ in range(3):  # the first run sets up, the second is captured, the third replays
            difference = np.abs(generator.sample(16, seed=0, batch_size=5).array - expected)
            if flips:  # a pixel may flip where its uniform number lies on the edge
                assert (difference > 1e-3).any(axis=(1, 2, 3)).mean() <= 0.2
            else:
                assert difference.max() <= 1e-3


def test_states_are_carried_on_the_gpu(backend: TensorRtBackend) -> None:
    rng = np.random.default_rng(0)
    with Bundle.open("digits-ddpm") as bundle:
        graph = bundle.manifest.model.graphs[0]
        source = bundle.graph_source(graph.name, "fp32")
        with (
            backend.open(graph, source, precision="fp32") as session,
            OnnxRuntimeBackend(threads=1).open(graph, source, precision="fp32") as reference,
            session.bound({"batch": 3, "guidance": 2}, CARRY) as ours,
            reference.bound({"batch": 3, "guidance": 2}, CARRY) as theirs,
        ):
            for spec in graph.inputs:
                value = rng.uniform(0, 1, ours.input(spec.name).shape).astype(spec.dtype)
                ours.input(spec.name)[...] = theirs.input(spec.name)[...] = value
            for step in range(8):
                for bound in (ours, theirs):
                    bound.input("embedding")[...] = 0.1 * step
                    if step == 5:
                        bound.input("sample")[0] = 0.25  # a part of what only the GPU has
                    bound.run()
                np.testing.assert_allclose(ours.output("next_sample"), theirs.output("next_sample"), atol=1e-3)


def test_eight_threads_give_what_one_gives(backend: TensorRtBackend) -> None:
    with Generator.load("digits-ddpm", backend=backend) as generator:
        alone = [generator.sample(2, seed=seed).array for seed in range(8)]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda seed: generator.sample(2, seed=seed).array, range(8)))
    np.testing.assert_array_equal(alone, together)


def test_many_sizes_and_generators_leave_no_memory(backend: TensorRtBackend) -> None:
    from cuda.bindings import runtime

    def free() -> int:
        return int(runtime.cudaMemGetInfo()[1])

    before = 0
    for turn in range(4):
        with Generator.load("digits-dcgan", backend=backend) as generator:
            for n in range(1, 20):
                generator.sample(n, seed=0)
        before = before or (free() if turn == 1 else 0)
    assert before - free() < 64 * 2**20


def test_a_size_outside_the_profile_is_one_line(backend: TensorRtBackend) -> None:
    with Bundle.open("digits-vae") as bundle:
        graph = bundle.manifest.model.graphs[0]
        with backend.open(graph, bundle.graph_source(graph.name, "fp32"), precision="fp32") as session:
            feeds = {"z": np.zeros((65, 16), np.float32), "label": np.zeros(65, np.int64)}
            with pytest.raises(BackendError, match="takes batch from 1 to 64, got 65"):
                session.run(feeds)


def test_a_second_load_finds_engine_and_kernels(tmp_path: Path) -> None:
    for _ in range(2):
        with Generator.load("digits-vae", backend=TensorRtBackend(cache=EngineCache(tmp_path))) as generator:
            generator.sample(2, seed=0)
        entries = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    assert entries == {path: path.stat().st_ino for path in tmp_path.iterdir()}
    assert len(entries) == 2  # the engine, and kernels or timings


def test_onnx_runtime_serves_until_the_engine_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path))
    with Generator.load("digits-vae", backend="tensorrt:background") as generator:
        first = generator.sample(4, seed=0).array
        for session in generator.sessions.values():
            assert isinstance(session, BackgroundSession)
            assert session.wait(300)
            assert session.backend.startswith("tensorrt:")
        np.testing.assert_allclose(generator.sample(4, seed=0).array, first, atol=1e-3)
