"""A third-party ONNX graph as a torch module: its nodes one after the other, constants folded, weights frozen.

Sizes are found with fake tensors, which hold nothing: a graph that would fill the memory is refused, not run.

It does not: take operators that are not in :data:`gensdk_export.importers.classifier.torch_operators.OPERATORS`,
subgraphs, sparse weights, or more than one input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gensdk_export.importers.classifier.node import Node
from gensdk_export.importers.classifier.sizes import SIZE_OPERATORS
from gensdk_export.importers.classifier.torch_operators import OPERATORS
from gensdk_export.importers.classifier.window_operators import covers
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_export.onnx_export import quiet
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError

MAX_NODES = 20_000
MAX_ELEMENTS = 2**28
"""Of any tensor, at the model's own size."""
CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, StopIteration)
"""What PyTorch and NumPy raise for shapes that don't fit."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One node: `module` takes the tensors `inputs` and gives `outputs`; `op` as the file has it."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    op: str
    name: str

    def into(self, values: dict[str, Any]) -> None:
        """Runs it on `values`, and adds what comes out."""
        result = self.module(*(values[name] for name in self.inputs))
        values.update(zip(self.outputs, result if isinstance(result, tuple) else (result,), strict=False))


class OnnxNetwork(nn.Module):
    """The part of a graph that leads from the image to one tensor."""

    def __init__(self, steps: Sequence[Step], images: str, output: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(step.module for step in steps)
        self.wires = [(step.inputs, step.outputs) for step in steps]
        self.images, self.output = images, output

    def forward(self, images: Tensor) -> Tensor:
        """`images` in the file's layout and range to the tensor."""
        values: dict[str, Any] = {self.images: images}
        for part, (inputs, outputs) in zip(self.parts, self.wires, strict=True):
            result = part(*(values[name] for name in inputs))
            values.update(zip(outputs, result if isinstance(result, tuple) else (result,), strict=False))
        found: Tensor = values[self.output]
        return found


@dataclass(frozen=True)
class OnnxGraph:
    """A graph that was read as far as it is needed: its `steps` in order, and the `shapes` of its tensors at the
    model's own size. `pooled`: tensors behind a pooling that covers the whole image there, and so at any size.
    """

    path: Path
    images: str
    steps: tuple[Step, ...]
    shapes: Mapping[str, Shape]
    pooled: frozenset[str]

    def below(self, tensor: str) -> OnnxNetwork:
        """What leads to `tensor`, and nothing else."""
        return OnnxNetwork(self.steps_below([tensor]), self.images, tensor).eval()

    def steps_below(self, tensors: Iterable[str]) -> list[Step]:
        """The steps that lead to `tensors`, in order."""
        return list(reversed([*_behind(self.steps, tensors, lambda step: (step.inputs, step.outputs))]))

    def shapes_at(self, shape: Shape) -> dict[str, Shape]:
        """The shapes of all tensors for images of another `shape`; those that can't be made are left out."""
        mode = _fake()
        values: dict[str, Any] = {self.images: _example(mode, shape)}
        with quiet(), mode:
            for step in self.steps:
                if all(name in values for name in step.inputs):
                    try:
                        step.into(values)
                    except FAILURES:
                        continue
        return _shapes(values)


def read_graph(file: OnnxFile, images: str, shape: Shape, wanted: Sequence[str]) -> OnnxGraph:
    """The nodes of `file` that lead to the tensors `wanted`, at images of `shape` on the input `images`.

    Raises :class:`ExportError` that names the first operator that is not known, or does what can't be done here,
    and for weights that are NaN.
    """
    if len(file.model.graph.node) > MAX_NODES:
        raise ExportError(f"{file.path}: expected at most {MAX_NODES} nodes, got {len(file.model.graph.node)}")
    nodes = [*_behind(file.model.graph.node, wanted, lambda node: (tuple(node.input), tuple(node.output)))]
    reader = _Reader(file, images, shape)
    for node in reversed(nodes):
        reader.read(node)
    missing = [name for name in wanted if name not in reader.values]
    if missing:
        raise ExportError(f"{file.path}: {missing[0][:80]!r} does not depend on the image")
    return OnnxGraph(file.path, images, tuple(reader.steps), _shapes(reader.values), frozenset(reader.pooled))


def _shapes(values: Mapping[str, Any]) -> dict[str, Shape]:
    return {name: tuple(map(int, x.shape)) for name, x in values.items() if isinstance(x, Tensor)}


