"""Weights that are too many for one ONNX file: in a file of their own beside it, written tensor by tensor.

Protocol Buffers hold 2 GB, and building them takes several times the memory of what they hold. So the tensors of a
large graph go to the disk one after the other, and the graph says where each of them begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir

SEPARATE_BYTES = 2**28
"""Weights of a graph that takes more of them lie in a file of their own."""
MOST_INSIDE = 2**31 - 2**24
"""Bytes of weights that an ONNX file can hold beside its nodes."""
LEAST_BYTES = 1024
"""Of a tensor that lies there; smaller ones, which say axes and shapes, stay in the graph."""


def separate(model: onnx_ir.Model, weights: Path | None) -> bool:
    """Writes the tensors of `model` into the file `weights`, if they take over SEPARATE_BYTES together; True if it
    did, and the graph refers to them by that file's name.

    Without such a file :class:`ExportError` for more than an ONNX file can hold.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    sizes = [0 if tensor is None else tensor.nbytes for tensor in tensors]
    size = sum(each for each in sizes if each > LEAST_BYTES)
    if weights is None and size > MOST_INSIDE:
        raise ExportError(
            f"graph {model.graph.name!r} has {size} bytes of weights, and an ONNX file holds {MOST_INSIDE}; "
            "they lie in a file of their own where neither one_call nor half_weights is asked for: leave these out"
        )
    if weights is None or size <= SEPARATE_BYTES:
        return False
    import onnx_ir  # comes with PyTorch's exporter; who imports ONNX files alone has none

    onnx_ir.external_data.unload_from_model(
        model, weights.parent, weights.name, size_threshold_bytes=LEAST_BYTES, alignment=65536
    )
    return True


@dataclass(frozen=True)
class MemoryGraph:
    """An ONNX file in memory, as the source that a backend loads it from."""

    data: bytes

    @property
    def path(self) -> Path | None:
        """None: the graph is in memory."""
        return None

    def read(self) -> bytes:
        """The file's bytes."""
        return self.data


@dataclass(frozen=True)
class WrittenGraph:
    """An ONNX file in a folder of this process alone, with its weights beside it, as such a source."""

    path: Path

    def read(self) -> bytes:
        """The bytes of the graph without its weights."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class OnnxFiles:
    """The ONNX `files` of graphs by name; `weights`: where those are that lie outside of them.

    Beside weights stands the graph too, under the same name with the suffix ``.onnx``.
    """

    files: Mapping[str, bytes]
    weights: Mapping[str, Path] = field(default_factory=dict)

    def source(self, name: str) -> GraphSource:
        """What a backend loads the graph from."""
        weights = self.weights.get(name)
        return MemoryGraph(self.files[name]) if weights is None else WrittenGraph(onnx_beside(weights))

    def size(self, name: str) -> int:
        """Bytes of the graph with its weights."""
        weights = self.weights.get(name)
        return len(self.files[name]) + (0 if weights is None else weights.stat().st_size)


def onnx_beside(weights: Path) -> Path:
    """The graph's file that goes with a file of weights."""
    return weights.with_suffix(".onnx")
