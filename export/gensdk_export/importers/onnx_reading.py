"""Somebody else's ONNX file: read within limits, whole in itself, its inputs and outputs known.

It does not: take files that need another file outside their folder, random operators, operators of one runtime
alone, or training graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, helper, inliner, version_converter

from gensdk_export.first_load import first_load
from gensdk_export.importers.import_report import Guess, check_size
from gensdk_export.onnx import RANDOM_OPERATORS, nodes_of
from gensdk_runtime.errors import ExportError, InputError, IntegrityError
from gensdk_runtime.onnx_scan import external_locations
from gensdk_runtime.signature import check_path

MAX_BYTES = 2**30
"""Of a file and of all that it needs beside it, each."""
OLDEST_OPSET = 13
"""Older files are converted to it: from here on shapes and axes are inputs, and quantization has channels."""


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
    """`data`: the file as it came, with what lay beside it inside; `model`: the same, parsed, for a bundle."""

    path: Path
    data: bytes
    model: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    guesses: tuple[Guess, ...]

    @property
    def opset(self) -> int:
        """The version of the standard operators in `model`."""
        return opset_of(self.model)


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
    first_load({path.name: data})
    ports = tuple(_port(value) for value in model.graph.input), tuple(_port(value) for value in model.graph.output)
    model, guesses = _modern(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(port for port in ports[0] if port.name not in weights)
    return OnnxFile(path, data, model, inputs, ports[1], guesses)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _parse(path: Path, data: bytes) -> tuple[onnx.ModelProto, bool]:
    """The model with all its tensors inside, and whether they all were in the file."""
    try:
        locations = external_locations(data)
    except IntegrityError as failure:
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
    """Files beside the model: plain relative paths to real files in its folder, small enough together."""
    total = 0
    for location in locations:
        try:
            check_path(location)
        except ValueError as failure:
            raise InputError(f"{path}: its weights lie outside its folder: {failure}") from None
        beside = path.parent / location
        if beside.is_symlink() or not beside.resolve().is_relative_to(path.parent.resolve()):
            raise InputError(f"{path}: its weights lie behind a link, {location!r}; copy them beside the model")
        if not beside.is_file():
            raise InputError(f"{path}: its weights are missing: expected {location!r} in the folder of the model")
        total += beside.stat().st_size
    if total > MAX_BYTES:
        raise InputError(f"{path}: expected at most {MAX_BYTES} bytes of weights beside it, got {total}")


def _refuse(path: Path, model: onnx.ModelProto) -> None:
    """What no bundle may hold. Functions are written out before that is looked for elsewhere."""
    if model.training_info:
        raise ExportError(f"{path}: it holds a training graph; export the model for inference")
    for node in (*nodes_of(model.graph), *(node for function in model.functions for node in function.node)):
        if node.op_type in RANDOM_OPERATORS:
            raise ExportError(
                f"{path}: operator {node.op_type} is random; export the model with its noise as an input"
            )


def _modern(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[Guess, ...]]:
    """Functions written out, weights no inputs, and of an operator set that is new enough where it can be."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    old = opset_of(model)
    if old >= OLDEST_OPSET:
        return model, ()
    try:
        converted = version_converter.convert_version(model, OLDEST_OPSET)
        onnx.checker.check_model(converted)
    except Exception as failure:  # the converter raises whatever its C++ raises
        kept = Guess("operators", f"opset {old}, as they are", f"they can't be converted: {_line(failure)}")
        return model, (kept,)
    told = Guess("operators", f"opset {OLDEST_OPSET}", f"converted from opset {old}")
    return converted, (told,)


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ExportError(f"{value.name!r} is no tensor but a {value.type.WhichOneof('value')}; not supported")
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
