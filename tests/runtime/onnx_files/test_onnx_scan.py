"""The scanner against models that the onnx package makes, and against damaged bytes."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper

from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.onnx_files.scan import MAX_DEPTH, external_locations, scan
from support.refusals import refusal_of
from support.tiny_bundle import tiny_onnx


def external(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(name: str, location: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(
        values=external(name, location), indices=external("i", f"{location}.i"), dims=[9]
    )


def attribute(name: str, kind: int, **fields: object) -> AttributeProto:
    return AttributeProto(name=name, type=kind, **fields)


def subgraph(location: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "inner", [], [], [external("inner", location)])


def everywhere() -> tuple[onnx.ModelProto, set[str]]:
    """A model with an external tensor in every place that ONNX has for one, and all their locations."""
    deep = helper.make_node("If", ["c"], ["d"])
    deep.attribute.append(attribute("then_branch", AttributeProto.GRAPH, g=subgraph("deep")))
    node = helper.make_node("Anything", ["z"], ["image"])
    node.attribute.extend(
        [
            attribute("t", AttributeProto.TENSOR, t=external("t", "t")),
            attribute("ts", AttributeProto.TENSORS, tensors=[external("t", "ts0"), external("t", "ts1")]),
            attribute("g", AttributeProto.GRAPH, g=subgraph("g", deep)),
            attribute("gs", AttributeProto.GRAPHS, graphs=[subgraph("gs0"), subgraph("gs1")]),
            attribute("s", AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse("s", "s")),
            attribute("ss", AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse("s", "ss")]),
        ]
    )
    model = tiny_onnx()
    model.graph.node.append(node)
    model.graph.initializer.append(external("w", "w"))
    model.graph.sparse_initializer.append(sparse("sw", "sw"))
    function = onnx.FunctionProto(name="f", domain="test", node=[deep])
    function.attribute_proto.append(attribute("default", AttributeProto.TENSOR, t=external("t", "default")))
    function.node.append(node)
    model.functions.append(function)
    model.training_info.add(initialization=subgraph("initialization"), algorithm=subgraph("algorithm"))
    plain = ("w", "t", "ts0", "ts1", "g", "deep", "gs0", "gs1", "default", "initialization", "algorithm")
    return model, {*plain, *(f"{s}{end}" for s in ("sw", "s", "ss") for end in ("", ".i"))}


def test_external_tensors_are_found_wherever_onnx_has_a_place_for_one() -> None:
    model, locations = everywhere()
    found = external_locations(model.SerializeToString())
    assert set(found) == locations
    assert len(found) == len(locations)


def test_a_model_with_its_weights_inside_has_no_locations() -> None:
    assert external_locations(tiny_onnx().SerializeToString()) == ()


def test_inputs_and_outputs_are_those_that_onnx_gives_in_order() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("b", "a", "wei", "sp", "é")]
    weight = helper.make_tensor("wei", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("If", ["b"], ["y"])
    inner = helper.make_graph([], "inner", values[:1], values[:1])
    node.attribute.append(attribute("then_branch", AttributeProto.GRAPH, g=inner))
    graph = helper.make_graph([node], "g", values, values[:2], [weight])
    graph.sparse_initializer.append(sparse("sp", "x"))
    data = helper.make_model(graph).SerializeToString()
    assert scan(data).inputs == ("b", "a", "é")  # those with an initializer are weights
    assert scan(data).outputs == ("b", "a")


def test_weights_are_jumped_over() -> None:
    model = tiny_onnx()
    model.graph.initializer.add(name="bulk", data_type=TensorProto.UINT8, dims=[2**24], raw_data=b"\xff" * 2**24)
    assert scan(model.SerializeToString()).inputs == ("z",)


def test_every_cut_is_refused_or_leaves_a_shorter_valid_message() -> None:
    data = everywhere()[0].SerializeToString()
    whole, refused = scan(data), 0
    for length in range(len(data)):
        try:
            assert scan(data[:length]) != whole
        except IntegrityError:
            refused += 1
    assert 0 < refused < len(data)


def test_endless_nesting_is_refused() -> None:
    def field(number: int, payload: bytes) -> bytes:
        size, length = b"", len(payload)
        while length >= 0x80:
            size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + payload

    graph = b""
    for _ in range(MAX_DEPTH):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(IntegrityError, match="nested deeper"):
        scan(field(7, graph))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x3a", "cut off"),
        (b"\x3a\x05ab", "cut off"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "cut off"),
        (b"\xff" * 11, "more than ten bytes"),
        (b"\x09abc", "cut off"),
        (b"\x0b", "wire type 3"),
        (b"\x00", "no field has number 0"),
        (b"\x3a\x06\x5a\x04\x0a\x02\xff\xff", "not UTF-8"),
    ],
)
def test_malformed_bytes_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        scan(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_raise_nothing_but_the_documented_error(data: st.DataObject) -> None:
    damaged = bytearray(_VALID)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged)))
        kind = data.draw(st.sampled_from(["set", "insert", "cut"]))
        replacement = data.draw(st.binary(min_size=1, max_size=12))
        end = at if kind == "insert" else at + len(replacement)
        damaged[at:end] = b"" if kind == "cut" else replacement
    message = ""
    try:
        scan(bytes(damaged))
    except IntegrityError as failure:
        message = str(failure)
    assert message.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_the_documented_error(data: bytes) -> None:
    refusal_of(lambda: scan(data), IntegrityError)


_VALID = everywhere()[0].SerializeToString()
