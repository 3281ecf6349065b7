"""CUDA graphs of ONNX Runtime's, where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.onnxruntime import captures
from gensdk_runtime.errors import InputError, UnavailableError

pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

from support.onnxruntime_here import (
    Host,
    expected_after,
    onnxruntime_here,
    run_bound,
    some_feeds,
    take_cuda_away,
)


@pytest.fixture
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return onnxruntime_here("onnxruntime:cuda:graphs", monkeypatch, tmp_path)


def test_runs_are_captured_for_each_turn(graphs: Host) -> None:
    with graphs.open() as session:
        for runs in (1, 2, 7, 4):
            np.testing.assert_array_equal(run_bound(session, 3, runs), expected_after(runs, some_feeds(3)))
            np.testing.assert_array_equal(session.run(some_feeds(5))["next_a"], expected_after(1, some_feeds(5)))
        np.testing.assert_array_equal(run_bound(session, 4, 9), expected_after(9, some_feeds(4)))
    assert graphs.cuda.calls["captured"] == 4, "two turns of two sizes"
    assert graphs.cuda.calls["launched"] == 14 + 9 - 4 - 2 * captures.PLAIN_RUNS
    assert session.backend == "onnxruntime:cuda:graphs"


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
def test_graphs_are_of_cuda_alone(graphs: Host, provider: str) -> None:
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


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    take_cuda_away(monkeypatch)
