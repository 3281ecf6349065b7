"""Small ONNX graphs with the specs that a manifest would give them, and a source to load them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


@dataclass(frozen=True)
class OnnxBytes:
    """A GraphSource over bytes."""

    data: bytes
    path: Path | None = None

    def read(self) -> bytes:
        return self.data


def spec(*shape: int | str, dtype: str = "float32") -> tuple[str, tuple[int | str, ...]]:
    return dtype, shape


def graph_spec(
    inputs: dict[str, tuple[str, tuple[int | str, ...]]], outputs: dict[str, tuple[str, tuple[int | str, ...]]]
) -> GraphSpec:
    def tensors(specs: dict[str, tuple[str, tuple[int | str, ...]]]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, dtype=dtype, shape=shape, role="state")  # type: ignore[arg-type]
            for name, (dtype, shape) in specs.items()
        )

    return GraphSpec(name="g", inputs=tensors(inputs), outputs=tensors(outputs))


def onnx_bytes(
    graph: GraphSpec,
    nodes: Sequence[NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    types: dict[str, int] | None = None,
) -> bytes:
    """A file with the inputs of `graph`, and its outputs in any shape; `types` are other output types."""
    inputs = [helper.make_tensor_value_info(t.name, ONNX_TYPES[t.dtype], list(t.shape)) for t in graph.inputs]
    outputs = [
        helper.make_tensor_value_info(t.name, (types or {}).get(t.name, ONNX_TYPES[t.dtype]), None)
        for t in graph.outputs
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    proto = helper.make_graph(list(nodes), graph.name, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 21)]
    data: bytes = helper.make_model(proto, opset_imports=opsets, ir_version=10).SerializeToString()
    return data
