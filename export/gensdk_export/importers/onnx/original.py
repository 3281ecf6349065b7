"""A third-party file as it came, run by ONNX Runtime: the reference for the bundle that is made of it.

Layouts, types, ranges and classes are translated here in NumPy, and in the bundle by operators of the graph; so
that both agree proves the operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from gensdk_export.importers.onnx.meaning import Meaning, Picture
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_runtime.backends.base import Feeds, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.onnxruntime.memory import bound_memory, give_back, wanted_too_much
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.media.value_range import to_floats, to_uint8
from gensdk_runtime.noise import Float32
from gensdk_runtime.spec.signature import GraphSpec


class TooMuchMemoryError(ExportError):
    """A run would take more than the memory limit."""


class OriginalFile:
    """The file, and what its tensors mean: called as the bundle's graph is.

    It runs in its own operator set and without ONNX Runtime's optimizer: every operator by itself and as it
    stands, quantized ones in float32, normalizations in training mode over the batch. So it is what the standard
    says, and neither a converter nor an optimizer can be wrong in it. `data`: another file with the same inputs
    and outputs.
    """

    def __init__(self, file: OnnxFile, meaning: Meaning, *, data: bytes | None = None) -> None:
        self.file = file
        self.meaning = meaning
        self._session = open_session(file.data if data is None else data, optimized=False)

    def run(self, feeds: Feeds) -> Float32:
        """The result, float32 [B, C, H, W], not clipped; `feeds` as the bundle's graph takes them.

        Raises :class:`ExportError` where ONNX Runtime fails, or the result is no image.
        """
        meaning = self.meaning
        given = dict(meaning.constants)
        first = 0
        for picture in meaning.pictures:
            last = first + (picture.channels or 3)
            part = feeds["source"][..., first:last] if feeds["source"].dtype == np.uint8 else None
            if part is None:
                part = _in_range(feeds["source"][:, first:last], meaning.pictures[0], picture)
            given[picture.port.name] = as_in_file(part, picture)
            first = last
        for noise in meaning.noises:
            given[noise.port.name] = feeds[noise_name(noise.port.name)].astype(noise.port.dtype)
        label = meaning.label
        if label is not None:
            chosen = feeds["label"] if label.table is None else label.table[feeds["label"]]
            chosen = chosen.astype(label.port.dtype)
            given[label.port.name] = chosen if label.batched else chosen[0]
            shape = label.port.shape or ()
            if label.table is None and len(shape) == 2:
                given[label.port.name] = chosen[:, None]
        result = run_output(self._session, self.file, meaning.result.port.name, given)
        if result.ndim != 4:
            raise ExportError(f"{self.file.path}: expected a result with four axes, got {list(result.shape)}")
        if meaning.result.layout == "nhwc":
            result = result.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(result, dtype=np.float32)


class OriginalSession(Session):
    """:class:`OriginalFile` with the signature of the bundle's graph."""

    def __init__(self, graph: GraphSpec, original: OriginalFile) -> None:
        super().__init__(graph, backend="original", precision="fp32")
        self._original = original

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        try:
            raw = self._original.run(feeds)
        except ExportError as failure:
            raise BackendError(str(failure)) from None
        low, high = self._original.meaning.result.value_range
        image = np.clip(raw, np.float32(low), np.float32(high))
        outputs: dict[str, Array] = {"image": image}
        if self.graph.output("pixels") is not None:
            outputs["pixels"] = to_uint8(image, (low, high))
            outputs["image_sum"] = raw.sum(axis=(1, 2, 3), dtype=np.float32)
        return outputs


class PlainSession(Session):
    """An ONNX file with the signature of `graph`, with or without what ONNX Runtime's optimizer makes of it."""

    def __init__(self, graph: GraphSpec, data: bytes, *, optimized: bool = False) -> None:
        super().__init__(graph, backend="onnxruntime" if optimized else "plain", precision="fp32")
        self._native = open_session(data, optimized=optimized)

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        names = [spec.name for spec in self.graph.outputs]
        try:
            return dict(zip(names, self._native.run(names, dict(feeds)), strict=True))
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            raise BackendError(f"graph {self.graph.name!r}: {' '.join(str(failure).split())[:200]}") from None


def open_session(data: bytes, *, optimized: bool = True) -> Any:
    """An ``InferenceSession`` on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    bound_memory(onnxruntime, options)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_output(session: Any, file: OnnxFile, output: str, feeds: Feeds) -> Array:
    """One output of the file; :class:`ExportError` where ONNX Runtime can't run it."""
    try:
        (result,) = session.run([output], dict(feeds))
    except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
        what, memory = f"{file.path}: ONNX Runtime can't run it", wanted_too_much(str(failure))
        if memory is not None:
            give_back()
            raise TooMuchMemoryError(f"{what}: {memory}") from None
        raise ExportError(f"{what}: {' '.join(str(failure).split())[:200]}") from None
    return np.asarray(result)


def noise_name(name: str) -> str:
    """What the bundle calls an input that is drawn: names of files may hold slashes and colons."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "_" for letter in name
    )
    return kept[:100] if kept[:1].isalpha() else f"z_{kept}"[:100]


def _in_range(part: Array, source: Picture, picture: Picture) -> Array:
    """Floats in the range of `source`, which the bundle takes, in that of `picture`."""
    if picture.value_range == source.value_range:
        return part
    (low, high), (own_low, own_high) = source.value_range, picture.value_range
    factor = (own_high - own_low) / (high - low)
    return np.asarray(part * np.float32(factor) + np.float32(own_low - low * factor), np.float32)


def as_in_file(source: Array, picture: Picture) -> Array:
    """uint8 [B, H, W, C] or float32 [B, C, H, W] as the file takes it."""
    if source.dtype == np.uint8:
        source = to_floats(source, picture.value_range)
    if picture.border:
        around = (picture.border, picture.border)
        source = np.pad(source, ((0, 0), (0, 0), around, around), mode="reflect")
    if picture.layout == "nhwc":
        source = source.transpose(0, 2, 3, 1)
    if np.dtype(picture.port.dtype).kind in "iu":
        limits = np.iinfo(picture.port.dtype)
        source = np.clip(np.rint(source), limits.min, limits.max)
    return np.ascontiguousarray(source.astype(picture.port.dtype))
