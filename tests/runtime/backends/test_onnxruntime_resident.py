"""ONNX Runtime's CUDA and TensorRT providers over buffers that stay on a GPU, which the CPU plays and counts."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gensdk_runtime.backends import chains, create_backend
from gensdk_runtime.backends.chain import Link
from gensdk_runtime.backends.onnxruntime import backend as onnxruntime_backend
from gensdk_runtime.backends.onnxruntime import captures, graph_runs, tf32
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.backends.onnxruntime.buffers import DeviceBound
from gensdk_runtime.backends.onnxruntime.session import OnnxRuntimeSession
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import BackendError, InputError, OutOfMemoryError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples
from support.gpu_onnxruntime import CUDA, TENSORRT, GpuOnnxRuntime, put_in
from support.inverting_bundle import write_inverting_bundle
from support.onnx_graphs import OnnxBytes, graph_spec, onnx_bytes, spec

pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.onnxruntime.resident import CudaBound, CudaSession
from support.gpu_counts import DOWN, SOLVERS, UP, WAITS, counted
from support.host_driver import play_on
from support.host_gpu import HostCuda

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

    def open(self) -> CudaSession:
        source = OnnxBytes(onnx_bytes(GRAPH, NODES))
        session = create_backend(self.backend).open(GRAPH, source, precision="fp32")
        assert isinstance(session, CudaSession)
        return session


@pytest.fixture(params=["cuda", "tensorrt"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return played(monkeypatch, tmp_path, f"onnxruntime:{request.param}")


def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str) -> Host:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(tf32.VARIABLE, "set by a test")  # so that the end of the test takes it away again
    monkeypatch.delenv(tf32.VARIABLE)
    monkeypatch.setattr(tf32, "_settled", None)
    monkeypatch.setattr(tf32, "_beside_pytorch", lambda: False)
    cuda = HostCuda()
    play_on(cuda, monkeypatch)
    return Host(cuda, put_in(monkeypatch, GpuOnnxRuntime(gpu=cuda)), backend)


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


@pytest.mark.parametrize("bundle", embedded_names())
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


def test_bound_and_unbound_runs_agree(host: Host) -> None:
    with host.open() as session:
        feeds = some_feeds(3)
        assert set(session.run(feeds)) == {"y", "next_a"}
        for runs in (1, 2, 5):
            np.testing.assert_array_equal(run_bound(session, 3, runs), expected_after(runs, feeds))


@pytest.mark.parametrize("hosted", ["yes", "unsaid"])
def test_what_is_wanted_on_the_host_is_waited_for(host: Host, hosted: Any) -> None:
    host.ort.hosted = hosted
    with host.open() as session:
        for runs in (1, 2, 5):
            np.testing.assert_array_equal(run_bound(session, 3, runs), expected_after(runs, some_feeds(3)))


@pytest.fixture
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return played(monkeypatch, tmp_path, "onnxruntime:cuda:graphs")


def test_runs_are_captured_for_each_turn(graphs: Host) -> None:
    with graphs.open() as session:
        for runs in (1, 2, 7, 4):
            np.testing.assert_array_equal(run_bound(session, 3, runs), expected_after(runs, some_feeds(3)))
            np.testing.assert_array_equal(session.run(some_feeds(5))["next_a"], expected_after(1, some_feeds(5)))
        np.testing.assert_array_equal(run_bound(session, 4, 9), expected_after(9, some_feeds(4)))
    assert graphs.cuda.calls["captured"] == 4, "two turns of two sizes"
    assert graphs.cuda.calls["launched"] == 14 + 9 - 4 - 2 * captures.PLAIN_RUNS
    assert session.backend == "onnxruntime:cuda:graphs"


def test_captured_runs_pass_no_more_than_others(graphs: Host, reference: Any) -> None:
    options: dict[str, Any] = {"num_inference_steps": 12, "cache_interval": 3}
    with Generator.load("digits-ddpm", backend=graphs.backend) as model:
        samples, calls = counted(graphs.cuda, lambda: model.sample(3, seed=1, **options))
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"], calls["captured"]) == (1, 1, 0, 0)
    assert calls["launched"] == calls["enqueue"]
    np.testing.assert_array_equal(samples.array, reference(3, seed=1, **options).array)


def run_sizes(host: Host, *batches: int) -> None:
    with host.open() as session:
        for batch in batches:
            np.testing.assert_array_equal(run_bound(session, batch, 6), expected_after(6, some_feeds(batch)))


@pytest.mark.parametrize(
    ("graphless", "reason"), [("nodes", "cannot use the graph capture feature"), ("captures", "CUDA failure 900")]
)
def test_what_can_not_be_captured_is_said_once(graphs: Host, graphless: Any, reason: str) -> None:
    graphs.ort.graphless = graphless
    with pytest.warns(UserWarning, match=f"graph 'g' runs without a CUDA graph .*{reason}") as told:
        run_sizes(graphs, 2, 3)
    assert len(told) == 1
    assert graphs.cuda.calls["captured"] == 0


def test_what_is_wanted_on_the_host_is_not_captured(graphs: Host) -> None:
    graphs.ort.hosted = "yes"
    with pytest.warns(UserWarning, match="wants an input or an output on the host"):
        run_sizes(graphs, 2)


def test_there_are_so_many_graphs_and_no_more(graphs: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "MOST", 3)
    with pytest.warns(UserWarning, match="'g' has 3 CUDA graphs; further sizes and threads") as told:
        run_sizes(graphs, 1, 2, 3, 4)
    assert len(told) == 1
    assert graphs.cuda.calls["captured"] == 3


@pytest.mark.parametrize("provider", ["cpu", "tensorrt", "nvtensorrtrtx", "openvino"])
def test_graphs_are_of_cuda_alone(host: Host, provider: str) -> None:
    with pytest.raises(InputError, match=f"{provider!r} makes no CUDA graphs here, only: cuda"):
        create_backend(f"onnxruntime:{provider}:graphs")


def test_graphs_keep_their_arithmetic(graphs: Host) -> None:
    backend = create_backend("onnxruntime:cuda:graphs")
    rounding = backend.rounding()
    assert rounding is not None
    assert rounding.label == create_backend("onnxruntime:cuda:tf32:graphs").label == "onnxruntime:cuda:tf32:graphs"
    with pytest.raises(InputError, match="got 'graphs:tf32'"):
        create_backend("onnxruntime:cuda:graphs:tf32")


def test_graphs_need_cuda_bindings(graphs: Host, without_cuda: None) -> None:
    with pytest.raises(UnavailableError, match="pip install cuda-bindings"):
        graphs.open()


def test_threads_share_a_session(host: Host) -> None:
    wrong: list[int] = []

    def work(batch: int) -> None:
        for runs in (1, 4, 7):
            if not np.array_equal(run_bound(session, batch, runs), expected_after(runs, some_feeds(batch))):
                wrong.append(batch)
            unbound = session.run(some_feeds(batch))["next_a"]
            if not np.array_equal(unbound, expected_after(1, some_feeds(batch))):
                wrong.append(-batch)

    with host.open() as session:
        threads = [threading.Thread(target=work, args=(1 + number % 3,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_run_that_fails_leaves_all_usable(host: Host) -> None:
    with host.open() as session:
        run_bound(session, 2, 1)
        host.ort.failures = [RuntimeError("[ONNXRuntimeError] : 1 : FAIL : cuDNN failure 8: no such kernel; x")]
        with pytest.raises(BackendError, match="failed in graph 'g': cuDNN failure 8: no such kernel"):
            run_bound(session, 2, 1)
        np.testing.assert_array_equal(run_bound(session, 2, 3), expected_after(3, some_feeds(2)))


BFC = "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 2147483648"


@pytest.mark.parametrize(
    "said", [BFC, "CUDA failure 2: out of memory ; GPU=0", "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"]
)
def test_a_run_without_memory_is_tried_again_with_what_waits_freed(host: Host, said: str) -> None:
    with host.open() as session:
        for batch in (1, 2, 3):
            run_bound(session, batch, 1)
        before = host.cuda.taken
        host.ort.failures = [RuntimeError(said)]
        np.testing.assert_array_equal(run_bound(session, 3, 2), expected_after(2, some_feeds(3)))
        assert host.cuda.taken < before
        host.ort.failures = [RuntimeError(said)] * 2
        with pytest.raises(OutOfMemoryError, match=r"the GPU has no memory.*; run fewer samples at once, or free"):
            run_bound(session, 3, 2)
        host.ort.failures = [RuntimeError(said)]
        np.testing.assert_array_equal(session.run(some_feeds(2))["next_a"], expected_after(1, some_feeds(2)))


def test_buffers_without_memory_free_what_waits(host: Host) -> None:
    with host.open() as session:
        run_bound(session, 64, 1)
        host.cuda.room = host.cuda.taken + 64
        run_bound(session, 63, 1)
        assert host.cuda.calls["refused"] > 0
        host.cuda.room = 0
        with pytest.raises(OutOfMemoryError):
            run_bound(session, 65, 1)
        host.cuda.room = None
        np.testing.assert_array_equal(run_bound(session, 65, 2), expected_after(2, some_feeds(65)))


def test_closing_frees_all(host: Host) -> None:
    session = host.open()
    run_bound(session, 2, 2)
    with session.bound({"batch": 2}, CARRY) as bound:
        bound.run()
        session.close()
        assert host.ort.sessions[-1]() is not None, "what is lent holds it, as ONNX Runtime's bindings do"
        with pytest.raises(BackendError, match="was closed; load the bundle again"):
            bound.run()
        assert bound.output("y").shape == (2, 3)
    with pytest.raises(BackendError, match="was closed"):
        session.run(some_feeds(2))
    assert host.cuda.taken == 0
    del session, bound
    gc.collect()
    assert host.ort.sessions[-1]() is None
    assert not host.cuda.objects, "streams, events"
    assert not host.cuda.memory


def test_what_waits_is_bounded_by_its_bytes(host: Host) -> None:
    with host.open() as session:
        session.idle_bytes = 0
        for batch in range(1, 6):
            run_bound(session, batch, 1)
        assert len(session._idle) == 2
        assert session.idle_bytes == 0
        assert all(bound.nbytes > 0 for _, bound in session._idle.values())


def test_states_that_do_not_fit_are_refused(host: Host) -> None:
    with host.open() as session:
        for carry in ({"next_b": "a"}, {"next_a": "a", "y": "a"}):
            with pytest.raises(BackendError, match="can't carry"):
                session.lend({"batch": 2}, carry)


def test_runs_that_only_begin_can_be_stopped(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_runs, "_wanted", True)
    monkeypatch.setattr(graph_runs, "_stoppable", [])
    monkeypatch.setattr(graph_runs, "_shared", {})
    with host.open() as session:
        run_bound(session, 1, 1)
        graph_runs.stop_runs()
        assert session._begins.terminate
        assert session.run_options.terminate
        assert session._begins is not session.run_options


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise UnavailableError("cuda-bindings is missing (No module named 'cuda'); pip install cuda-bindings")

    monkeypatch.setattr(device, "cuda", missing)


def test_without_cuda_bindings_inputs_pass_the_host(host: Host, reference: Any, without_cuda: None) -> None:
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        samples = model.sample(2, seed=5, num_inference_steps=4)
    np.testing.assert_array_equal(samples.array, reference(2, seed=5, num_inference_steps=4).array)
    source = OnnxBytes(onnx_bytes(GRAPH, NODES))
    with create_backend(host.backend).open(GRAPH, source, precision="fp32") as session:
        assert type(session) is OnnxRuntimeSession
        with session.bound({"batch": 2}, CARRY) as bound:
            assert isinstance(bound, DeviceBound)
    assert not any("user_compute_stream" in its for _, its in host.ort.told[-1])


def test_what_is_missing_for_it_is_explained(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_backend, "trial_link", lambda provider: Link("session", True, "a graph ran"))
    assert Link("buffers", True, "stay on the GPU") in chains()[host.backend].links


def test_what_is_missing_mends_one_command(host: Host, monkeypatch: Any, without_cuda: None) -> None:
    monkeypatch.setattr(onnxruntime_backend, "trial_link", lambda provider: Link("session", True, "a graph ran"))
    chain = chains()[host.backend]
    (link,) = [each for each in chain.links if each.what == "buffers"]
    assert link.found.endswith("pip install cuda-bindings")
    assert not chain.broken, "it runs all the same"
