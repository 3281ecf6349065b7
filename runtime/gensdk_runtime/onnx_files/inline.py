"""Puts tensors that lie in other files into the ONNX file itself, so that a backend opens no file by name.

What was read and checked is what is used: between a check and a backend's own opening somebody could put another
file in place. The fields are those of onnx.proto3; see :mod:`gensdk_runtime.onnx_files.scan`, which is to look
first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.onnx_files.fields import INSIDE, encoded, fields, text_field

MAX_BYTES = 2**31 - 1
"""Of an ONNX file; Protocol Buffers hold no more."""

_RAW, _EXTERNAL, _LOCATION_OF_DATA = 9, 13, 14  # fields of a tensor
_KEY, _VALUE = 1, 2  # fields of an entry that says where a tensor lies

_WHOLE = re.compile("-?[0-9]{1,40}")  # backends read other texts, such as 1e3, each in its own way
MOST_TIMES = 4
"""How often a byte of these files may be in tensors on average: tied weights share some."""

_Chunks = list[bytes | memoryview]


def inlined(data: bytes, files: Mapping[str, bytes]) -> bytes:
    """`data` with the content of `files`, by the location that the tensors give, in place of the locations.

    Raises :class:`IntegrityError` as :func:`check_places` does.
    """
    check_places(data, {location: len(content) for location, content in files.items()})
    return b"".join(_rebuilt("model", data, 0, len(data), files))


def check_places(data: bytes, sizes: Mapping[str, int]) -> None:
    """Looks where the tensors of `data` lie in files of `sizes` bytes, by location.

    Raises :class:`IntegrityError` where one lies outside its file, or does not say where, and where tensors share
    so much of the files that a small bundle would take any amount of memory.
    """
    total = sum(
        _place(data, entries, sizes)[2] for entries in _external_entries("model", data, 0, len(data)) if entries
    )
    most = MOST_TIMES * sum(sizes.values())
    if total > most:
        raise IntegrityError(
            f"its tensors take {total} bytes of files of {sum(sizes.values())}, at most {most} do"
        )


def _external_entries(kind: str, data: bytes, start: int, end: int) -> Iterator[list[tuple[int, int]]]:
    """Of each tensor the entries that say where it lies."""
    inside = INSIDE[kind]
    if kind == "tensor":
        yield [(f.start, f.end) for f in fields(data, start, end) if f.number == _EXTERNAL]
        return
    for found in fields(data, start, end):
        if found.wire == 2 and found.number in inside:
            yield from _external_entries(inside[found.number], data, found.start, found.end)


def _place(data: bytes, entries: Sequence[tuple[int, int]], sizes: Mapping[str, int]) -> tuple[str, int, int]:
    """Location, offset and length of a tensor."""
    pairs = [
        (text_field(data, fields(data, *span), _KEY), text_field(data, fields(data, *span), _VALUE))
        for span in entries
    ]
    said = dict(pairs)
    numbers = [said[key] for key in ("offset", "length") if key in said]
    if len(said) < len(pairs) or said.get("location") not in sizes or not all(map(_WHOLE.fullmatch, numbers)):
        raise IntegrityError("malformed ONNX: a tensor does not say where it lies")
    location = said["location"]
    offset = int(said.get("offset", "0"))
    length = int(said["length"]) if "length" in said else sizes[location] - offset
    if offset < 0 or length < 0 or offset + length > sizes[location]:
        raise IntegrityError(
            f"a tensor lies at {offset} to {offset + length} of {location[:80]!r}, which has "
            f"{sizes[location]} bytes"
        )
    return location, offset, length


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
    location, offset, length = _place(data, entries, {each: len(content) for each, content in files.items()})
    content = files[location]
    view = memoryview(data)
    kept: _Chunks = [
        view[f.tag : f.end]
        for f in fields(data, start, end)
        if f.number not in (_RAW, _EXTERNAL, _LOCATION_OF_DATA)
    ]
    return [*kept, encoded(_RAW << 3 | 2), encoded(length), memoryview(content)[offset : offset + length]]
