"""Builds the engine of one graph from its ONNX file.

Precision lies in the ONNX types (networks are strongly typed), so a half graph gives a half engine; TF32 is off,
so that float32 means float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.tensorrt.package import Toolkit, reason
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.onnx_files.scan import scan
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import HEIGHT, MAX_ROWS, ROWS, WIDTH, GraphSpec, TensorSpec

FLAGS = ("strongly typed", "no TF32")
"""What every network and builder here is set to: part of an engine's identity."""


@dataclass(frozen=True)
class AxisRange:
    """Sizes of a named axis that an engine accepts, and the one that it is optimized for."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            sizes = f"{self.minimum}, {self.optimum}, {self.maximum}"
            raise InputError(f"engine sizes must be 1 <= min <= opt <= max, got {sizes}; change --batch")


LARGEST_SIDE = 2048
"""Pixels of the largest image that an engine takes, or four times those that the model was trained at."""


def image_axes(source: SourceSpec | None) -> dict[str, AxisRange]:
    """The sizes of the images that a translation model takes: from its smallest, best at its own."""
    if source is None:
        return {}
    sides = {HEIGHT: source.height, WIDTH: source.width}
    step = source.multiple
    return {
        axis: AxisRange(source.padded(1), side, max(side, min(4 * side, LARGEST_SIDE // step * step)))
        for axis, side in sides.items()
    }


GUIDANCE = AxisRange(1, 2, 2)
"""Guidance runs one or both halves of the batch."""


@dataclass(frozen=True)
class GraphFile:
    """The ONNX file of a graph; `path` says where it lies if tensors of it lie in other files beside it."""

    data: bytes
    path: Path | None = None

    @classmethod
    def of(cls, source: GraphSource) -> GraphFile:
        """What `source` gives, checked by it."""
        path = source.path
        return cls(source.read()) if path is None else cls(path.read_bytes(), path)

    def digest(self) -> str:
        """SHA-256, in hexadecimal, over the graph and all its weights."""
        digest = hashlib.sha256(self.data)
        if self.path is not None:
            for location in sorted(scan(self.data).external_locations):
                with (self.path.parent / location).open("rb") as file:
                    digest.update(f"\n{location} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What engine to build of `graph`.

    `axes` gives the sizes of its named axes. Known are ``guidance`` and what time embeddings are computed for:
    ``rows``, and of older bundles ``labels``, the classes of a batch and "none", padded to a power of two.
    """

    graph: GraphSpec
    precision: Precision
    axes: Mapping[str, AxisRange] = field(default_factory=dict)

    def sizes(self) -> dict[str, AxisRange]:
        """The range of each named axis of the inputs; :class:`BackendError` for an axis that has none."""
        labels = 1 << self.axes["batch"].maximum.bit_length() if "batch" in self.axes else 1
        rows = {ROWS: AxisRange(1, 32, MAX_ROWS), "labels": AxisRange(1, min(16, labels), labels)}
        known = {"guidance": GUIDANCE, **rows, **self.axes}
        named = dict.fromkeys(axis for spec in self.graph.inputs for axis in spec.shape if isinstance(axis, str))
        for axis in named:
            if axis not in known:
                raise BackendError(
                    f"graph {self.graph.name!r}: an engine needs min, opt and max sizes for axis {axis!r}; "
                    "give them in axes"
                )
        return {axis: known[axis] for axis in named}


