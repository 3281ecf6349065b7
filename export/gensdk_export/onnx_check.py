"""Checks of every ONNX file of a bundle: valid, whole in itself, deterministic, and as its signature says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

MAX_IR_VERSION = 10
"""The newest file format that ONNX Runtime 1.20 and TensorRT both read."""

RANDOM_OPERATORS = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
)


def check_onnx(model: onnx.ModelProto, graph: GraphSpec, file: Path | None = None) -> None:
    """Raises :class:`ExportError` unless `model` is valid, self-contained, deterministic, and is `graph`.

    `file`: where it lies beside its weights, if it has some outside of it.
    """
    where = f"graph {graph.name!r}"
    for node in nodes_of(model.graph):
        if node.op_type in RANDOM_OPERATORS:
            raise ExportError(f"{where}: operator {node.op_type} is random; make its noise an input")
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(f"{where}: operator {node.domain}.{node.op_type} is no standard ONNX operator")
    if model.functions:
        raise ExportError(f"{where}: function {model.functions[0].name!r} was left in the file")
    if file is None and any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportError(f"{where}: it has weights in other files, which are not at hand; put them into it")
    _check_signature(where, "input", model.graph.input, graph.inputs)
    _check_signature(where, "output", model.graph.output, graph.outputs)
    try:
        onnx.checker.check_model(model if file is None else str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as failure:
        raise ExportError(f"{where}: the exported file is not valid ONNX: {innermost(failure)}") from failure


def _check_signature(where: str, kind: str, values: Any, specs: tuple[TensorSpec, ...]) -> None:
    got = [value.name for value in values]
    if got != [spec.name for spec in specs]:
        raise ExportError(f"{where}: expected {kind}s {[spec.name for spec in specs]}, the module has {got}")
    for value, spec in zip(values, specs, strict=True):
        tensor = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype != np.dtype(spec.dtype):
            raise ExportError(f"{where}: {kind} {spec.name!r} should be {spec.dtype}, the module has {dtype}")
        shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
        if shape != list(spec.shape):
            raise ExportError(
                f"{where}: {kind} {spec.name!r} should have shape {list(spec.shape)}, the export has {shape}; "
                "where a named axis became another one, the module's code fixed it"
            )


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from nodes_of(subgraph)


def resize_axes(graph: GraphSpec, feeds: Feeds, sizes: Mapping[str, int]) -> dict[str, Array]:
    """`feeds` with each named axis cut or repeated to its size in `sizes` (axes not in it stay)."""
    resized = {}
    for spec in graph.inputs:
        array = feeds[spec.name]
        for axis, name in enumerate(spec.shape):
            if isinstance(name, str) and name in sizes:
                array = np.take(array, np.arange(sizes[name]) % array.shape[axis], axis=axis)
        resized[spec.name] = array
    return resized


def innermost(failure: BaseException) -> str:
    """The innermost cause in one line: the exporter wraps what went wrong in pages of advice."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
