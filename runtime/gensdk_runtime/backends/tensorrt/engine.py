"""A loaded engine: checked against the graph that it stands for, and the contexts that run it at fixed sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gensdk_runtime.backends.bound import tensor_shape
from gensdk_runtime.backends.cuda.device import CapturedGraph, DeviceMemory, Stream
from gensdk_runtime.backends.tensorrt.build import check_signature
from gensdk_runtime.backends.tensorrt.package import Toolkit, failed, reason
from gensdk_runtime.backends.tensorrt.recipe import AxisRange
from gensdk_runtime.errors import BackendError
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, GraphSpec


@dataclass(frozen=True)
class _Tensor:
    """An engine's input or output as :func:`check_signature` wants it."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


class LoadedEngine:
    """An engine on the GPU. Threads share it; each takes contexts of its own.

    `kernels`: what TensorRT-RTX compiled for this GPU in an earlier process (:meth:`kernels`), or None; ignored
    where it does not fit. Raises :class:`BackendError` where the engine can't be loaded here, or has another
    signature than `graph`.
    """

    def __init__(self, toolkit: Toolkit, graph: GraphSpec, data: bytes, kernels: bytes | None = None) -> None:
        self.toolkit, self.graph = toolkit, graph
        self._where = f"graph {graph.name!r}: the {toolkit.runtime} engine"
        with toolkit.log.listening() as heard:
            self._runtime = toolkit.trt.Runtime(toolkit.log.logger)
            self._engine = self._runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                raise failed(f"{self._where} can't be loaded here", heard)
        self._check()
        self.profiles = tuple(self._ranges(number) for number in range(self._engine.num_optimization_profiles))
        self._config: Any = None
        self._kernels: Any = None  # held here, since the configuration does not keep it alive
        if toolkit.is_rtx:
            self._configure(kernels)

    def profile(self, sizes: Mapping[str, int]) -> int:
        """The number of the first profile for these sizes; :class:`BackendError` where the engine has none."""
        for number, ranges in enumerate(self.profiles):
            if all(_allows(ranges, axis, size) for axis, size in sizes.items()):
                return number
        raise BackendError(
            f"{self._where} takes {self._refused(sizes)}; choose another size, or build an engine for it (axes of "
            "TensorRtBackend)"
        )

    def _refused(self, sizes: Mapping[str, int]) -> str:
        """What it takes, and what came: of the first axis that is out of bounds, or of all, together."""
        for axis, size in sizes.items():
            spans = [ranges[axis] for ranges in self.profiles if axis in ranges]
            if spans and not any(span.minimum <= size <= span.maximum for span in spans):
                least, most = min(span.minimum for span in spans), max(span.maximum for span in spans)
                tiles = "; Generator.translate cuts larger images into tiles" if axis in (HEIGHT, WIDTH) else ""
                return f"{axis} from {least} to {most}, got {size}{tiles}"
        each = (", ".join(f"{axis} {r.minimum} .. {r.maximum}" for axis, r in p.items()) for p in self.profiles)
        return f"{' or '.join(each)}, got {', '.join(f'{axis} {size}' for axis, size in sizes.items())}"

    def largest(self, axis: str, sizes: Mapping[str, int]) -> int | None:
        """The largest size of `axis` beside these `sizes` of other axes; None where the graph has no such axis."""
        found = [
            ranges[axis].maximum
            for ranges in self.profiles
            if axis in ranges and all(_allows(ranges, other, size) for other, size in sizes.items())
        ]
        return max(found, default=None)

    def context(self, sizes: Mapping[str, int], stream: Stream) -> Any:
        """An execution context at these sizes, for `stream`, which still lacks memory and addresses."""
        profile = self.profile(sizes)
        with self.toolkit.log.listening() as heard:
            if self._config is not None:
                context = self._engine.create_execution_context(self._config)
            else:
                strategy = self.toolkit.trt.ExecutionContextAllocationStrategy.USER_MANAGED
                context = self._engine.create_execution_context(strategy)
            if context is None:
                raise failed(f"{self._where} gives no execution context", heard)
            if profile and not context.set_optimization_profile_async(profile, stream.handle):
                raise failed(f"{self._where} refuses its profile {profile}", heard)
            for spec in self.graph.inputs:
                shape = tensor_shape(self.graph, spec, sizes)
                if not context.set_input_shape(spec.name, shape):
                    raise BackendError(f"{self._where} refuses {spec.name!r} of shape {shape}: {reason(heard)}")
            for spec in self.graph.outputs:
                shape, got = tensor_shape(self.graph, spec, sizes), tuple(context.get_tensor_shape(spec.name))
                if got != shape:  # the output would be written over other memory
                    raise BackendError(f"{self._where} gives {spec.name!r} of shape {got}, expected {shape}")
        return context

    def kernels(self) -> bytes | None:
        """What TensorRT-RTX has compiled for this GPU so far, to be loaded next time; None where there is none."""
        return None if self._kernels is None else bytes(self._kernels.serialize())

    def _check(self) -> None:
        trt, engine = self.toolkit.trt, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {"input": trt.TensorIOMode.INPUT, "output": trt.TensorIOMode.OUTPUT}
        for kind, specs in (("input", self.graph.inputs), ("output", self.graph.outputs)):
            tensors = [
                _Tensor(name, engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
                for name in names
                if engine.get_tensor_mode(name) == modes[kind]
            ]
            check_signature(trt, f"{self._where}'s {kind}", tensors, specs)
        for name in names:
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise BackendError(f"{self._where} wants {name!r} in the CPU's memory, which is not supported")

    def _ranges(self, profile: int) -> dict[str, AxisRange]:
        """The sizes of the named axes in one profile, as the engine itself has them."""
        ranges: dict[str, AxisRange] = {}
        for spec in self.graph.inputs:
            lowest, best, highest = self._engine.get_tensor_profile_shape(spec.name, profile)
            for place, axis in enumerate(spec.shape):
                if isinstance(axis, str):
                    ranges[axis] = AxisRange(lowest[place], best[place], highest[place])
        return ranges

    def _configure(self, kernels: bytes | None) -> None:
        """TensorRT-RTX compiles kernels on the GPU at hand, and captures CUDA graphs by itself."""
        trt = self.toolkit.trt
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Lazy ones would change in the middle, and with them the last bits of samples.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        cache = config.create_runtime_cache()
        if kernels is not None:
            cache.deserialize(kernels)  # False where it is of another GPU or driver: then it is compiled anew
        config.set_runtime_cache(cache)
        self._config, self._kernels = config, cache


def _allows(ranges: Mapping[str, AxisRange], axis: str, size: int) -> bool:
    """True for an axis of outputs alone, too."""
    return axis not in ranges or ranges[axis].minimum <= size <= ranges[axis].maximum


class Opened:
    """An engine of a session, with the kernels that TensorRT-RTX compiled for it.

    It compiles for the GPU at hand when it first meets a size, and the next process need not: `kernels` is what
    `keep` was last given. Threads may share it.
    """

    def __init__(
        self, engine: LoadedEngine, kernels: bytes | None = None, keep: Callable[[bytes], None] | None = None
    ) -> None:
        self.engine = engine
        self._kernels, self._keep = kernels, keep
        self._lock = new_lock()

    def keep_kernels(self) -> None:
        """Keeps what is new since the last time."""
        if self._keep is None:
            return
        with self._lock:
            made = self.engine.kernels()
            if made and made != self._kernels:
                self._keep(made)
                self._kernels = made


class Lane:
    """A context with fixed sizes and addresses: what one launch runs.

    Classic TensorRT's work is captured as a CUDA graph at the second run, since the first one still sets things
    up; a graph keeps its addresses, so states that change places need a lane for each order of them.
    """

    def __init__(self, engine: LoadedEngine, context: Any, addresses: Mapping[str, int], stream: Stream) -> None:
        self._engine, self._context, self._stream = engine, context, stream
        self._capture = not engine.toolkit.is_rtx
        self._runs = 0
        self._graph: CapturedGraph | None = None
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise BackendError(f"graph {engine.graph.name!r}: the engine refuses the memory of {name!r}")

    def memory_needed(self) -> int:
        """Bytes for what lies between the layers, at these sizes."""
        return int(self._context.update_device_memory_size_for_shapes())

    def use_memory(self, memory: DeviceMemory) -> None:
        """Lanes that never run at the same time may share it."""
        self._context.set_device_memory(memory.address, memory.size)

    @property
    def has_run(self) -> bool:
        """True if it ran once."""
        return self._runs > 0

    @property
    def is_capturable(self) -> bool:
        """True if it is known by now that a run can be part of a CUDA graph."""
        if self._engine.toolkit.is_rtx:
            return bool(self._context.is_stream_capturable(self._stream.handle))
        return self._graph is not None

    def launch(self, *, recording: bool = False) -> None:
        """Puts one run into the stream, which may be `recording`; :class:`BackendError` where that is refused."""
        if not recording and self._graph is None and self._capture and self._runs == 1:
            self._stream.synchronize()
            self._graph = self._stream.capture(self._enqueue)
            self._capture = self._graph is not None  # not everything can be captured: loops, for one
        self._runs += 1
        if self._graph is not None and not recording:
            self._graph.launch()
            return
        with self._engine.toolkit.log.listening() as heard:
            if not self._enqueue():
                raise failed(f"graph {self._engine.graph.name!r} failed", heard)

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def close(self) -> None:
        """Frees the captured graph and the context; the stream's work must be over."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = None
