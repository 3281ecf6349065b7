"""Builds the engine of one graph from its ONNX file.

Precision lies in the ONNX types (networks are strongly typed), so a half graph gives a half engine; TF32 is off,
so that float32 means float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.tensorrt.package import Toolkit, failed, reason
from gensdk_runtime.backends.tensorrt.recipe import AxisRange, Recipe, profile_shapes
from gensdk_runtime.errors import BackendError
from gensdk_runtime.onnx_files.scan import scan
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

FLAGS = ("strongly typed", "no TF32", "user allocation")
"""What every network and builder here is set to: part of an engine's identity."""


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


class Timings(Protocol):
    """What classic TensorRT measured in earlier builds on this GPU, kept for the next one."""

    def load(self) -> bytes:
        """As it was kept last; empty at first."""

    def keep(self, measured: bytes) -> None:
        """Keeps it."""


@dataclass(frozen=True)
class Target:
    """What an engine is built for, beside its recipe.

    `capability`: the only compute capability that TensorRT-RTX builds for; None: all that it does by default.
    `workspace`: bytes that a layer may use beside its tensors; None: as many as the GPU has.
    """

    capability: tuple[int, int] | None = None
    workspace: int | None = None


ANYWHERE = Target()


def build(
    toolkit: Toolkit,
    recipe: Recipe,
    onnx: GraphFile,
    *,
    target: Target = ANYWHERE,
    timings: Timings | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> bytes:
    """The serialized engine.

    `on_progress` is called with the progress from 0 to 1, in threads of the builder; an exception that it raises
    ends the build and comes out here. `timings` are used and kept, by a build that is ended too. Raises
    :class:`BackendError` where the graph can't be parsed or built, or comes out with another signature than the
    recipe's graph.
    """
    trt, graph = toolkit.trt, recipe.graph
    where = f"graph {graph.name!r}: {toolkit.runtime}"
    profiles = recipe.profiles(is_rtx=toolkit.is_rtx)
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
        _configure(toolkit, config, target, where)
        for sizes in profiles:
            if config.add_optimization_profile(_profile(builder, graph, sizes, where)) < 0:
                raise BackendError(f"{where} refuses the optimization profile: {reason(heard)}")
        watch = None if on_progress is None else _watch(trt, on_progress)
        if watch is not None:
            config.progress_monitor = watch
        with _timed(config, timings):
            plan = builder.build_serialized_network(network, config)
        if watch is not None and watch.failure is not None:
            raise watch.failure
        if plan is None:
            narrow = target.capability is not None
            raise failed(
                f"{where} can't build it{' for Turing, as tensorrt:classic can' if narrow else ''}", heard
            )
        return bytes(plan)


def _configure(toolkit: Toolkit, config: Any, target: Target, where: str) -> None:
    trt = toolkit.trt
    config.clear_flag(trt.BuilderFlag.TF32)
    allocation = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if toolkit.is_rtx and allocation is not None:  # without it, large sizes are not captured as CUDA graphs
        config.set_flag(allocation)
    if target.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, target.workspace)
    if target.capability is not None:
        config.num_compute_capabilities = 1
        named = getattr(trt.ComputeCapability, "SM{}{}".format(*target.capability), None)
        if named is None or not config.set_compute_capability(named, 0):
            raise BackendError(
                f"{where} does not build for compute capability {'{}.{}'.format(*target.capability)}"
            )


@contextmanager
def _timed(config: Any, timings: Timings | None) -> Iterator[None]:
    """Uses what was measured before, and keeps it with what is measured now, and by other builds meanwhile."""
    if timings is None:
        yield
        return
    known = config.create_timing_cache(timings.load()) or config.create_timing_cache(b"")
    config.set_timing_cache(known, False)  # not from another GPU
    try:
        yield
    finally:
        meanwhile = config.create_timing_cache(timings.load())
        if meanwhile is not None:
            known.combine(meanwhile, False)
        timings.keep(bytes(known.serialize()))


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
    for name, shapes in profile_shapes(graph, sizes).items():
        try:
            profile.set_shape(name, *shapes)
        except (ValueError, RuntimeError) as failure:
            raise BackendError(f"{where} refuses the sizes {shapes} of input {name!r}: {failure}") from None
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
