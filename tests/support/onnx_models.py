"""Small ONNX files as other people's tools write them, to be imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

FLOAT, UINT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64
Value = tuple[str, int, Sequence[Any]]


def write_onnx(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "somebody's",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, str(path))
    return path


def convolution(
    channels: int = 3, outputs: int = 3, *, spread: float = 0.4, seed: int = 0
) -> dict[str, np.ndarray]:
    """Weights of a 3x3 convolution that hardly changes the range of what goes in."""
    generator = np.random.default_rng(seed)
    weight = spread * generator.standard_normal((outputs, channels, 3, 3)).astype(np.float32) / 3
    for out in range(outputs):
        weight[out, out % channels, 1, 1] += 1.0
    return {"weight": weight, "bias": 0.05 * generator.standard_normal(outputs).astype(np.float32)}


def run_onnx(path: Path, **feeds: np.ndarray) -> np.ndarray:
    """The file's first output, by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def conv(name_in: str, name_out: str, **attributes: Any) -> NodeProto:
    return helper.make_node("Conv", [name_in, "weight", "bias"], [name_out], pads=[1, 1, 1, 1], **attributes)
