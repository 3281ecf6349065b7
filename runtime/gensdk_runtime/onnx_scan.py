"""What must be known of an ONNX file before a backend may load it, read without the onnx package.

An ONNX file is a Protocol Buffers message: a row of fields, each a tag (number, wire type) and a value; a
nested message is a value of wire type 2. The scan enters only those nested messages in which a tensor, a
subgraph or a name can be, and jumps over the weights without copying them. References: the encoding at
https://protobuf.dev/programming-guides/encoding, the field numbers in onnx.proto3 of ONNX 1.23.

What it does not do: it does not check that the model is valid (the backend does), and it refuses the groups of
old Protocol Buffers, which ONNX never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gensdk_runtime.errors import IntegrityError

MAX_DEPTH = 100  # messages within messages, the limit of the Protocol Buffers libraries
MAX_FIELDS = 2_000_000  # about 100,000 nodes; about two seconds

# For each message, the fields that hold a message worth entering. All other fields are jumped over.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
    "external": {},
}
_INITIALIZER, _SPARSE_INITIALIZER, _INPUT, _OUTPUT = 5, 15, 11, 12  # fields of a graph
_FIXED_SIZE = {1: 8, 5: 4}
_BYTES = 2


@dataclass(frozen=True)
class OnnxFacts:
    """`inputs` and `outputs` of the main graph, by name and in order (an input with an initializer is a weight,
    not an input), and every `external_locations` as it is written, relative to the folder of the file.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external_locations: tuple[str, ...]


def scan(data: bytes) -> OnnxFacts:
    """Reads the facts off the bytes of an ONNX file; :class:`IntegrityError` where it is cut off or malformed."""
    walk = _Walk(data)
    walk.enter("model", 0, len(data))
    weights = set(walk.initializers)
    return OnnxFacts(
        inputs=tuple(name for name in walk.inputs if name not in weights),
        outputs=tuple(walk.outputs),
        external_locations=tuple(dict.fromkeys(walk.locations)),
    )


def external_locations(data: bytes) -> tuple[str, ...]:
    """Where the tensors of an ONNX file lie that are not inside it: each location once, as it is written.

    Covers initializers, sparse ones, attributes, subgraphs, functions and training graphs.
    """
    return scan(data).external_locations


def graph_inputs(data: bytes) -> tuple[str, ...]:
    """Names of the inputs that must be fed, in order."""
    return scan(data).inputs


def graph_outputs(data: bytes) -> tuple[str, ...]:
    """Names of the outputs, in order."""
    return scan(data).outputs


class _Walk:
    """One pass over the messages; what it finds gathers in lists."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.initializers: list[str] = []
        self.locations: list[str] = []
        self._fields_left = MAX_FIELDS

    def enter(self, kind: str, start: int, end: int, depth: int = 0) -> None:
        """Visits the message of `kind` in ``data[start:end]`` and all that it holds."""
        if depth > MAX_DEPTH:
            raise IntegrityError(f"malformed ONNX: messages nested deeper than {MAX_DEPTH}")
        if kind == "external":
            self._external(start, end)
            return
        inside = _INSIDE[kind]
        main_graph = kind == "graph" and depth == 1
        for number, first, last in self._messages(start, end):
            if main_graph:
                self._name_of(number, first, last)
            if number in inside:
                self.enter(inside[number], first, last, depth + 1)

    def _name_of(self, number: int, start: int, end: int) -> None:
        """Notes the name if this field of the main graph is an input, an output or an initializer."""
        if number == _INPUT:
            self.inputs.append(self._text(start, end, field=1))
        elif number == _OUTPUT:
            self.outputs.append(self._text(start, end, field=1))
        elif number == _INITIALIZER:
            self.initializers.append(self._text(start, end, field=8))
        elif number == _SPARSE_INITIALIZER:
            values = [(first, last) for field, first, last in self._messages(start, end) if field == 1]
            self.initializers += [self._text(first, last, field=8) for first, last in values]

    def _external(self, start: int, end: int) -> None:
        """One key and value of a tensor that lies outside the file."""
        if self._text(start, end, field=1) == "location":
            self.locations.append(self._text(start, end, field=2))

    def _text(self, start: int, end: int, *, field: int) -> str:
        """The string `field` of a message; of several the last, as Protocol Buffers have it."""
        text = ""
        for number, first, last in self._messages(start, end):
            if number == field:
                try:
                    text = self.data[first:last].decode()
                except UnicodeDecodeError:
                    raise IntegrityError(f"malformed ONNX: a name at byte {first} is not UTF-8") from None
        return text

    def _messages(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, start, end) of each field of wire type 2: messages, strings and bulk data."""
        data, at = self.data, start
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise IntegrityError(f"malformed ONNX: more than {MAX_FIELDS} fields")
            tag, at = data[at], at + 1
            if tag >= 0x80:
                tag, at = self._varint(at - 1, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise IntegrityError(f"malformed ONNX: no field has number {number} (byte {at})")
            first = at
            if wire == 0:
                _, at = self._varint(at, end)
            elif wire in _FIXED_SIZE:
                at += _FIXED_SIZE[wire]
            elif wire == _BYTES:
                length, first = self._varint(at, end)
                at = first + length
            else:
                raise IntegrityError(f"malformed ONNX: wire type {wire} at byte {at}")
            if at > end:
                raise IntegrityError(f"ONNX file cut off: a field at byte {first} ends after its message")
            if wire == _BYTES:
                yield number, first, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at byte `at` and the byte after it."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise IntegrityError(f"ONNX file cut off at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise IntegrityError(f"malformed ONNX: a number at byte {at} has more than ten bytes")