class _Reader:
    """Reads one node after the other; constants are computed at once, and the shapes of what flows."""

    def __init__(self, file: OnnxFile, images: str, shape: Shape) -> None:
        self.path = file.path
        self.opset = file.opset
        self._mode = _fake()
        self.values: dict[str, Any] = {images: _example(self._mode, shape)}
        self.steps: list[Step] = []
        self.pooled: set[str] = set()
        self._initializers = {tensor.name: tensor for tensor in file.model.graph.initializer}
        self._constants: dict[str, Array] = {}

    def read(self, raw: onnx.NodeProto) -> None:
        """Adds a step, or a constant."""
        if raw.op_type == "Constant":
            self._constants[raw.output[0]] = self._finite(_constant(raw), raw.output[0])
            return
        node = self._node(raw)
        builder = self._builder(node)
        flowing = tuple(name for name in node.inputs if name in self.values)
        try:
            step = Step(builder(node).eval(), flowing, node.outputs, node.op, node.name)
            self._run(step, node)
        except ExportError as failure:
            raise ExportError(f"{self.path}: {failure}") from None
        except FAILURES as failure:
            reason = " ".join(str(failure).split())[:160]
            raise ExportError(f"{self.path}: {node.refused(reason)}") from None

    def _run(self, step: Step, node: Node) -> None:
        """Runs it with nothing but shapes; a constant then in earnest."""
        values = dict(self.values)
        with quiet(), self._mode:
            step.into(values)
        for name in step.outputs:
            value = values.get(name)
            if isinstance(value, Tensor) and math.prod(value.shape) > MAX_ELEMENTS:
                raise node.refused(f"its result {list(value.shape)} has over {MAX_ELEMENTS} elements")
        if not step.inputs:
            constants: dict[str, Any] = {}
            step.into(constants)
            self._constants.update({name: self._finite(_real(value), name) for name, value in constants.items()})
            return
        self.values = values
        if covers(node) or any(name in self.pooled for name in step.inputs):
            self.pooled.update(step.outputs)
        self.steps.append(step)

    def _builder(self, node: Node) -> Callable[[Node], nn.Module]:
        sizes = any(isinstance(self.values.get(name), np.ndarray) for name in node.inputs)
        describes = sizes and node.op != "Reshape"
        table = SIZE_OPERATORS if describes else OPERATORS
        if node.op not in table:
            what = " on the sizes of tensors" if describes else ""
            raise ExportError(
                f"{self.path}: operator {node.op}{what} ({node.name[:80]!r}) is not known here; choose layers "
                "below it with --layer"
            )
        return table[node.op]

    def _node(self, raw: onnx.NodeProto) -> Node:
        constants = {}
        for index, name in enumerate(raw.input):
            if name in self._initializers and name not in self._constants:
                self._constants[name] = self._finite(_array(self._initializers[name]), name)
            if name in self._constants:
                constants[index] = self._constants[name]
            elif name and name not in self.values:
                raise ExportError(f"{self.path}: expected one input, an image; it needs {name[:80]!r} too")
        first = self.values.get(raw.input[0]) if raw.input else None
        attributes = {each.name: helper.get_attribute_value(each) for each in raw.attribute}
        shape = tuple(map(int, first.shape)) if isinstance(first, Tensor) else ()
        name = raw.name or (raw.output[0] if raw.output else raw.op_type)
        outputs = tuple(raw.output)
        return Node(raw.op_type, name, tuple(raw.input), outputs, attributes, self.opset, constants, shape)

    def _finite(self, array: Array, name: str) -> Array:
        if array.dtype.kind == "f" and (np.isnan(array).any() or (array.size > 1 and np.isinf(array).any())):
            raise ExportError(f"{self.path}: weight {name[:80]!r} is NaN or infinite")
        return array


def _behind(nodes: Sequence[Any], wanted: Iterable[str], ends: Callable[[Any], Any]) -> Iterator[Any]:
    """The nodes that lead to the tensors `wanted`, the last first; `ends`: the inputs and outputs of a node."""
    needed = set(wanted)
    for node in reversed(nodes):
        inputs, outputs = ends(node)
        if needed.intersection(outputs):
            needed.update(inputs)
            yield node


def _fake() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


def _example(mode: FakeTensorMode, shape: Shape) -> Tensor:
    with mode:
        return torch.empty(shape)


def _constant(node: onnx.NodeProto) -> Array:
    attribute = node.attribute[0] if len(node.attribute) == 1 else None
    if attribute is None or attribute.name not in (
        "value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
    ):
        raise ExportError(f"operator Constant ({node.name[:80]!r}): expected one number or tensor as its value")
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return _array(value)
    return np.asarray(value, np.float32 if "float" in attribute.name else np.int64)


def _array(tensor: onnx.TensorProto) -> Array:
    """Floats as float32, whole numbers as int64."""
    array = np.asarray(numpy_helper.to_array(tensor))
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iu" else array


def _real(value: Any) -> Array:
    return np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value)
