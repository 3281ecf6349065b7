"""Fields of Protocol Buffers in an ONNX file that :mod:`gensdk_runtime.onnx_files.scan` found to be well
formed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Field:
    """``data[tag:end]`` is the whole field, ``data[start:end]`` its value."""

    number: int
    wire: int
    tag: int
    start: int
    end: int


def fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[at:end]``."""
    while at < end:
        key, start = varint(data, at)
        wire = key & 7
        if wire == 0:
            stop = varint(data, start)[1]
        elif wire == 2:
            length, start = varint(data, start)
            stop = start + length
        else:
            stop = start + {1: 8, 5: 4}[wire]
        yield Field(key >> 3, wire, at, start, stop)
        at = stop


def text_field(data: bytes, start: int, end: int, number: int) -> str:
    """The string `number` of a message; of several the last, as Protocol Buffers have it."""
    found = [field for field in fields(data, start, end) if field.number == number]
    return data[found[-1].start : found[-1].end].decode() if found else ""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at byte `at` and the byte after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


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
