"""Reads a third-party ONNX file: within limits, whole in itself, its inputs and outputs known.

It does not: take files that need another file outside their folder, random operators, operators of one runtime
alone, or training graphs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper

from gensdk_export.importers.import_report import Guess, check_size
from gensdk_export.importers.onnx.modern import kept_as_it_is, modernize, opset_of
from gensdk_export.isolated_load import load_isolated
from gensdk_export.onnx_check import RANDOM_OPERATORS, nodes_of
from gensdk_runtime.errors import ExportError, InputError, IntegrityError
from gensdk_runtime.onnx_files.scan import external_locations

MAX_BYTES = 2**30
"""Of a file and of all that it needs beside it, each."""


BFLOAT16 = "ONNX Runtime has no bfloat16 on the CPU; export the model with model.float() or model.half()"


@dataclass(frozen=True)
class Port:
    """An input or an output: a NumPy `dtype`, and sizes, names or nothing (None) for its axes.

    `shape` is None where the file does not even say how many axes there are.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def text(self) -> str:
        """Name, type and shape."""
        axes = "of any shape" if self.shape is None else f"[{', '.join(str(axis or '?') for axis in self.shape)}]"
        return f"{self.name!r} {self.dtype} {axes}"


@dataclass(frozen=True)
class OnnxFile:
    """`data`: the file as it came, with what lay beside it inside; `model`: the same, parsed, for a bundle.

    `kept`: the model in its own operator set, where `model` was converted from an old one. `alone`: images of one
    batch would change each other. `half`: some of its numbers are float16.
    """

    path: Path
    data: bytes
    model: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    guesses: tuple[Guess, ...]
    kept: onnx.ModelProto | None = None
    alone: bool = False
    half: bool = False

    @property
    def opset(self) -> int:
        """The version of the standard operators in `model`."""
        return opset_of(self.model)

    def unconverted(self, reason: str) -> OnnxFile:
        """The same in its own operator set, because of `reason`; itself where it was not converted."""
        if self.kept is None:
            return self
        others = tuple(guess for guess in self.guesses if guess.what != "operators")
        told = (*others, kept_as_it_is(opset_of(self.kept), reason))
        return replace(self, model=self.kept, kept=None, guesses=told)


def read_onnx(path: Path) -> OnnxFile:
    """Reads and checks `path`, and loads it once in ONNX Runtime, in a process of its own.

    Raises :class:`InputError` where it is no ONNX file, too large, or reaches outside its folder, and
    :class:`ExportError` where it holds what no bundle may hold, or ONNX Runtime does not take it.
    """
    check_size(path, MAX_BYTES)
    data = path.read_bytes()
    model, whole = _parse(path, data)
    if not whole:
        data = model.SerializeToString()
    _refuse(path, model)
    _load_once(path, data, model)
    ports = tuple(_port(value) for value in model.graph.input), tuple(_port(value) for value in model.graph.output)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(port for port in ports[0] if port.name not in weights)
    half = _holds_half(model)
    modern = modernize(path, model)
    return OnnxFile(
        path, data, modern.model, inputs, ports[1], modern.guesses, kept=modern.kept, alone=modern.alone, half=half
    )


def _parse(path: Path, data: bytes) -> tuple[onnx.ModelProto, bool]:
    """The model with all its tensors inside, and whether they all were in the file."""
    try:
        locations = external_locations(data)
    except IntegrityError as failure:
        if str(failure).startswith("it "):  # whole, and something that is not run
            raise InputError(f"{path}: {failure}") from None
        raise InputError(f"{path}: expected an ONNX file, got something else ({failure})") from None
    _check_locations(path, locations)
    try:
        model = onnx.load_model_from_string(data)
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as failure:  # protobuf's and onnx's exceptions share no base but Exception
        raise InputError(f"{path}: not readable as ONNX ({_line(failure)})") from None
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path}: expected an ONNX model, got a file without nodes or outputs")
    return model, not locations


def _check_locations(path: Path, locations: tuple[str, ...]) -> None:
    """Files beside the model: relative paths to real files in its folder, small enough together.

    Their names may hold any letters that the file system keeps, as exporters write them after the model's name.
    """
    total = 0
    for location in locations:
        if not _stays_inside(location):
            where = f"{location[:80]!r}; copy them beside the model"
            raise InputError(f"{path}: its weights lie outside its folder, {where}")
        beside = path.parent / location
        if beside.is_symlink() or not beside.resolve().is_relative_to(path.parent.resolve()):
            raise InputError(f"{path}: its weights lie behind a link, {location!r}; copy them beside the model")
        if not beside.is_file():
            raise InputError(f"{path}: its weights are missing: expected {location!r} in the folder of the model")
        total += beside.stat().st_size
    if total > MAX_BYTES:
        raise InputError(f"{path}: expected at most {MAX_BYTES} bytes of weights beside it, got {total}")


def _load_once(path: Path, data: bytes, model: onnx.ModelProto) -> None:
    try:
        load_isolated({path.name: data})
    except ExportError as failure:
        if any(tensor.data_type == TensorProto.BFLOAT16 for tensor in model.graph.initializer):
            raise ExportError(f"{path}: its weights are bfloat16; {BFLOAT16}") from None
        raise failure from None


def _stays_inside(location: str) -> bool:
    """True if it is a relative path without a way up, here and on Windows."""
    parts = location.replace("\\", "/").split("/")
    drive = os.name == "nt" and ":" in location
    return location.isprintable() and len(location) <= 1024 and not drive and not {"", ".."} & set(parts)


def _holds_half(model: onnx.ModelProto) -> bool:
    """True if a weight, an input or a cast is float16."""
    values = (*model.graph.input, *model.graph.output)
    types = {value.type.tensor_type.elem_type for value in values} | {
        tensor.data_type for tensor in model.graph.initializer
    }
    nodes = (*nodes_of(model.graph), *(node for function in model.functions for node in function.node))
    types |= {each.t.data_type for node in nodes for each in node.attribute if each.name == "value"}
    types |= {each.i for node in nodes if node.op_type == "Cast" for each in node.attribute if each.name == "to"}
    return TensorProto.FLOAT16 in types


def _refuse(path: Path, model: onnx.ModelProto) -> None:
    """What no bundle may hold. Functions are written out before that is looked for elsewhere."""
    if model.training_info:
        raise ExportError(f"{path}: it holds a training graph; export the model for inference")
    for node in (*nodes_of(model.graph), *(node for function in model.functions for node in function.node)):
        if node.op_type in RANDOM_OPERATORS:
            raise ExportError(
                f"{path}: operator {node.op_type} is random; export the model with its noise as an input"
            )


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ExportError(f"{value.name!r} is no tensor but a {value.type.WhichOneof('value')}; not supported")
    if tensor.elem_type == TensorProto.BFLOAT16:
        raise ExportError(f"{value.name!r} is bfloat16; {BFLOAT16}")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError):
        raise ExportError(f"{value.name!r} has the type {tensor.elem_type}, which NumPy has not") from None
    if dtype.kind not in "fiub":
        raise ExportError(f"{value.name!r} is {dtype}; expected floats of 16, 32 or 64 bits, or whole numbers")
    if not tensor.HasField("shape"):
        return Port(value.name, dtype.name, None)
    return Port(value.name, dtype.name, tuple(_axis(dim) for dim in tensor.shape.dim))


def _axis(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return dim.dim_param or None


def _line(failure: BaseException) -> str:
    return " ".join(str(failure).split())[:200]