def build(
    toolkit: Toolkit, recipe: Recipe, onnx: GraphFile, *, on_progress: Callable[[float], None] | None = None
) -> bytes:
    """The serialized engine.

    `on_progress` is called with the progress from 0 to 1, in threads of the builder; an exception that it raises
    ends the build and comes out here. Raises :class:`BackendError` where the graph can't be parsed or built, or
    comes out with another signature than the recipe's graph.
    """
    trt, graph = toolkit.trt, recipe.graph
    where = f"graph {graph.name!r}: {toolkit.runtime}"
    sizes = recipe.sizes()
    with toolkit.log.listening() as heard:
        builder = trt.Builder(toolkit.log.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, toolkit.log.logger)
        if not parser.parse(onnx.data, None if onnx.path is None else str(onnx.path)):
            found = "; ".join(_parser_error(parser.get_error(index)) for index in range(parser.num_errors))
            raise BackendError(f"{where} can't parse it: {found or reason(heard)}")
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        check_signature(trt, f"{where} input", inputs, graph.inputs)
        check_signature(trt, f"{where} output", outputs, graph.outputs)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        if sizes:
            profile = _profile(builder, graph, sizes, where)
            if config.add_optimization_profile(profile) < 0:
                raise BackendError(f"{where} refuses the optimization profile: {reason(heard)}")
        watch = None if on_progress is None else _watch(trt, on_progress)
        if watch is not None:
            config.progress_monitor = watch
        plan = builder.build_serialized_network(network, config)
        if watch is not None and watch.failure is not None:
            raise watch.failure
        if plan is None:
            raise BackendError(f"{where} can't build it: {reason(heard)}")
        return bytes(plan)


def check_signature(trt: Any, where: str, tensors: list[Any], specs: tuple[TensorSpec, ...]) -> None:
    """Raises :class:`BackendError` unless `tensors` have the names, types and shapes of `specs`."""
    names = dtype_names(trt)
    known = {spec.name: spec for spec in specs}
    if sorted(tensor.name for tensor in tensors) != sorted(known):
        raise BackendError(f"{where}s should be {list(known)}, it has {[tensor.name for tensor in tensors]}")
    for tensor in tensors:
        spec = known[tensor.name]
        dtype, shape = names.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape)
        fits = len(shape) == len(spec.shape) and all(
            have == (-1 if isinstance(want, str) else want) for have, want in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendError(
                f"{where} {spec.name!r} should be {spec.dtype} {list(spec.shape)}, it is {dtype} {list(shape)}"
            )


def dtype_names(trt: Any) -> dict[Any, str]:
    """The package's types by gensdk's names for them."""
    return {
        trt.DataType.FLOAT: "float32",
        trt.DataType.HALF: "float16",
        trt.DataType.INT64: "int64",
        trt.DataType.INT32: "int32",
        trt.DataType.UINT8: "uint8",
        trt.DataType.BOOL: "bool",
    }


def _profile(builder: Any, graph: GraphSpec, sizes: Mapping[str, AxisRange], where: str) -> Any:
    """One optimization profile over all named axes."""
    profile = builder.create_optimization_profile()
    for spec in graph.inputs:
        if not any(isinstance(axis, str) for axis in spec.shape):
            continue
        shapes = [
            tuple(axis if isinstance(axis, int) else getattr(sizes[axis], pick) for axis in spec.shape)
            for pick in ("minimum", "optimum", "maximum")
        ]
        try:
            profile.set_shape(spec.name, *shapes)
        except (ValueError, RuntimeError) as failure:
            raise BackendError(f"{where} refuses the sizes {shapes} of input {spec.name!r}: {failure}") from None
    return profile


def _parser_error(error: Any) -> str:
    operator = f"{error.node_operator()} ({error.node_name()}): " if error.node_operator() else ""
    return f"{operator}{' '.join(error.desc().split())[:200]}"


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


def _watch(trt: Any, on_progress: Callable[[float], None]) -> Any:
    """A monitor that turns the builder's nested phases into one growing fraction."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._phases: dict[str, _Phase] = {}
            self._lock = Lock()
            self._told = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = _Phase(parent_phase, max(1, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name].done = step + 1
                self._tell(self._fraction(phase_name))
                return self.failure is None

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def _fraction(self, name: str | None) -> float:
            inner = 0.0
            while name is not None and name in self._phases:
                phase = self._phases[name]
                inner, name = min(1.0, (phase.done + inner) / phase.steps), phase.parent
            return inner

        def _tell(self, fraction: float) -> None:
            if self.failure is None and fraction > self._told:
                self._told = fraction
                try:
                    on_progress(fraction)
                except BaseException as failure:  # through the library's own frames it would end the process
                    self.failure = failure

    return Monitor()
