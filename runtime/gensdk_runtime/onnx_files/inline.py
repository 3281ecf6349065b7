"""Puts tensors that lie in other files into the ONNX file itself, so that a backend opens no file by name.

What was read and checked is what is used: between a check and a backend's own opening somebody could put another
file in place. The fields are those of onnx.proto3; see :mod:`gensdk_runtime.onnx_files.scan`, which is to look
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.onnx_files.fields import INSIDE, encoded, fields, text_field

MAX_BYTES = 2**31 - 1
"""Of an ONNX file; Protocol Buffers hold no more."""

_RAW, _EXTERNAL, _LOCATION_OF_DATA = 9, 13, 14  # fields of a tensor
_KEY, _VALUE = 1, 2  # fields of an entry that says where a tensor lies

_Chunks = list[bytes | memoryview]


def inlined(data: bytes, files: Mapping[str, bytes]) -> bytes:
    """`data` with the content of `files`, by the location that the tensors give, in place of the locations.

    Raises :class:`IntegrityError` where a tensor lies outside its file.
    """
    return b"".join(_rebuilt("model", data, 0, len(data), files))


def _rebuilt(kind: str, data: bytes, start: int, end: int, files: Mapping[str, bytes]) -> _Chunks:
    inside, chunks = INSIDE[kind], _Chunks()
    if kind == "tensor":
        entries = [(f.start, f.end) for f in fields(data, start, end) if f.number == _EXTERNAL]
        if entries:
            return _tensor(data, start, end, entries, files)
    since = start  # what is the same is copied in one piece
    view = memoryview(data)
    for found in fields(data, start, end):
        if found.wire == 2 and found.number in inside and inside[found.number] != "external":
            part = _rebuilt(inside[found.number], data, found.start, found.end, files)
            if len(part) == 1 and len(part[0]) == found.end - found.start:
                continue  # nothing in it lies outside
            chunks += [
                view[since : found.tag],
                encoded(found.number << 3 | 2),
                encoded(sum(map(len, part))),
                *part,
            ]
            since = found.end
    return [*chunks, view[since:end]]


def _tensor(
    data: bytes, start: int, end: int, entries: Sequence[tuple[int, int]], files: Mapping[str, bytes]
) -> _Chunks:
    try:
        said = {
            text_field(data, fields(data, *span), _KEY): text_field(data, fields(data, *span), _VALUE)
            for span in entries
        }
        content = files[said.get("location", "")]
        offset = int(said.get("offset", "0"))
        length = int(said["length"]) if "length" in said else len(content) - offset
    except (ValueError, KeyError):  # no number, no text, no location
        raise IntegrityError("malformed ONNX: a tensor does not say where it lies") from None
    if offset < 0 or length < 0 or offset + length > len(content):
        raise IntegrityError(
            f"a tensor lies at {offset} to {offset + length} of {said['location'][:80]!r}, which has "
            f"{len(content)} bytes"
        )
    view = memoryview(data)
    kept: _Chunks = [
        view[f.tag : f.end]
        for f in fields(data, start, end)
        if f.number not in (_RAW, _EXTERNAL, _LOCATION_OF_DATA)
    ]
    return [*kept, encoded(_RAW << 3 | 2), encoded(length), memoryview(content)[offset : offset + length]]
