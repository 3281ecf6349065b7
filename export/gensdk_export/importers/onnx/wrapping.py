"""Wraps a third-party graph in one of ours: `source`, noise and `label` go in, `image` comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gensdk_export.importers.onnx.extra_inputs import Label
from gensdk_export.importers.onnx.meaning import Meaning, Picture
from gensdk_export.importers.onnx.modern import opset_of
from gensdk_export.importers.onnx.original import noise_name
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_export.onnx_check import MAX_IR_VERSION, check_onnx, nodes_of
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError
from gensdk_runtime.spec.signature import GraphSpec

OWN = "gensdk"
"""What the names of our nodes and tensors begin with."""
AXES_ARE_INPUT = 13
"""The opset from which on ReduceSum takes its axes as an input."""
PADS_ARE_INPUT = 11
"""The opset from which on Pad takes its amounts as an input."""
ROUND = 11
"""The opset that brought Round."""


def wrap_onnx(file: OnnxFile, meaning: Meaning, graph: GraphSpec, *, batch: bool) -> bytes:
    """The ONNX file whose signature is `graph`; `batch` False: with a batch of one.

    Raises :class:`ExportError` where the result is no valid graph, or its operators are no standard ones.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    own = {spec.name for spec in (*graph.inputs, *graph.outputs)}
    new_names = _rename(model.graph, own)
    writer = _Writer(model)
    ports = {name: new_names.get(name, name) for name in _port_names(meaning)}
    before = _inputs(writer, meaning, graph, ports)
    _result(writer, meaning.result, ports[meaning.result.port.name], graph)
    original = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*writer.nodes[:before], *original, *writer.nodes[before:]])
    del model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    signature = graph if batch else _of_one(graph)
    model.graph.input.extend(_values(signature.inputs))
    model.graph.output.extend(_values(signature.outputs))
    _finish(model, graph.name)
    check_onnx(model, signature)
    return bytes(model.SerializeToString())


class _Writer:
    """Nodes that are added to a model, one after the other; constants go to its weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = opset_of(model)
        self.nodes: list[onnx.NodeProto] = []
        self._number = 0
        self._prefix = _fresh(_all_names(model.graph), OWN)

    def add(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """The output's name, `out` or a fresh one."""
        name = out or self._name()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{name}/node", **attributes))
        return name

    def constant(self, value: Array, name: str | None = None) -> str:
        """The name of a weight that holds `value`."""
        name = name or self._name()
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.asarray(value, np.float32))

    def _name(self) -> str:
        self._number += 1
        return f"{self._prefix}/{self._number}"


def _inputs(writer: _Writer, meaning: Meaning, graph: GraphSpec, ports: Mapping[str, str]) -> int:
    """Writes what feeds the original's inputs; the number of nodes it took."""
    if meaning.source is not None:
        bytes_in, first = graph.require_input("source").dtype == "uint8", 0
        for picture in meaning.pictures:
            last = first + (picture.channels or 3)
            name = _channels(writer, first, last, bytes_in) if meaning.more else "source"
            if not bytes_in:
                name = _in_range(writer, name, meaning.source, picture)
            _source(writer, picture, name, ports[picture.port.name], bytes_in=bytes_in)
            first = last
    for noise in meaning.noises:
        onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(noise.port.dtype))
        writer.add("Cast", noise_name(noise.port.name), out=ports[noise.port.name], to=onnx_type)
    if meaning.label is not None:
        _label(writer, meaning.label, ports[meaning.label.port.name])
    for name, value in meaning.constants.items():
        writer.constant(value, ports[name])
    return len(writer.nodes)


def _channels(writer: _Writer, first: int, last: int, bytes_in: bool) -> str:
    """Some channels of what goes in."""
    places = writer.constant(np.arange(first, last, dtype=np.int64))
    return writer.add("Gather", "source", places, axis=3 if bytes_in else 1)


def _in_range(writer: _Writer, name: str, source: Picture, picture: Picture) -> str:
    """Floats in the range of `source`, in that of `picture`."""
    if picture.value_range == source.value_range:
        return name
    (low, high), (own_low, own_high) = source.value_range, picture.value_range
    factor = (own_high - own_low) / (high - low)
    return writer.add("Add", writer.add("Mul", name, writer.number(factor)), writer.number(own_low - low * factor))


def _source(writer: _Writer, picture: Picture, name: str, port: str, *, bytes_in: bool) -> None:
    """The part `name` of what goes in, as the file takes it."""
    low, high = picture.value_range
    dtype = np.dtype(picture.port.dtype)
    takes_bytes = dtype == np.uint8
    if bytes_in and not takes_bytes:
        name = writer.add("Cast", name, to=TensorProto.FLOAT)
        name = writer.add("Mul", name, writer.number((high - low) / 255.0))
        name = writer.add("Add", name, writer.number(low))
    elif dtype.kind in "iu" and not bytes_in:
        limits = np.iinfo(dtype)
        if writer.opset < ROUND:
            raise ExportError(f"opset {writer.opset} can't round what goes in; export the model with 13 or later")
        name = writer.add("Round", name)
        name = writer.add("Max", name, writer.number(max(limits.min, low)))
        name = writer.add("Min", name, writer.number(min(limits.max, high)))
    layout = "nhwc" if bytes_in else "nchw"
    if picture.border:
        name = _mirror(writer, name, picture.border, layout)
    if layout != picture.layout:
        name = writer.add("Transpose", name, perm=[0, 3, 1, 2] if layout == "nhwc" else [0, 2, 3, 1])
    same = dtype == (np.uint8 if bytes_in and takes_bytes else np.float32)
    if same:
        writer.add("Identity", name, out=port)
    else:
        writer.add("Cast", name, out=port, to=helper.np_dtype_to_tensor_dtype(dtype))


