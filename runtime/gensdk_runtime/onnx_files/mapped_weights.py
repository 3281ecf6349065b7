"""Takes the large weights out of an ONNX file and into a mapped temporary file, so that they cost no memory.

A backend packs weights in its own way when it compiles a graph, and needs the originals only for that; but as long
as it may compile again, they have to be kept. As bytes they stay in memory. Pages of a mapped file can be given
back at any time (:meth:`MappedWeights.release`) and return from the disk when they are read again. The temporary
file has no name, is the user's own and holds what was checked, whatever becomes of the bundle.

The fields are those of onnx.proto3; see :mod:`gensdk_runtime.onnx_files.scan`.
"""

from __future__ import annotations

import mmap
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.onnx_files.fields import Field, fields, message, number, text_field
from gensdk_runtime.onnx_files.nodes import tensor_fields

MIN_FILE_BYTES = 16 * 2**20
"""A smaller file stays in memory as it is."""
MIN_WEIGHT_BYTES = 2**14
RELEASE_EVERY = 0.01  # seconds

_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.float32), 10: np.dtype(np.float16)}  # TensorProto.DataType
_ALIGNMENT = 64
_MODEL_GRAPH, _GRAPH_INITIALIZER, _GRAPH_INPUT = 7, 5, 11


@dataclass(frozen=True)
class MappedWeights:
    """`skeleton`: an ONNX file in which the weights `arrays` (by name, float32 or float16) are inputs."""

    skeleton: bytes
    arrays: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    _map: mmap.mmap | None = None

    def release(self) -> None:
        """Gives the memory of the weights back; they are read from the file again on access."""
        if sys.platform != "win32" and self._map is not None:  # Windows keeps what it has read
            self._map.madvise(mmap.MADV_DONTNEED)

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Gives memory back all the time while another thread reads the weights once, and afterwards."""
        if self._map is None:
            yield
            return
        done = Event()

        def work() -> None:
            while not done.wait(RELEASE_EVERY):
                self.release()

        thread = Thread(target=work, name="gensdk-weights", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.release()


def map_weights(data: bytes) -> MappedWeights:
    """Splits the bytes of an ONNX file that has been scanned; a small one, or without room for a file, is left."""
    if len(data) < MIN_FILE_BYTES:
        return MappedWeights(data)
    weights = [weight for weight in _weights(data) if weight.end - weight.start >= MIN_WEIGHT_BYTES]
    if not weights:
        return MappedWeights(data)
    try:
        mapped, offsets = _spill(data, weights)
    except OSError:  # no room in the temporary folder
        return MappedWeights(data)
    arrays = {
        weight.name: np.frombuffer(mapped, weight.dtype, prod(weight.shape), offset).reshape(weight.shape)
        for weight, offset in zip(weights, offsets, strict=True)
    }
    return MappedWeights(_skeleton(data, {weight.field for weight in weights}, weights), arrays, mapped)


@dataclass(frozen=True)
class _Weight:
    """An initializer of the main graph: where its field is, and where in the file its numbers are."""

    field: tuple[int, int]
    name: str
    type: int
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return _DTYPES[self.type]


def _weights(data: bytes) -> Iterator[_Weight]:
    taken = {_name_of_input(data, found) for found in _graph_fields(data) if found.number == _GRAPH_INPUT}
    for found in _graph_fields(data):
        if found.number == _GRAPH_INITIALIZER:
            weight = _weight(data, found)
            if weight is not None and weight.name not in taken:
                yield weight


def _weight(data: bytes, tensor: Field) -> _Weight | None:
    """The tensor if its numbers lie in it, as they are in memory, and are of a known type; else None."""
    found = tensor_fields(data, tensor.start, tensor.end)
    if found.raw is None or found.type not in _DTYPES:
        return None
    if found.raw[1] - found.raw[0] != prod(found.shape) * _DTYPES[found.type].itemsize:
        return None
    return _Weight((tensor.tag, tensor.end), found.name, found.type, found.shape, *found.raw)


def _spill(data: bytes, weights: Iterable[_Weight]) -> tuple[mmap.mmap, list[int]]:
    """The weights in a nameless file, mapped, and where each begins."""
    offsets = []
    with tempfile.TemporaryFile(prefix="gensdk-") as file:
        for weight in weights:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            offsets.append(file.tell())
            file.write(memoryview(data)[weight.start : weight.end])
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), offsets


def _skeleton(data: bytes, left_out: set[tuple[int, int]], inputs: Iterable[_Weight]) -> bytes:
    """The file without the fields `left_out` of its graph, and with `inputs` added to it."""
    model = bytearray()
    for found in fields(data, 0, len(data)):
        if found.number != _MODEL_GRAPH:
            model += data[found.tag : found.end]
    graph = bytearray()
    for found in _graph_fields(data):
        if (found.tag, found.end) not in left_out:
            graph += data[found.tag : found.end]
    for weight in inputs:
        dims = b"".join(message(1, number(1, size)) for size in weight.shape)
        tensor_type = number(1, weight.type) + message(2, dims)
        graph += message(_GRAPH_INPUT, message(1, weight.name.encode()) + message(2, message(1, tensor_type)))
    return bytes(model + message(_MODEL_GRAPH, graph))


def _graph_fields(data: bytes) -> Iterator[Field]:
    for found in fields(data, 0, len(data)):
        if found.number == _MODEL_GRAPH:
            yield from fields(data, found.start, found.end)


def _name_of_input(data: bytes, value_info: Field) -> str:
    return text_field(data, fields(data, value_info.start, value_info.end), 1)
