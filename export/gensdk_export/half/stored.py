"""Weights in half the bytes: float16 in the file, float32 in the computation.

A tensor of weights becomes float16 with a cast behind it, which backends carry out once, when they load the graph.
So a file is about half as large, on any machine, and as fast as before; what is lost is the rounding of the
weights to eleven bits, which the proof measures against the original. It has nothing to do with computing in half
precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gensdk_export.half.precision import SAFE_VALUE
from gensdk_export.onnx_check import check_onnx
from gensdk_runtime.spec.signature import GraphSpec

LEAST = 512
"""Elements of a tensor; smaller ones stay as they are."""


def store_half(file: bytes, graph: GraphSpec) -> bytes:
    """The ONNX file with its large float32 weights stored in half precision; of the main graph, not of branches.

    Weights that half can't hold safely stay as they are.
    """
    model = onnx.load_from_string(file)
    casts = list(_casts(model.graph))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    check_onnx(model, graph)
    return bytes(model.SerializeToString())


def _casts(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Turns the initializers of `graph` to half in place; what gives each its name and type back."""
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < LEAST or not float(np.abs(values).max()) < SAFE_VALUE:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        yield helper.make_node("Cast", [tensor.name], [name], name=f"{name}.float", to=TensorProto.FLOAT)
