"""ONNX Runtime in a stream and over memory of ours: it computes the same, also where something fails."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from gensdk_runtime.backends import chains, create_backend
from gensdk_runtime.backends.chain import Link
from gensdk_runtime.backends.onnxruntime import backend as onnxruntime_backend
from gensdk_runtime.backends.onnxruntime import graph_runs
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.backends.onnxruntime.buffers import DeviceBound
from gensdk_runtime.backends.onnxruntime.session import OnnxRuntimeSession
from gensdk_runtime.errors import BackendError, OutOfMemoryError
from gensdk_runtime.generator import Generator
from support.onnx_graphs import OnnxBytes, onnx_bytes

pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

from support.onnxruntime_here import (
    CARRY,
    GRAPH,
    NODES,
    Host,
    expected_after,
    onnxruntime_here,
    run_bound,
    some_feeds,
    take_cuda_away,
)


@pytest.fixture(params=["cuda", "tensorrt"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return onnxruntime_here(f"onnxruntime:{request.param}", monkeypatch, tmp_path)


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


def test_the_real_bindings_take_what_the_double_takes() -> None:
    """Of the CPU's memory, for want of a GPU."""
    session = onnxruntime.InferenceSession(onnx_bytes(GRAPH, NODES), providers=["CPUExecutionProvider"])
    arrays = some_feeds(3) | {each.name: np.zeros((3, 3), np.float32) for each in GRAPH.outputs}
    binding = session.io_binding()
    for specs, bind in ((GRAPH.inputs, binding.bind_input), (GRAPH.outputs, binding.bind_output)):
        for each in specs:
            array = arrays[each.name]
            bind(each.name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
    session.run_with_iobinding(binding, graph_runs.beginning(onnxruntime))
    np.testing.assert_array_equal(arrays["next_a"], expected_after(1, arrays))
    places = (*session.get_input_memory_infos(), *session.get_output_memory_infos())
    assert {(place.name, place.device_vendor_id, place.device_mem_type.name) for place in places} == {
        ("Cpu", 0, "DEFAULT")
    }


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
    take_cuda_away(monkeypatch)


def test_without_cuda_bindings_inputs_pass_the_host(host: Host, without_cuda: None) -> None:
    options: dict[str, Any] = {"seed": 5, "num_inference_steps": 4}
    with Generator.load("digits-ddpm", backend=OnnxRuntimeBackend(threads=1)) as model:
        expected = model.sample(2, **options).array
    with Generator.load("digits-ddpm", backend=host.backend) as model:
        np.testing.assert_array_equal(model.sample(2, **options).array, expected)
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
