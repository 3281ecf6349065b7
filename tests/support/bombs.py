"""Bundles with right checksums whose graphs ask for more than a machine has, or never end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.spec.manifest import Manifest
from support.models import IMAGE, feedforward_model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
PIXELS = int(np.prod(IMAGE.shape))
HUGE = 2**33
"""Elements of float32: 32 GiB."""


def constant(name: str, value: object, dtype: str) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def value(name: str, kind: int, shape: Sequence[int | str] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> NodeProto:
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


def graph_of(
    nodes: Sequence[NodeProto], constants: Sequence[TensorProto], functions: Sequence[FunctionProto] = ()
) -> bytes:
    """`nodes` make a number "grown", which is added to the images."""
    ends = [
        node("ReduceMean", ["z"], ["mean"], keepdims=1),
        node("Add", ["mean", "grown"], ["level"]),
        node("ReduceSum", ["level"], ["single"], keepdims=0),
        node("Expand", ["single", "shape"], ["image"]),
        node("Shape", ["z"], ["sizes"]),
        node("Slice", ["sizes", "zero", "one"], ["batch"]),
        node("Concat", ["batch", "rest"], ["shape"], axis=0),
    ]
    order = [*nodes, *ends[:3], *ends[4:], ends[3]]
    own = [constant("zero", [0], "int64"), constant("one", [1], "int64"), constant("rest", IMAGE.shape, "int64")]
    graph = helper.make_graph(
        order,
        "generator",
        [value("z", FLOAT, ["batch", 5])],
        [value("image", FLOAT, ["batch", *IMAGE.shape])],
        [*own, *constants],
    )
    opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid("own", 1)] if functions else [])]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def shrunk(name: str) -> NodeProto:
    """Uses all of a tensor, and makes one number of it."""
    return node("ReduceMean", [name], ["grown"], keepdims=0)


def constant_of_shape() -> bytes:
    return graph_of(
        [node("ConstantOfShape", ["huge"], ["big"]), shrunk("big")], [constant("huge", [2, HUGE // 2], "int64")]
    )


def computed_shape() -> bytes:
    """As above, but the shape is known only when the graph runs."""
    nodes = [
        node("ReduceMax", ["z"], ["most"], keepdims=0),
        node("Mul", ["most", "nothing"], ["none"]),
        node("Cast", ["none"], ["whole"], to=INT64),
        node("Add", ["huge", "whole"], ["size"]),
        node("ConstantOfShape", ["size"], ["big"]),
        shrunk("big"),
    ]
    return graph_of(nodes, [constant("huge", [HUGE], "int64"), constant("nothing", 0, "float32")])


def expand() -> bytes:
    return graph_of(
        [node("Expand", ["start", "huge"], ["big"]), shrunk("big")],
        [constant("start", [1], "float32"), constant("huge", [HUGE], "int64")],
    )


def tile() -> bytes:
    return graph_of(
        [node("Tile", ["start", "huge"], ["big"]), shrunk("big")],
        [constant("start", [1], "float32"), constant("huge", [HUGE], "int64")],
    )


def tile_of_the_input() -> bytes:
    return graph_of(
        [node("Tile", ["z", "huge"], ["big"]), shrunk("big")], [constant("huge", [1, HUGE // 5], "int64")]
    )


def pad() -> bytes:
    return graph_of(
        [node("Pad", ["z", "huge"], ["big"]), shrunk("big")],
        [constant("huge", [0, HUGE // 2, 0, HUGE // 2], "int64")],
    )


def resize() -> bytes:
    return graph_of(
        [node("Resize", ["z", "", "scales"], ["big"], mode="nearest"), shrunk("big")],
        [constant("scales", [1.0, float(2**31)], "float32")],
    )


def span() -> bytes:
    return graph_of(
        [node("Range", ["from", "to", "step"], ["big"]), shrunk("big")],
        [constant("from", 0, "float32"), constant("to", HUGE, "float32"), constant("step", 1, "float32")],
    )


def matrix() -> bytes:
    """Each factor is small, the outer product is not."""
    return graph_of(
        [node("MatMul", ["tall", "wide"], ["big"]), shrunk("big")],
        [constant("tall", np.zeros((2**17, 1)), "float32"), constant("wide", np.zeros((1, 2**17)), "float32")],
    )


def doubling(operator: str = "Concat", times: int = 40) -> bytes:
    """A loop that doubles what it carries."""
    grow = node("Concat", ["carried", "carried"], ["doubled"], axis=0)
    body = helper.make_graph(
        [grow, node("Identity", ["go"], ["on"])],
        "body",
        [value("i", INT64, []), value("go", BOOL, []), value("carried", FLOAT, None)],
        [value("on", BOOL, []), value("doubled", FLOAT, None)],
    )
    return graph_of(
        [node("Loop", ["times", "true", "start"], ["big"], body=body), shrunk("big")],
        [constant("times", times, "int64"), constant("true", True, "bool"), constant("start", [1], "float32")],
    )


def endless(*, of_the_input: bool = True, turns: int = 2**62) -> bytes:
    """A loop of so many turns; `of_the_input` False: it can be computed when the graph is loaded."""
    start = "z" if of_the_input else "start"
    body = helper.make_graph(
        [node("Sin", ["carried"], ["next"]), node("Identity", ["go"], ["on"])],
        "body",
        [value("i", INT64, []), value("go", BOOL, []), value("carried", FLOAT, None)],
        [value("on", BOOL, []), value("next", FLOAT, None)],
    )
    return graph_of(
        [node("Loop", ["times", "true", start], ["big"], body=body), shrunk("big")],
        [constant("times", turns, "int64"), constant("true", True, "bool"), constant("start", [1], "float32")],
    )


def _branch(name: str, nodes: Sequence[NodeProto]) -> GraphProto:
    return helper.make_graph(list(nodes), name, [], [value("branch", FLOAT, None)])


def branches() -> bytes:
    """The bomb is in a branch."""
    bomb = _branch("then", [node("ConstantOfShape", ["huge"], ["branch"])])
    calm = _branch("else", [node("Identity", ["z"], ["branch"])])
    nodes = [
        node("ReduceMax", ["z"], ["most"], keepdims=0),
        node("Less", ["most", "limit"], ["so"]),
        node("If", ["so"], ["big"], then_branch=bomb, else_branch=calm),
        shrunk("big"),
    ]
    return graph_of(nodes, [constant("huge", [HUGE], "int64"), constant("limit", 1e9, "float32")])


def functions(depth: int = 40, *, calls: int = 2, circle: bool = False) -> bytes:
    """Local functions, each of which calls the next one `calls` times: calls**depth nodes when put in line."""
    made = []
    for level in range(depth):
        last = level + 1 == depth
        domain, name = ("", "Sin") if last and not circle else ("own", "f0" if last else f"f{level + 1}")
        names = ["x", *(f"y{call}" for call in range(1, calls)), "w"]
        nodes = [helper.make_node(name, [a], [b], domain=domain) for a, b in pairwise(names)]
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
        made.append(helper.make_function("own", f"f{level}", ["x"], ["w"], nodes, opsets))
    return graph_of([helper.make_node("f0", ["z"], ["big"], domain="own"), shrunk("big")], [], made)


def scan() -> bytes:
    """A scan that keeps a large row of each turn."""
    body = helper.make_graph(
        [node("Identity", ["state"], ["kept"]), node("Expand", ["row", "wide"], ["out"])],
        "body",
        [value("state", FLOAT, None), value("row", FLOAT, None)],
        [value("kept", FLOAT, None), value("out", FLOAT, None)],
    )
    return graph_of(
        [node("Scan", ["first", "rows"], ["last", "big"], body=body, num_scan_inputs=1), shrunk("big")],
        [
            constant("first", [0], "float32"),
            constant("rows", np.zeros((2**14, 1)), "float32"),
            constant("wide", [HUGE // 2**14], "int64"),
        ],
    )


BOMBS: dict[str, Callable[[], bytes]] = {
    "ConstantOfShape": constant_of_shape,
    "a shape that is computed": computed_shape,
    "Expand": expand,
    "Tile": tile,
    "Tile of the input": tile_of_the_input,
    "Pad": pad,
    "Resize": resize,
    "Range": span,
    "MatMul": matrix,
    "a loop that doubles": doubling,
    "a loop without end": endless,
    "a loop without end, of constants": lambda: endless(of_the_input=False),
    "If": branches,
    "functions": functions,
    "Scan": scan,
}


def bomb_bundle(path: Path, kind: str) -> Path:
    """A bundle that opens."""
    data = BOMBS[kind]()
    if kind not in ("functions",):
        onnx.checker.check_model(data)
    draft = Manifest(model=feedforward_model(), graph_files={"generator": {"fp32": "graphs/generator.onnx"}})
    write_bundle(path, draft, {"graphs/generator.onnx": data}).close()
    return path
