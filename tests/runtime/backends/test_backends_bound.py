"""Bound graphs give what plain runs give, and no graph writes where it should not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from gensdk_runtime.backends import availabilities, create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import ALIGNMENT, Bound, CopyingBound
from gensdk_runtime.backends.onnxruntime.buffers import DeviceBound
from gensdk_runtime.backends.onnxruntime.device_memory import Memory
from gensdk_runtime.backends.onnxruntime.session import OnnxRuntimeSession
from gensdk_runtime.errors import BackendError
from gensdk_runtime.spec.signature import GraphSpec
from support.onnx_graphs import OnnxBytes, graph_spec, onnx_bytes, spec

BACKENDS = [name for name in ("onnxruntime", "openvino") if availabilities()[name].available]
node = helper.make_node

PLAIN = graph_spec({"x": spec("batch", 4)}, {"y": spec("batch", 4)})
STATES = graph_spec(
    {"x": spec("batch", 3), "a": spec("batch", 3), "b": spec(2, "batch"), "scale": spec()},
    {"y": spec("batch", 3), "next_a": spec("batch", 3), "next_b": spec(2, "batch")},
)
STATE_NODES = [
    node("Mul", ["a", "scale"], ["scaled"]),
    node("Add", ["scaled", "x"], ["next_a"]),
    node("Sub", ["next_a", "a"], ["y"]),
    node("Neg", ["b"], ["next_b"]),
]
CARRY = {"next_a": "a", "next_b": "b"}


@contextmanager
def opened(backend: str, graph: GraphSpec, nodes: list[NodeProto], **more: object) -> Iterator[Session]:
    source = OnnxBytes(onnx_bytes(graph, nodes, **more))  # type: ignore[arg-type]
    with create_backend(backend, threads=1).open(graph, source, precision="fp32") as session:
        yield session


def lent(session: Session, kind: str) -> Bound:
    """The graph STATES for batches of 3: as the backend binds it, by the fallback, or as on a device."""
    if kind == "fallback":
        return CopyingBound(session, {"batch": 3}, CARRY)
    if kind == "device":
        assert isinstance(session, OnnxRuntimeSession)
        return DeviceBound(session, session._ort, {"batch": 3}, CARRY, Memory("cpu"))
    return session._bind({"batch": 3}, CARRY)


def some_feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {each.name: [3 if axis == "batch" else int(axis) for axis in each.shape] for each in STATES.inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


KINDS = [(name, kind) for name in BACKENDS for kind in ("bound", "fallback")] + [("onnxruntime", "device")]


@pytest.mark.parametrize(("backend", "kind"), KINDS)
def test_carried_states_are_what_unbound_runs_give(backend: str, kind: str) -> None:
    noise = np.random.default_rng(1).standard_normal((5, 3, 3)).astype(np.float32)
    with opened(backend, STATES, STATE_NODES) as session:
        feeds, bound = some_feeds(), lent(session, kind)
        for name, value in feeds.items():
            bound.input(name)[...] = value
        for i in range(5):
            if i:
                bound.input("x")[...] = noise[i]
                feeds["x"] = noise[i]
            bound.run()
            outputs = session.run(feeds)
            assert set(outputs) == {"y", "next_a", "next_b"}
            for name, value in outputs.items():
                np.testing.assert_allclose(bound.output(name), value, rtol=1e-6)
            feeds |= {name: outputs[output] for output, name in CARRY.items()}
            if i == 2:  # the caller changes a part of a state
                feeds["a"] = feeds["a"].copy()
                feeds["a"][1] = bound.input("a")[1] = 7.0
        bound.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_buffers_are_aligned_and_kept(backend: str) -> None:
    with opened(backend, STATES, STATE_NODES) as session:
        with session.bound({"batch": 5}, CARRY) as first:
            first.run()
            addresses = {first.input(each.name).ctypes.data for each in STATES.inputs}
            addresses |= {first.output(each.name).ctypes.data for each in STATES.outputs}
            with session.bound({"batch": 5}, CARRY) as second:  # lent out twice: other buffers
                assert second is not first
        assert all(address % ALIGNMENT == 0 for address in addresses)
        with session.bound({"batch": 5}, CARRY) as again, session.bound({"batch": 6}, CARRY) as other:
            assert again in (first, second)
            assert other not in (first, second)


WRONG = {
    "more rows": [node("Concat", ["x", "x"], ["y"], axis=0)],
    "fewer rows": [node("Slice", ["x", "zero", "one"], ["y"])],
    "as many elements in another shape": [node("Transpose", ["x"], ["y"])],
    "another rank": [node("Reshape", ["x", "flat"], ["y"])],
    "what depends on the data": [node("NonZero", ["x"], ["z"]), node("Cast", ["z"], ["y"], to=TensorProto.FLOAT)],
    "too much of a constant": [node("Identity", ["wide"], ["y"]), node("Relu", ["x"], ["unused"])],
}
CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "flat": np.array([-1]),
    "wide": np.zeros((2, 400), np.float32),
}


@pytest.mark.parametrize("nodes", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("backend", BACKENDS)
def test_another_shape_than_promised_is_an_error(backend: str, nodes: list[NodeProto]) -> None:
    with opened(backend, PLAIN, nodes, constants=CONSTANTS) as session:
        with pytest.raises(BackendError):
            run_on_ones(session)
        with pytest.raises(BackendError):
            session.run({"x": np.ones((2, 4), np.float32)})


def run_on_ones(session: Session) -> None:
    with session.bound({"batch": 2}) as bound:
        bound.input("x")[...] = 1.0
        bound.run()


@pytest.mark.parametrize("to", ["INT64", "INT32", "DOUBLE", "UINT8", "BOOL", "STRING"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_another_type_than_promised_is_an_error(backend: str, to: str) -> None:
    kind = getattr(TensorProto, to)
    nodes = [node("Cast", ["x"], ["y"], to=kind)]
    with pytest.raises(BackendError), opened(backend, PLAIN, nodes, types={"y": kind}) as session:
        run_on_ones(session)


FAITHFUL = {
    "the input itself": [node("Identity", ["x"], ["y"])],
    "an input that is not used": [node("Identity", ["constant"], ["y"])],
}


@pytest.mark.parametrize("nodes", FAITHFUL.values(), ids=FAITHFUL)
@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_graphs_leave_inputs_and_constants_alone(backend: str, nodes: list[NodeProto]) -> None:
    constant = np.arange(8, dtype=np.float32).reshape(2, 4)
    with opened(backend, PLAIN, nodes, constants={"constant": constant}) as session:
        for factor in (1.0, 2.0):
            with session.bound({"batch": 2}, {"y": "x"}) as bound:
                bound.input("x")[...] = constant * factor
                for _ in range(3):
                    bound.run()
                wanted = constant if nodes[0].input[0] == "constant" else constant * factor
                np.testing.assert_array_equal(bound.output("y"), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_that_do_not_fit_are_refused(backend: str) -> None:
    with opened(backend, STATES, STATE_NODES) as session:
        for carry in ({"next_b": "a"}, {"next_c": "a"}, {"next_a": "a", "y": "a"}):
            with pytest.raises(BackendError, match="can't carry"), session.bound({"batch": 2}, carry):
                pass
        with pytest.raises(BackendError, match="needs a size"), session.bound({}):
            pass


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_is_no_graph_is_refused(backend: str) -> None:
    with pytest.raises(BackendError, match="can't load"):
        create_backend(backend).open(PLAIN, OnnxBytes(b"no graph"), precision="fp32")
