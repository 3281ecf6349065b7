"""One backend serves while another gets ready."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.background import BackgroundBackend, BackgroundSession
from gensdk_runtime.backends.base import Availability, Backend, GraphSource, Session
from gensdk_runtime.backends.chain import PACKAGE, Link
from gensdk_runtime.backends.fake import FakeBackend
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.backends.tensorrt import needs
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, GensdkError, GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host import nvidia
from gensdk_runtime.host.nvidia import Driver
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

BUNDLE = "digits-ddpm"


class SlowBackend(Backend):
    """Opens nothing until it is let; then on the fake backend, or only the graph of that name."""

    name = "slow"

    def __init__(self, failure: Exception | None = None, only: str = "") -> None:
        self._only = only
        self.let = threading.Event()
        self.opening = threading.Event()
        self.sessions: list[Session] = []
        self._failure = failure

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True)

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        self.opening.set()
        assert self.let.wait(30)
        assert source.read()  # the bundle may be closed by now
        if self._failure is not None:
            raise self._failure
        same = self._only not in ("", graph.name)
        backend = OnnxRuntimeBackend(threads=1) if same else FakeBackend()
        self.sessions.append(backend.open(graph, source, precision=precision))
        return self.sessions[-1]


@contextmanager
def generator(slow: SlowBackend, now: Backend | None = None) -> Iterator[Generator]:
    backend = BackgroundBackend(now or OnnxRuntimeBackend(threads=1), lambda: slow, label="slow:background")
    try:
        with Bundle.open(BUNDLE) as bundle:
            loaded = Generator.load(bundle, backend=backend)
        with loaded:
            yield loaded
    finally:
        slow.let.set()


def sessions(loaded: Generator) -> list[BackgroundSession]:
    return [each for each in loaded.sessions.values() if isinstance(each, BackgroundSession)]


def step(loaded: Generator) -> BackgroundSession:
    session = loaded.sessions["step"]
    assert isinstance(session, BackgroundSession)
    return session


def finish(slow: SlowBackend, loaded: Generator) -> None:
    slow.let.set()
    assert all(session.wait(30) for session in sessions(loaded))


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found = {}
    for backend in (OnnxRuntimeBackend(threads=1), FakeBackend()):
        with Generator.load(BUNDLE, backend=backend) as loaded:
            found[backend.name] = loaded.sample(2, seed=0).array
    return found


def test_the_first_serves_until_the_second_is_ready(expected: dict[str, Any]) -> None:
    slow = SlowBackend()
    with generator(slow) as loaded:
        first = loaded.sample(2, seed=0)
        np.testing.assert_array_equal(first.array, expected["onnxruntime"])
        assert first.settings["backend"] == "onnxruntime"
        assert {session.backend for session in sessions(loaded)} == {"onnxruntime"}
        finish(slow, loaded)
        np.testing.assert_array_equal(loaded.sample(2, seed=0).array, expected["fake"])
        assert {session.backend for session in sessions(loaded)} == {"fake"}
        assert loaded.sample(1).settings["backend"] == "fake"


def test_a_call_ends_where_it_began(expected: dict[str, Any]) -> None:
    slow = SlowBackend()
    with generator(slow) as loaded:
        samples = loaded.sample(2, seed=0, callback_on_step_end=lambda step: finish(slow, loaded))
        np.testing.assert_array_equal(samples.array, expected["onnxruntime"])
        np.testing.assert_array_equal(loaded.sample(2, seed=0).array, expected["fake"])


def test_the_first_is_closed_when_its_last_caller_leaves() -> None:
    slow = SlowBackend()
    with generator(slow) as loaded:
        session = step(loaded)
        first = session._current
        with session.bound({"batch": 1, "guidance": 1}) as bound:
            finish(slow, loaded)
            assert not first.closed
            bound.run()
        assert first.closed
        loaded.sample(1)


def test_a_failure_is_said_once_and_the_first_stays(expected: dict[str, Any]) -> None:
    slow = SlowBackend(BackendError("no such engine"))
    with generator(slow) as loaded:
        finish(slow, loaded)
        with pytest.warns(UserWarning, match="stays on onnxruntime: no such engine"):
            loaded.sample(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(loaded.sample(2, seed=0).array, expected["onnxruntime"])


def test_what_nobody_expected_is_said_too() -> None:
    slow = SlowBackend(ZeroDivisionError("oh"))
    with generator(slow) as loaded:
        finish(slow, loaded)
        with pytest.warns(UserWarning, match="ZeroDivisionError: oh"):
            loaded.sample(1)


def test_closing_while_it_builds_closes_what_comes_later() -> None:
    slow = SlowBackend()
    with generator(slow) as loaded:
        assert slow.opening.wait(30)
        opened = sessions(loaded)
    with pytest.raises(BackendError, match="closed"):
        loaded.sample(1)
    slow.let.set()
    assert all(session.wait(30) for session in opened)
    assert all(session.closed for session in slow.sessions)


def test_threads_sample_while_it_changes_over(expected: dict[str, Any]) -> None:
    # Graphs change over one after another, embeddings between two time steps even: only one of them may be another
    # model's, where whole samples are to be told apart.
    slow = SlowBackend(only="step")
    with generator(slow) as loaded, ThreadPoolExecutor(4) as pool:
        results = [pool.submit(lambda: loaded.sample(2, seed=0).array) for _ in range(12)]
        finish(slow, loaded)
        after = loaded.sample(2, seed=0).array
        assert not np.array_equal(after, expected["onnxruntime"])
        known = {expected["onnxruntime"].tobytes(), after.tobytes()}
        assert {result.result().tobytes() for result in results} <= known


def test_it_goes_by_name(expected: dict[str, Any]) -> None:
    with Generator.load(BUNDLE, backend="fake:background") as loaded:
        assert all(session.wait(30) for session in sessions(loaded))
        np.testing.assert_array_equal(loaded.sample(2, seed=0).array, expected["fake"])
    with pytest.raises(InputError, match="did you mean 'tensorrt'"):
        create_backend("tensorr:background")


def test_a_failure_is_in_the_settings_and_told_at_the_end() -> None:
    slow = SlowBackend(BackendError("no such engine"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with generator(slow) as loaded:
            assert "fallback" not in loaded.sample(1).settings
            finish(slow, loaded)
            assert not told
    said = [str(each.message) for each in told]
    assert "graph 'step' stays on onnxruntime: no such engine" in said
    assert len(said) == len(set(said))
    assert not any("shallow_step" in each for each in said), "which was not used"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with generator(slow) as loaded:
            finish(slow, loaded)
            assert "graph 'step' stays on onnxruntime: no such" in loaded.sample(1).settings["fallback"]
    assert {Path(each.filename).name for each in told} == {Path(__file__).name}
    assert {each.category for each in told} == {GensdkWarning}


def refused(spec: str) -> str:
    with pytest.raises(GensdkError) as failure:
        create_backend(spec)
    return str(failure.value)


def test_what_cannot_come_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_driver", lambda visible: Driver(problem="no NVIDIA driver was found"))
    assert "NVIDIA" in refused("onnxruntime:cuda:background") or "CUDA" in refused("onnxruntime:cuda:background")
    monkeypatch.setattr(needs, "is_installed", lambda runtime: True)
    for spec in ("tensorrt:background", "tensorrt:rtx:background", "tensorrt:classic:background"):
        assert refused(spec).startswith("no NVIDIA ")
    assert "known: background, classic, rtx" in refused("tensorrt:nonsense:background")
    assert "did you mean 'background'?" in refused("tensorrt:backgroud")
    monkeypatch.setattr(needs, "is_installed", lambda runtime: False)
    monkeypatch.setattr(needs, "_package_link", lambda runtime: Link(PACKAGE, False, "it is missing", "get it"))
    assert refused("tensorrt:background") == "it is missing; get it"


def test_auto_stands_alone_and_something_follows_a_colon() -> None:
    for spec in ("auto:cuda", "auto:background"):
        assert refused(spec).startswith("'auto' chooses among the backends by measurement and stands alone")
    for spec in ("onnxruntime:", "tensorrt:", "openvino::background", "fake:"):
        assert refused(spec).startswith("expected a provider behind the colon")
