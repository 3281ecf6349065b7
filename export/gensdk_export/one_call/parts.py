"""The parts of a graph that holds other graphs: inlined graphs, constants, scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gensdk_runtime.backends.bound import Array

Shape = Sequence[int | str]
Files = Mapping[str, bytes]
"""The ONNX file of each graph, by its name."""


class Part:
    """A graph in the making: the main one, or the body of a scan or loop.

    `prefix` stands before the name of every value that is made in it, so that no two parts share one.
    """

    def __init__(self, name: str, *, prefix: str) -> None:
        self.proto = onnx.GraphProto(name=name)
        self._prefix = prefix

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        """Declares an input; its name."""
        value = _value(self._prefix + name, dtype, shape)
        self.proto.input.append(value)
        return value.name

    def output(self, name: str, value: str, dtype: str, shape: Shape) -> None:
        """Declares an output, which is `value`; of two of one name the second gets another."""
        taken = any(output.name == self._prefix + name for output in self.proto.output)
        declared = _value(f"{self._prefix}{name}{'.again' if taken else ''}", dtype, shape)
        self.proto.node.append(helper.make_node("Identity", [value], [declared.name], name=declared.name))
        self.proto.output.append(declared)

    def keep(self, name: str, dtype: str, shape: Shape) -> str:
        """Declares a state that stays as it is; its name."""
        value = self.input(name, dtype, shape)
        self.output(f"next_{name}", value, dtype, shape)
        return value

    def constant(self, value: Array) -> str:
        """A value that is stored in the graph; its name."""
        name = f"{self._prefix}constant_{len(self.proto.initializer)}"
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operator; the name of its output."""
        return self._node(operator, inputs, 1, **attributes)[0]

    def inline(self, model: onnx.ModelProto, inputs: Mapping[str, str]) -> dict[str, str]:
        """Adds all of another graph, whose `inputs` are values of this one; where its outputs are, by their names.

        Its weights come to lie in this graph: ONNX Runtime rearranges weights in advance only where they lie
        beside the operators that use them (20 steps of a small U-Net take 38 ms so, and 54 ms with outer weights).
        """
        inlined = onnx.GraphProto()
        inlined.CopyFrom(model.graph)
        prefix = f"{self._prefix}{inlined.name}."
        _rename(inlined, inputs, prefix)
        self.proto.node.extend(inlined.node)
        self.proto.initializer.extend(inlined.initializer)
        return {value.name: inputs.get(value.name, prefix + value.name) for value in model.graph.output}

    def scan(self, body: Part, states: Sequence[str], sequences: Sequence[str]) -> list[str]:
        """Runs `body` along the first axis of `sequences`.

        The body's inputs are states, then elements of the sequences; its outputs next states, then what is
        collected. Returns the last states, then what was collected along a new first axis. What the body needs
        from outside must come as a state that stays as it is (:meth:`keep`): OpenVINO's Scan sees nothing else.
        """
        return self._node(
            "Scan", [*states, *sequences], len(body.proto.output), num_scan_inputs=len(sequences), body=body.proto
        )

    def loop(self, body: Part, count: int, states: Sequence[str]) -> list[str]:
        """Runs `body`, begun by :meth:`begin_loop`, `count` times; else as :meth:`scan`, with no sequences.

        The condition is a constant that is true: TensorRT unrolls or compiles nothing else.
        """
        trips, true = self.constant(np.array(count, np.int64)), self.constant(np.array(True))
        return self._node("Loop", [trips, true, *states], len(body.proto.output) - 1, body=body.proto)

    def begin_loop(self) -> str:
        """Declares what the body of a loop has before its states; the number of the iteration, int64 []."""
        iteration = self.input("iteration", "int64", ())
        self.output("condition_out", self.input("condition", "bool", ()), "bool", ())
        return iteration

    def _node(self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        name = f"{self._prefix}{operator}_{len(self.proto.node)}"
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self.proto.node.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return names


def _value(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [*shape])


def _rename(graph: onnx.GraphProto, names: Mapping[str, str], prefix: str) -> None:
    """Gives every value the name in `names`, or its own behind `prefix`; in subgraphs too."""

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else ""

    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new(value.name)
    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(inner, names, prefix)
