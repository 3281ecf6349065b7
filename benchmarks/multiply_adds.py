"""Counts the multiply-adds of ONNX graphs, and measures how many a second this machine makes at best."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from workloads import Case
from workloads.prepare import Prepared

from gensdk_runtime.host.child_process import run_module
from gensdk_runtime.spec.model import AutoregressiveSpec

_SIZES = (512, 1024, 1536, 2048)
_TRIALS = 6


def of_sampling(prepared: Prepared, case: Case) -> int:
    """Multiply-adds of the convolutions and matrix products of one whole sampling."""
    model = prepared.describe()
    program = model.program
    if isinstance(program, AutoregressiveSpec):
        _, height, width = model.output.shape
        row, pixel = (prepared.graph(name) for name in (program.row_graph, program.pixel_graph))
        return height * of_graph(row, case.batch) + height * width * of_graph(pixel, case.batch)
    name = "step" if case.steps else program.graph
    return (case.steps or 1) * of_graph(prepared.graph(name), case.batch)


def of_graph(path: Path, batch: int) -> int:
    """Multiply-adds of one run: a part for each sample, and a part that all share (such as a time embedding)."""
    one, two = (_of_run(path, size) for size in (1, 2))
    return one + (batch - 1) * (two - one)


def _of_run(path: Path, batch: int) -> int:
    """Runs the graph on zeros with the tensors around each counted operator as outputs: their shapes tell."""
    model = onnx.load(path)
    counted = [node for node in model.graph.node if node.op_type in _COUNTS]
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {name for node in counted for name in (*node.input[:2], node.output[0])} - set(constants)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {
        tensor.name: np.zeros(
            [axis if isinstance(axis, int) else batch for axis in tensor.shape],
            np.int64 if tensor.type == "tensor(int64)" else np.float32,
        )
        for tensor in session.get_inputs()
    }
    found = dict(zip(sorted(wanted), (array.shape for array in session.run(sorted(wanted), feeds)), strict=True))
    return sum(_COUNTS[node.op_type](node, constants | found) for node in counted)


def _conv(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Each output value is a sum over the kernel and the input channels of its group."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _conv_transpose(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Each input value goes into the kernel and the output channels of its group."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _matmul(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


_COUNTS: dict[str, Callable[[Any, Mapping[str, tuple[int, ...]]], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
}


def machine_peak(environment: Mapping[str, str]) -> dict[str, float]:
    """Float32 multiply-adds a second of square matrix products: the best of several sizes, by torch and by numpy.

    Each library in a process of its own. Fractions are told of the larger of the two.
    """
    found = {}
    for library in ("torch", "numpy"):
        done = run_module(
            "multiply_adds", library, timeout=120, paths=[Path(__file__).parent], environment=environment
        )
        if done.code:
            raise RuntimeError(f"{library} multiplies no matrices: {done.errors.strip()[-300:]}")
        found[library] = float(json.loads(done.output))
    return found


def _measure_peak(library: str) -> float:
    if library == "torch":
        import torch

        make: Callable[[int], Any] = lambda n: torch.rand(n, n)  # noqa: E731
    else:
        make = lambda n: np.random.default_rng(0).random((n, n), np.float32)  # noqa: E731
    best = 0.0
    for n in _SIZES:
        a, b = make(n), make(n)
        for _ in range(_TRIALS):
            start = time.perf_counter()
            a @ b
            best = max(best, n**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    print(json.dumps(_measure_peak(sys.argv[1])))
