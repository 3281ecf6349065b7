"""Verdicts follow the whole interval; multiply-adds are those of the textbook."""

from __future__ import annotations

from pathlib import Path

import multiply_adds
import numpy as np
import onnx
import pytest
from claims import figures_of
from compare_report import Outcome, print_outcome, write_outcome
from figures import Bound, Figure, at_least, at_most, ratio
from onnx import TensorProto, helper
from sidebyside import Result, Timing
from workloads import Case

from gensdk_runtime.bench.machine import this_machine


@pytest.mark.parametrize(
    ("bound", "low", "high", "verdict"),
    [
        (at_most(1.03), 0.9, 1.0, "holds"),
        (at_most(1.03), 1.0, 1.1, "can't tell"),
        (at_most(1.03), 1.04, 1.1, "MISSES"),
        (at_least(5), 5.0, 6.0, "holds"),
        (at_least(5), 4.0, 6.0, "can't tell"),
        (at_least(5), 4.0, 4.9, "MISSES"),
    ],
)
def test_verdicts(bound: Bound, low: float, high: float, verdict: str) -> None:
    assert Figure("g", "w", (low + high) / 2, low, high, bound).verdict == verdict


def test_what_was_not_measured_neither_holds_nor_misses() -> None:
    assert Figure("g", "w", None, bound=at_most(1)).verdict == "not measured"
    assert not Figure("g", "w", 2.0).verdict


def test_the_drift_of_the_machine_cancels_and_empty_rounds_do_not_count() -> None:
    rng = np.random.default_rng(0)
    drift = np.exp(np.cumsum(rng.normal(0, 0.3, 12)))
    old = [speed * rng.lognormal(0, 0.02, 5) for speed in drift]
    new = [1.5 * speed * rng.lognormal(0, 0.02, 5) for speed in drift]
    new[3] = np.zeros(0)
    found = ratio(new, old, scale=2.0)
    assert found.low < 3.0 < found.high
    assert found.high / found.low < 1.2


def test_multiply_adds(tmp_path: Path) -> None:
    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, [0.0] * int(np.prod(shape)))

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2], group=2),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "product"], ["d"]),
        helper.make_node("Gemm", ["d", "gemm"], ["y"], transB=1),
    ]
    weights = [constant("conv", 6, 2, 3, 3), constant("up", 6, 5, 2, 2)]
    weights += [constant("product", 5 * 64, 7), constant("gemm", 3, 7)]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    conv, up = 6 * 4 * 4 * (2 * 9), 6 * 4 * 4 * (5 * 4)
    assert multiply_adds.of_graph(path, 3) == 3 * (conv + up + 5 * 64 * 7 + 7 * 3)


def result() -> Result:
    def timing(ms: float, **more: object) -> Timing:
        rounds = [ms * np.exp(np.random.default_rng(i).normal(0, 0.01, 4)) for i in range(5)]
        return Timing(**{"scale": 1.0, "whole": True, "open_ms": 1.0, "first_ms": 1.0, **more}, rounds=rounds)  # type: ignore[arg-type]

    found = Result("digits-ddpm", Case(1, 10))
    found.timings = {"gensdk": timing(1), "onnxruntime": timing(1.1), "diffusers": timing(8)}
    found.differences = {"onnxruntime": 1e-6, "diffusers": 2e-3}
    found.failures = {"openvino": "died"}
    return found


def test_claims_of_a_case() -> None:
    figures = {figure.group: figure for figure in figures_of([result()])}
    assert figures["same pictures"].verdict == "MISSES"
    assert "diffusers" in figures["same pictures"].detail
    assert figures["auto against the best peer"].verdict == "holds"
    assert figures["times faster than diffusers"].verdict == "holds"
    assert figures["times faster than diffusers"].value == pytest.approx(8, rel=0.05)


def test_the_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result()
    outcome = Outcome(
        created="now",
        seconds=1.0,
        machine=this_machine(),
        versions={"numpy": np.__version__},
        peak={"numpy": 1e9},
        work={"digits-ddpm, batch 1, 10 steps": 500_000},
        results=[found],
        figures=figures_of([found]),
        notes=["a note"],
    )
    assert outcome.fraction(found, "gensdk") == pytest.approx(0.5, rel=0.05)
    print_outcome(outcome)
    printed = capsys.readouterr().out
    assert "MISSES" in printed
    assert "died" in printed
    pytest.importorskip("matplotlib")
    file, picture = write_outcome(outcome, tmp_path)
    assert file.stat().st_size > 0
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
