"""TF32 on the CPU: what goes into products of fp32 tensors is rounded to 10 bits of mantissa inside the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
SPLIT = "tf32_split"
"""Veltkamp's splitting: with c = (2^13 + 1) x, the value c - (c - x) is x to 24 - 13 bits, rounded to nearest."""


def in_tf32(data: bytes) -> bytes:
    """The ONNX file with both factors of each product rounded, in the graphs inside its nodes too."""
    model = onnx.load_from_string(data)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2**13 + 1), SPLIT))
    numbers = itertools.count()
    assert round_products(model.graph, numbers) > 0, "a graph without products tells nothing"
    rounded: bytes = model.SerializeToString()
    return rounded


def round_products(graph: GraphProto, numbers: Iterator[int]) -> int:
    """Rounds the factors in `graph`; how many products it has."""
    nodes, count = list(graph.node), 0
    del graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                count += round_products(attribute.g, numbers)
        if node.op_type in PRODUCTS:
            count += 1
            for place in (0, 1):
                graph.node.extend(rounding(node.input[place], name := f"tf32_{next(numbers)}"))
                node.input[place] = name
        graph.node.append(node)
    return count


def rounding(source: str, target: str) -> list[NodeProto]:
    return [
        helper.make_node("Mul", [source, SPLIT], [f"{target}_c"]),
        helper.make_node("Sub", [f"{target}_c", source], [f"{target}_rest"]),
        helper.make_node("Sub", [f"{target}_c", f"{target}_rest"], [target]),
    ]
