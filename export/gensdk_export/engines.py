"""TensorRT-RTX and TensorRT engines, built ahead of time from the exported ONNX files.

Precision lies in the ONNX types (networks are strongly typed), so a half graph gives a half engine; TF32 is off,
so that float32 means float32. TensorRT-RTX builds without a GPU, for all GPUs that it supports; classic TensorRT
builds on and for the GPU at hand. Both have one API; :data:`RUNTIMES` is all that tells them apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from gensdk_runtime.errors import ExportError, InputError, UnavailableError
from gensdk_runtime.manifest import Dtype, EngineSpec, GraphSpec, Precision, TensorSpec

EngineRuntime = Literal["tensorrt-rtx", "tensorrt"]


@dataclass(frozen=True)
class _Package:
    modules: tuple[str, ...]
    remedy: str


RUNTIMES: Mapping[EngineRuntime, _Package] = {
    "tensorrt-rtx": _Package(("tensorrt_rtx", "tensorrt_rtx_bindings"), 'pip install "gensdk[rtx]"'),
    "tensorrt": _Package(("tensorrt", "tensorrt_bindings"), 'pip install "gensdk[tensorrt]"'),
}


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


GUIDANCE = AxisRange(1, 2, 2)
"""Guidance runs one or both halves of the batch."""


@dataclass(frozen=True)
class Engine:
    """A built engine: `data` is the file, `spec` what the manifest says of it."""

    spec: EngineSpec
    data: bytes


def build_engine(
    graph: GraphSpec,
    onnx_file: bytes,
    *,
    precision: Precision,
    batch: AxisRange,
    axes: Mapping[str, AxisRange] | None = None,
    runtime: EngineRuntime = "tensorrt-rtx",
) -> Engine:
    """Builds the engine of one graph from its ONNX file.

    `batch` and `axes` give the sizes of the graph's named axes (``guidance`` is known). Raises
    :class:`ExportError` where the graph can't be parsed or built or comes out with another signature than
    `graph`, and :class:`UnavailableError` where the package is missing.
    """
    trt = load_package(runtime)
    messages = _Messages(trt)
    builder = trt.Builder(messages.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    where = f"graph {graph.name!r}: {runtime}"
    if not parser.parse(onnx_file):
        found = "; ".join(_parser_error(parser.get_error(index)) for index in range(parser.num_errors))
        raise ExportError(f"{where} can't parse it: {found or messages.text}")
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    _check_signature(trt, f"{where} input", inputs, graph.inputs)
    _check_signature(trt, f"{where} output", outputs, graph.outputs)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = _profile(builder, graph, {"guidance": GUIDANCE, **(axes or {}), "batch": batch}, where)
    if profile is not None and config.add_optimization_profile(profile) < 0:
        raise ExportError(f"{where} refuses the optimization profile: {messages.text}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{where} can't build it: {messages.text}")
    spec = EngineSpec(
        graph=graph.name,
        precision=precision,
        file=f"engines/{graph.name}.{precision}.{runtime}.engine",
        runtime=runtime,
        version=str(trt.__version__),
        min_batch=batch.minimum,
        opt_batch=batch.optimum,
        max_batch=batch.maximum,
    )
    return Engine(spec, bytes(plan))


@cache
def load_package(runtime: EngineRuntime) -> Any:
    """The Python package of `runtime`; :class:`UnavailableError` names the remedy where it is missing."""
    package = RUNTIMES[runtime]
    reason: Exception | None = None
    for name in package.modules:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as failure:  # OSError: its shared libraries are not found
            reason = reason or failure
    raise UnavailableError(f"{runtime} is missing ({str(reason)[:120]}); {package.remedy}")


def _profile(builder: Any, graph: GraphSpec, axes: Mapping[str, AxisRange], where: str) -> Any:
    """One optimization profile over all named axes; None for a graph without any."""
    dynamic = [spec for spec in graph.inputs if any(isinstance(axis, str) for axis in spec.shape)]
    if not dynamic:
        return None
    profile = builder.create_optimization_profile()
    for spec in dynamic:
        shapes = []
        for pick in ("minimum", "optimum", "maximum"):
            shapes.append(tuple(_size(axis, axes, pick, where) for axis in spec.shape))
        try:
            profile.set_shape(spec.name, *shapes)
        except (ValueError, RuntimeError) as failure:
            raise ExportError(f"{where} refuses the sizes {shapes} of input {spec.name!r}: {failure}") from None
    return profile


def _size(axis: int | str, axes: Mapping[str, AxisRange], pick: str, where: str) -> int:
    if isinstance(axis, int):
        return axis
    if axis not in axes:
        raise ExportError(f"{where} needs min, opt and max sizes for axis {axis!r}; give them in axes")
    return int(getattr(axes[axis], pick))


def _check_signature(trt: Any, where: str, tensors: list[Any], specs: tuple[TensorSpec, ...]) -> None:
    """Names, types and shapes as the network defines them: reading them from an engine would need a GPU."""
    names: dict[Any, Dtype] = {
        trt.DataType.FLOAT: "float32",
        trt.DataType.HALF: "float16",
        trt.DataType.INT64: "int64",
        trt.DataType.INT32: "int32",
        trt.DataType.UINT8: "uint8",
        trt.DataType.BOOL: "bool",
    }
    known = {spec.name: spec for spec in specs}
    if {tensor.name for tensor in tensors} != set(known):
        raise ExportError(f"{where}s should be {list(known)}, the network has {[t.name for t in tensors]}")
    for tensor in tensors:
        spec = known[tensor.name]
        dtype, shape = names.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape)
        fits = len(shape) == len(spec.shape) and all(
            have == (-1 if isinstance(want, str) else want) for have, want in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise ExportError(
                f"{where} {spec.name!r} should be {spec.dtype} {list(spec.shape)}, the network has "
                f"{dtype} {list(shape)}"
            )


def _parser_error(error: Any) -> str:
    operator = f"{error.node_operator()} ({error.node_name()}): " if error.node_operator() else ""
    return f"{operator}{' '.join(error.desc().split())[:200]}"


class _Messages:
    """The errors that the library logs, for our own message; the rest of its talk is dropped."""

    def __init__(self, trt: Any) -> None:
        messages: list[str] = []
        serious = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in serious:
                    messages.append(message)

        self.logger = Logger()
        self._messages = messages

    @property
    def text(self) -> str:
        """The first errors in one line."""
        return "; ".join(" ".join(message.split())[:200] for message in self._messages[:3]) or "no reason given"