def _mirror(writer: _Writer, name: str, border: int, layout: str) -> str:
    """`border` mirrored pixels on each side."""
    before = [0, 0, border, border] if layout == "nchw" else [0, border, border, 0]
    if writer.opset < PADS_ARE_INPUT:
        return writer.add("Pad", name, mode="reflect", pads=[*before, *before])
    return writer.add("Pad", name, writer.constant(np.array([*before, *before], np.int64)), mode="reflect")


def _label(writer: _Writer, label: Label, port: str) -> None:
    """`label` int64 [B] as the file takes it: its number, or a row of a table."""
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(label.port.dtype))
    shape = label.port.shape or (None,)
    if label.table is None:
        name = writer.add("Cast", "label", to=onnx_type)
        column = writer.constant(np.array([-1, 1][: max(1, len(shape))], np.int64))
        writer.add("Reshape", name, column, out=port)
    elif label.batched:
        writer.add("Gather", writer.constant(label.table), "label", out=port, axis=0)
    else:
        row = writer.add("Gather", writer.constant(label.table), "label", axis=0)
        writer.add("Reshape", row, writer.constant(np.array(label.table.shape[1:], np.int64)), out=port)


def _result(writer: _Writer, picture: Picture, port: str, graph: GraphSpec) -> None:
    """The result as ``image`` within its range, and as bytes where `graph` makes them."""
    low, high = picture.value_range
    name = port
    if picture.port.dtype != "float32":
        name = writer.add("Cast", name, to=TensorProto.FLOAT)
    if picture.layout == "nhwc":
        name = writer.add("Transpose", name, perm=[0, 3, 1, 2])
    raw = name
    if picture.bounded:
        image = writer.add("Identity", name, out="image")
    else:
        name = writer.add("Max", name, writer.number(low))
        image = writer.add("Min", name, writer.number(high), out="image")
    if graph.output("pixels") is None:
        return
    if writer.opset < ROUND:
        raise ExportError(f"opset {writer.opset} can't round to bytes; leave uint8 out")
    name = writer.add("Sub", image, writer.number(low))
    name = writer.add("Mul", name, writer.number(255.0 / (high - low)))
    name = writer.add("Transpose", writer.add("Round", name), perm=[0, 2, 3, 1])
    writer.add("Cast", name, out="pixels", to=TensorProto.UINT8)
    if writer.opset >= AXES_ARE_INPUT:
        axes = writer.constant(np.array([1, 2, 3], np.int64))
        writer.add("ReduceSum", raw, axes, out="image_sum", keepdims=0)
    else:
        writer.add("ReduceSum", raw, out="image_sum", axes=[1, 2, 3], keepdims=0)


def _port_names(meaning: Meaning) -> list[str]:
    names = [meaning.result.port.name, *(noise.port.name for noise in meaning.noises), *meaning.constants]
    names += [picture.port.name for picture in meaning.pictures]
    return names + ([meaning.label.port.name] if meaning.label is not None else [])


def _rename(graph: onnx.GraphProto, taken: set[str]) -> dict[str, str]:
    """Gives each tensor whose name is `taken` a fresh one, wherever it stands; the new names by the old."""
    names = _all_names(graph)
    fresh = {name: _fresh(names | taken, f"original/{name}") for name in names & taken}
    if fresh:
        _rename_in(graph, fresh)
    return fresh


def _rename_in(graph: onnx.GraphProto, fresh: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = fresh.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = fresh.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = fresh.get(annotation.tensor_name, annotation.tensor_name)
    for node in graph.node:
        node.input[:] = [fresh.get(name, name) for name in node.input]
        node.output[:] = [fresh.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_in(inner, fresh)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    """All tensors, those of subgraphs too."""
    values = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    names = {value.name for value in values}
    names |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in nodes_of(graph):
        names |= {*node.input, *node.output}
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= {value.name for value in (*inner.input, *inner.output, *inner.initializer)}
    return names - {""}


def _fresh(names: set[str], wanted: str) -> str:
    """`wanted`, or with a number behind it: a name that no other begins with."""
    number, name = 0, wanted
    while any(other.startswith(name) for other in names):
        number += 1
        name = f"{wanted}{number}"
    return name


def _of_one(graph: GraphSpec) -> GraphSpec:
    """The signature with a batch of one."""
    data = graph.model_dump(mode="json")
    for tensor in (*data["inputs"], *data["outputs"]):
        tensor["shape"] = [1 if axis == "batch" else axis for axis in tensor["shape"]]
    return GraphSpec.from_dict(data, what=f"graph {graph.name!r}", error=ExportError)


def _values(specs: Sequence[Any]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), list(spec.shape)
        )
        for spec in specs
    ]


def _finish(model: onnx.ModelProto, name: str) -> None:
    """The file's own names and notes go; what is left is what runs."""
    model.graph.name, model.graph.doc_string, model.doc_string = name, "", ""
    model.producer_name, model.producer_version, model.domain = "gensdk", "", ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    used = {node.domain for node in nodes_of(model.graph)} | {""}
    kept = {
        "" if entry.domain == "ai.onnx" else entry.domain: entry.version
        for entry in model.opset_import
        if entry.domain in used or entry.domain == "ai.onnx"
    }
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in kept.items())
    needed = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(needed, min(model.ir_version, MAX_IR_VERSION))
