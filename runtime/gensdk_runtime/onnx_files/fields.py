"""The fields of an ONNX file, which is a Protocol Buffers message, read as hostile input and written.

A message is a row of fields, each a tag (number, wire type) and a value; a nested message is a value of wire
type 2. References: the encoding at https://protobuf.dev/programming-guides/encoding, the field numbers in
onnx.proto3 of ONNX 1.23. It refuses the groups of old Protocol Buffers, which ONNX never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gensdk_runtime.errors import IntegrityError

# For each message, the fields that hold a message worth entering. All other fields are jumped over.
INSIDE: Mapping[str, Mapping[int, str]] = {
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


VARINT, BYTES = 0, 2
"""Wire types: a number, and bytes with their length."""
_FIXED_SIZE = {1: 8, 5: 4}
Span = tuple[int, int, int, int, int]
"""As :class:`Field`."""


class Field(NamedTuple):
    """``data[tag:end]`` is the whole field, ``data[start:end]`` its value."""

    number: int
    wire: int
    tag: int
    start: int
    end: int


@dataclass
class Budget:
    """How many fields may be read: `most`, of which some are `left`."""

    most: int

    def __post_init__(self) -> None:
        self.left = self.most


def fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[at:end]``; :class:`IntegrityError` where it is malformed or cut off."""
    return map(Field._make, spans(data, at, end, Budget(len(data))))


def spans(data: bytes, at: int, end: int, budget: Budget, only: int | None = None) -> Iterator[Span]:
    """As :func:`fields`, in plain tuples, which is faster; as many as `budget` allows, of the wire type `only`."""
    while at < end:
        budget.left -= 1
        if budget.left < 0:
            raise IntegrityError(f"malformed ONNX: more than {budget.most} fields")
        tag, key, at = at, data[at], at + 1
        if key >= 0x80:
            key, at = varint(data, tag, end)
        number, wire, start = key >> 3, key & 7, at
        if not 0 < number < 2**29:
            raise IntegrityError(f"malformed ONNX: no field has number {number} (byte {at})")
        if wire == BYTES:
            length, start = (data[at], at + 1) if at < end and data[at] < 0x80 else varint(data, at, end)
            at = start + length
        elif wire == VARINT:
            _, at = varint(data, at, end)
        elif wire in _FIXED_SIZE:
            at += _FIXED_SIZE[wire]
        else:
            raise IntegrityError(f"malformed ONNX: wire type {wire} at byte {at}")
        if at > end:
            raise IntegrityError(f"ONNX file cut off: a field at byte {start} ends after its message")
        if only is None or wire == only:
            yield number, wire, tag, start, at


def text_field(data: bytes, found: Iterable[Span], number: int) -> str:
    """The string `number` among the fields `found`; of several the last, as Protocol Buffers have it; else ""."""
    text = ""
    for each, wire, _, start, end in found:
        if each == number and wire == BYTES:
            try:
                text = data[start:end].decode()
            except UnicodeDecodeError:
                raise IntegrityError(f"malformed ONNX: a name at byte {start} is not UTF-8") from None
    return text


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at byte `at`, which ends before `end`, and the byte after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise IntegrityError(f"ONNX file cut off at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IntegrityError(f"malformed ONNX: a number at byte {at} has more than ten bytes")


def encoded(value: int) -> bytes:
    """A number as it lies in a file."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*data, value))


def number(field: int, value: int) -> bytes:
    """A field that is a number."""
    return encoded(field << 3) + encoded(value)


def message(field: int, value: bytes | bytearray) -> bytes:
    """A field that is a message or a string."""
    return encoded(field << 3 | 2) + encoded(len(value)) + bytes(value)
