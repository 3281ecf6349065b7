"""The nodes of an ONNX file, read without the onnx package: operators, attributes, and what small weights hold.

For bytes that :func:`gensdk_runtime.onnx_files.scan.scan` has walked; field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.onnx_files.fields import fields, varint
from gensdk_runtime.onnx_files.scan import scan

MAX_VALUES = 2**16
"""Numbers of a weight that are read; of a larger one the shape is enough."""

_TYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
    12: np.dtype("<u4"),
    13: np.dtype("<u8"),
}
"""TensorProto.DataType, as raw bytes."""
Values = NDArray[Any]


@dataclass(frozen=True)
class OnnxTensor:
    """A weight: its shape, and its `value` where it is small and its type is one of NumPy's."""

    shape: tuple[int, ...]
    value: Values | None


@dataclass(frozen=True)
class OnnxNode:
    """One node; `attributes`: ints, floats, strings, lists of them, and tensors. What is left out is not there."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxGraph:
    """The main graph of a file: its nodes in order, its weights by name, and the version of ONNX's operators."""

    nodes: tuple[OnnxNode, ...]
    weights: Mapping[str, OnnxTensor]
    opset: int


def read_graph(data: bytes) -> OnnxGraph:
    """Reads the main graph; :class:`IntegrityError` for bytes that are no ONNX file."""
    scan(data)  # after which lengths are what they say
    nodes, weights, opset = list[OnnxNode](), dict[str, OnnxTensor](), 1
    try:
        for found in fields(data, 0, len(data)):
            if found.number == 8:
                opset = max(opset, _opset(data, found.start, found.end))
            elif found.number == 7:
                for inner in fields(data, found.start, found.end):
                    if inner.number == 1:
                        nodes.append(_node(data, inner.start, inner.end))
                    elif inner.number == 5:
                        name, tensor = _tensor(data, inner.start, inner.end)
                        weights[name] = tensor
    except (IndexError, KeyError, ValueError, struct.error) as failure:
        raise IntegrityError(f"malformed ONNX: a node can't be read ({str(failure)[:80]})") from None
    return OnnxGraph(tuple(nodes), weights, opset)


def _opset(data: bytes, start: int, end: int) -> int:
    """The version, where it is that of ONNX's own operators; otherwise 0."""
    domain, version = "", 0
    for found in fields(data, start, end):
        if found.number == 1:
            domain = data[found.start : found.end].decode()
        elif found.number == 2:
            version = varint(data, found.start, found.end)[0]
    return version if domain in ("", "ai.onnx") else 0


def _node(data: bytes, start: int, end: int) -> OnnxNode:
    inputs, outputs, attributes, operator, domain = list[str](), list[str](), dict[str, Any](), "", ""
    for found in fields(data, start, end):
        part = (data, found.start, found.end)
        if found.number == 1:
            inputs.append(_text(*part))
        elif found.number == 2:
            outputs.append(_text(*part))
        elif found.number == 4:
            operator = _text(*part)
        elif found.number == 5:
            name, value = _attribute(*part)
            attributes[name] = value
        elif found.number == 7:
            domain = _text(*part)
    return OnnxNode(operator, domain, tuple(inputs), tuple(outputs), attributes)


def _attribute(data: bytes, start: int, end: int) -> tuple[str, Any]:
    """Name and value. A subgraph has the value None: a caller that needs it must know the operator."""
    name, value, integers, floats, strings = "", None, list[int](), list[float](), list[str]()
    for found in fields(data, start, end):
        part = (data, found.start, found.end)
        if found.number == 1:
            name = _text(*part)
        elif found.number == 2:
            value = struct.unpack("<f", data[found.start : found.end])[0]
        elif found.number == 3:
            value = _signed(varint(data, found.start, found.end)[0])
        elif found.number == 4:
            value = _text(*part)
        elif found.number == 5:
            value = _tensor(*part)[1]
        elif found.number == 7:
            floats += struct.unpack(f"<{(found.end - found.start) // 4}f", data[found.start : found.end])
        elif found.number == 8:
            integers += _integers(*part)
        elif found.number == 9:
            strings.append(_text(*part))
    lists: tuple[list[Any], ...] = (integers, floats, strings)
    return name, value if value is not None else next((each for each in lists if each), None)


@dataclass(frozen=True)
class TensorFields:
    """A tensor as it lies in a file: `raw`, where its bytes are, or `numbers`, of which long rows are left out."""

    name: str
    type: int
    shape: tuple[int, ...]
    raw: tuple[int, int] | None
    numbers: list[Any]


def tensor_fields(data: bytes, start: int, end: int) -> TensorFields:
    """The TensorProto in ``data[start:end]``."""
    shape, name, kind, raw, numbers = list[int](), "", 0, None, list[Any]()
    for found in fields(data, start, end):
        part = (data, found.start, found.end)
        if found.number == 1:
            shape += _integers(*part)
        elif found.number == 2:
            kind = varint(*part)[0]
        elif found.number == 8:
            name = _text(*part)
        elif found.number == 9:
            raw = (found.start, found.end)
        elif found.number == 4 and found.end - found.start <= 4 * MAX_VALUES:
            numbers += struct.unpack(f"<{(found.end - found.start) // 4}f", data[found.start : found.end])
        elif found.number in (5, 7) and found.end - found.start <= 10 * MAX_VALUES:
            numbers += _integers(*part)
    return TensorFields(name, kind, tuple(shape), raw, numbers)


def _tensor(data: bytes, start: int, end: int) -> tuple[str, OnnxTensor]:
    found = tensor_fields(data, start, end)
    if any(size < 0 for size in found.shape):
        raise ValueError("a negative size")
    return found.name, OnnxTensor(found.shape, _value(data, found))


def _value(data: bytes, tensor: TensorFields) -> Values | None:
    dtype, count = _TYPES.get(tensor.type), prod(tensor.shape)
    if dtype is None or count > MAX_VALUES:
        return None
    if tensor.raw is not None:
        found = np.frombuffer(data[slice(*tensor.raw)], dtype)
    elif tensor.type == 10:
        found = np.asarray(tensor.numbers, np.uint16).view(np.float16)
    else:
        found = np.asarray(tensor.numbers).astype(dtype)
    return found.reshape(tensor.shape) if found.size == count else None


def _integers(data: bytes, start: int, end: int) -> Iterator[int]:
    """A packed list, or one number by itself: both are a row of varints."""
    while start < end:
        value, start = varint(data, start, end)
        yield _signed(value)


def _signed(value: int) -> int:
    """64 bits in two's complement."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _text(data: bytes, start: int, end: int) -> str:
    return data[start:end].decode("utf-8", "replace")
