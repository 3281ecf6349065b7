"""A GPU that isn't there: CUDA's runtime API and TensorRT's over the CPU's memory, for the logic around them.

It is stricter than a real one. A stream's work is done as late as it may be, so a buffer that is changed too early
shows; memory starts as garbage and may be short; a copy in the wrong direction, or beyond what was allocated,
fails; and at the end one can count what was allocated, copied, launched, and not freed. Engines take the sizes of
the profiles that their builder was given, and no others; where it is asked for, TensorRT-RTX really builds them.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from cuda.bindings import runtime as real

SIDES_OF = {
    real.cudaMemcpyKind.cudaMemcpyHostToDevice: ("host", "device"),
    real.cudaMemcpyKind.cudaMemcpyDeviceToHost: ("device", "host"),
    real.cudaMemcpyKind.cudaMemcpyDeviceToDevice: ("device", "device"),
}
OK = real.cudaError_t.cudaSuccess
WRONG = real.cudaError_t.cudaErrorInvalidValue
KINDS = real.cudaMemcpyKind
DTYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}
MAGIC = b"engine of the host\n"
NO_MEMORY = real.cudaError_t.cudaErrorMemoryAllocation
LIMITS = {"guidance": 2, "labels": 128, "rows": 1024}
LARGEST = 64
SIDES = ("height", "width")
MEMORY = 8 * 2**30
"""Bytes of the device."""


Captured = list[tuple[int, Callable[[], None]]]
"""What was put into the streams of a capture, in order."""


class Mark(NamedTuple):
    """Where an event was recorded: behind `work` of a stream, or behind so many works of a capture."""

    stream: int
    work: Callable[[], None]
    captured: Captured | None
    length: int


class HostCuda:
    """``cuda.bindings.runtime``; its types, constants and texts are the real ones."""

    def __init__(self) -> None:
        self.memory: dict[int, tuple[str, Any]] = {}
        self.objects: dict[int, str] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.captured: dict[int, Captured | None] = {}
        self.events: dict[int, Mark | None] = {}
        self.capturers: dict[int, int] = {}
        """The thread of each stream that began a capture."""
        self.unjoined: dict[int, set[int]] = {}
        """Of each stream that began a capture, those that joined it and have work that it does not wait for."""
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.calls: Counter[str] = Counter()
        self.threads: set[int] = set()
        self.capability = (8, 9)
        self.room: int | None = None
        """Bytes that may be allocated on the device; None: as many as there are."""
        self._numbers = itertools.count(1)
        self._working = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        if (
            name != "cudaGetErrorString"
            and callable(getattr(real, name))
            and not isinstance(getattr(real, name), type)
        ):
            raise AttributeError(f"{name} is not played here")
        return getattr(real, name)

    def cudaDriverGetVersion(self) -> Any:
        return OK, 13000

    def cudaRuntimeGetVersion(self) -> Any:
        return OK, 13000

    def cudaGetDeviceCount(self) -> Any:
        return OK, 1

    def cudaGetDevice(self) -> Any:
        return OK, 0

    def cudaSetDevice(self, device: int) -> Any:
        """The one way in which a thread gets the context here, so that no one relies on another call."""
        self.threads.add(threading.get_ident())
        return (OK if device == 0 else WRONG,)

    def cudaGetDeviceProperties(self, device: int) -> Any:
        major, minor = self.capability
        return OK, SimpleNamespace(name=b"Host GPU\0\0", major=major, minor=minor, totalGlobalMem=MEMORY)

    def cudaMemGetInfo(self) -> Any:
        return OK, MEMORY - self.taken, MEMORY

    @property
    def taken(self) -> int:
        """Bytes on the device."""
        return sum(len(memory) for side, memory in list(self.memory.values()) if side == "device")

    def cudaMalloc(self, size: int) -> Any:
        if threading.get_ident() in self.capturers.values():  # which no capture of this thread allows
            return real.cudaError_t.cudaErrorStreamCaptureUnsupported, 0
        if self.room is not None and self.taken + size > self.room:
            self.calls["refused"] += 1
            return NO_MEMORY, 0
        return OK, self._allocate("device", size)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return OK, self._allocate("host", size)

    def cudaFree(self, address: int) -> Any:
        if threading.get_ident() in self.capturers.values():
            return (real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        if not address:  # frees nothing, and makes the context
            return (OK,)
        return (OK if self.memory.pop(address)[0] == "device" else WRONG,)

    def cudaFreeHost(self, address: int) -> Any:
        return (OK if self.memory.pop(address)[0] == "host" else WRONG,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        stream = self._object("stream")
        self.queues[stream], self.captured[stream] = [], None
        return OK, stream

    def cudaStreamDestroy(self, stream: int) -> Any:
        return (OK if self.objects.pop(stream) == "stream" else WRONG,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        event = self._object("event")
        self.events[event] = None
        return OK, event

    def cudaEventDestroy(self, event: int) -> Any:
        return (OK if self.objects.pop(event) == "event" else WRONG,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> Any:
        return self.cudaMemcpy2DAsync(target, size, source, size, size, 1, kind, stream)

    def cudaMemcpy2DAsync(
        self, target: int, pitch: int, source: int, step: int, width: int, rows: int, kind: Any, stream: int
    ) -> Any:
        if kind not in SIDES_OF or min(pitch, step) < width:
            return (WRONG,)
        for address, each, side in zip((source, target), (step, pitch), SIDES_OF[kind], strict=True):
            if not self.holds(address, side, each * (rows - 1) + width):
                return (WRONG,)
        self.calls[kind.name] += 1

        def copy() -> None:
            for row in range(rows):
                ctypes.memmove(target + row * pitch, source + row * step, width)

        self.enqueue(stream, copy)
        return (OK,)

    def cudaMemsetAsync(self, target: int, value: int, size: int, stream: int) -> Any:
        return self.cudaMemset2DAsync(target, size, value, size, 1, stream)

    def cudaMemset2DAsync(self, target: int, pitch: int, value: int, width: int, rows: int, stream: int) -> Any:
        if pitch < width or not self.holds(target, "device", pitch * (rows - 1) + width):
            return (WRONG,)
        self.calls["memset"] += 1

        def clear() -> None:
            for row in range(rows):
                ctypes.memset(target + row * pitch, value, width)

        self.enqueue(stream, clear)
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        def mark() -> None:
            """Marks a place in the queue."""

        captured = self.captured[stream]
        self.enqueue(stream, mark)
        self.events[event] = Mark(stream, mark, captured, 0 if captured is None else len(captured))
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> Any:
        self.calls["waits"] += 1
        place = self.events[event]
        if place is not None and place.captured is not None:
            return (real.cudaError_t.cudaErrorCapturedEvent,)
        if place is not None:
            self._work_until(place.stream, place.work)
        return (OK,)

    def cudaEventQuery(self, event: int) -> Any:
        place = self.events[event]
        if place is not None and place.captured is not None:
            return (real.cudaError_t.cudaErrorCapturedEvent,)
        with self._working:
            over = place is None or place.work not in self.queues[place.stream]
        return (OK if over else real.cudaError_t.cudaErrorNotReady,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> Any:
        place = self.events[event]
        if place is None:
            return (OK,)
        if place.captured is None:
            if self.captured[stream] is not None:
                return (real.cudaError_t.cudaErrorStreamCaptureIsolation,)
            self.enqueue(stream, lambda: self._work_until(place.stream, place.work))
            return (OK,)
        return (self._join(stream, place),)

    def _join(self, stream: int, place: Mark) -> Any:
        """A stream waits for a place in a capture, and is part of it from then on."""
        captured = place.captured
        assert captured is not None
        if self.captured[stream] is None:
            self.captured[stream] = captured
        elif self.captured[stream] is not captured:
            return real.cudaError_t.cudaErrorStreamCaptureMerge
        origin = next((each for each in self.unjoined if self.captured[each] is captured), None)
        if origin is None:
            return real.cudaError_t.cudaErrorStreamCaptureInvalidated
        if stream == origin and not any(by == place.stream for by, _ in captured[place.length :]):
            self.unjoined[origin].discard(place.stream)
        return OK

    def _work_until(self, stream: int, mark: Callable[[], None]) -> None:
        with self._working:  # what another thread took out is over when it lets go
            queue = self.queues.get(stream, [])
            while mark in queue:
                queue.pop(0)()

    def cudaStreamSynchronize(self, stream: int) -> Any:
        if self.captured[stream] is not None:
            return (real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.calls["waits"] += 1
        with self._working:
            while self.queues[stream]:
                self.queues[stream].pop(0)()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> Any:
        if mode != self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal or self.queues[stream]:
            return (WRONG,)
        self.captured[stream] = []
        self.unjoined[stream] = set()
        self.capturers[stream] = threading.get_ident()
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        whole, unjoined = self.captured[stream], self.unjoined.pop(stream)
        del self.capturers[stream]
        for each, captured in self.captured.items():
            if captured is whole:
                self.captured[each] = None
        if unjoined:
            return real.cudaError_t.cudaErrorStreamCaptureUnjoined, 0
        graph = self._object("graph")
        self.graphs[graph] = [work for _, work in whole or []]
        return OK, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        self.calls["captured"] += 1
        executable = self._object("executable")
        self.graphs[executable] = self.graphs[graph]
        return OK, executable

    def cudaGraphDestroy(self, graph: int) -> Any:
        return (OK if self.objects.pop(graph) == "graph" else WRONG,)

    def cudaGraphExecDestroy(self, executable: int) -> Any:
        return (OK if self.objects.pop(executable) == "executable" else WRONG,)

    def cudaGraphLaunch(self, executable: int, stream: int) -> Any:
        self.calls["launch"] += 1
        for work in self.graphs[executable]:
            self.enqueue(stream, work)
        return (OK,)

    def cudaGetLastError(self) -> Any:
        return (OK,)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        captured = self.captured[stream]
        if captured is None:
            self.queues[stream].append(work)
            return
        captured.append((stream, work))
        for origin, unjoined in self.unjoined.items():
            if self.captured[origin] is captured and stream != origin:
                unjoined.add(stream)

    def view(self, address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """GPU memory, to compute on."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        base = self.base(address)
        assert base is not None
        assert self.holds(address, "device", size)
        memory = np.frombuffer(self.memory[base][1], np.uint8)
        return memory[address - base :][:size].view(dtype).reshape(shape)

    def base(self, address: int) -> int | None:
        """Of the allocation in which it lies."""
        known = list(self.memory.items())  # at once: other threads allocate meanwhile
        return next((base for base, (_, memory) in known if 0 <= address - base < len(memory)), None)

    def holds(self, address: int, side: str, size: int) -> bool:
        """True if so many bytes from there on are of one allocation on this side."""
        base = self.base(address)
        if base is None:
            return False
        where, memory = self.memory[base]
        return where == side and address - base + size <= len(memory)

    def _allocate(self, side: str, size: int) -> int:
        self.calls["allocated"] += 1
        memory = (ctypes.c_uint8 * size).from_buffer(bytearray(b"\xab" * size))
        address = ctypes.addressof(memory)
        self.memory[address] = (side, memory)
        return address

    def _object(self, kind: str) -> int:
        number = next(self._numbers)
        self.objects[number] = kind
        return number


class HostTrt:
    """A TensorRT package whose engines are ONNX files, run by ONNX Runtime; the rest is the real package.

    `builds`: engines are built for real too, so that what the builder refuses is refused.
    """

    def __init__(self, real_package: Any, cuda: HostCuda, *, builds: bool = False) -> None:
        self._real = real_package
        self.cuda = cuda
        self.builds = builds
        self.kernels: list[bytes | None] = []
        self.capturable = True
        self.contexts = 0
        self.built: list[HostConfig] = []
        """The configuration of each build."""
        self.parsed: dict[int, tuple[Any, bytes]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def Builder(self, logger: Any) -> Any:
        return HostBuilder(self, self._real.Builder(logger))

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return HostParser(self, network, self._real.OnnxParser(network, logger))

    def Runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, data: bytes) -> Any:
        profiles = [None]
        if data.startswith(MAGIC):
            line, _, data = data.removeprefix(MAGIC).partition(b"\n")
            profiles = json.loads(line) or [None]
        try:
            return HostEngine(
                self, onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]), profiles
            )
        except Exception:
            return None


class Wrapped:
    """Something real, of which some calls are heard."""

    def __init__(self, thing: Any) -> None:
        self.__dict__["real"] = thing

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class HostParser(Wrapped):
    def __init__(self, trt: HostTrt, network: Any, parser: Any) -> None:
        super().__init__(parser)
        self.trt, self.network = trt, network

    def parse(self, data: bytes, path: str | None = None) -> bool:
        self.trt.parsed[id(self.network)] = self.network, data
        return bool(self.real.parse(data, path))


class HostBuilder(Wrapped):
    def __init__(self, trt: HostTrt, builder: Any) -> None:
        super().__init__(builder)
        self.trt = trt

    def create_builder_config(self) -> Any:
        return HostConfig(self.real.create_builder_config())

    def create_optimization_profile(self) -> Any:
        return HostProfile(self.real.create_optimization_profile())

    def build_serialized_network(self, network: Any, config: HostConfig) -> bytes | None:
        self.trt.built.append(config)
        if self.trt.builds and self.real.build_serialized_network(network, config.real) is None:
            return None
        profiles = json.dumps([profile.shapes for profile in config.profiles]).encode()
        return MAGIC + profiles + b"\n" + self.trt.parsed.pop(id(network))[1]


class HostProfile(Wrapped):
    def __init__(self, profile: Any) -> None:
        super().__init__(profile)
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.real.set_shape(name, *shapes)
        self.shapes[name] = [list(shape) for shape in shapes]


class HostConfig(Wrapped):
    """A builder's configuration. Timings are kept as the classic builder does, for TensorRT-RTX keeps none."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.__dict__.update(profiles=[], timings=None, limits={})

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def add_optimization_profile(self, profile: HostProfile) -> int:
        self.profiles.append(profile)
        return int(self.real.add_optimization_profile(profile.real))

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size
        self.real.set_memory_pool_limit(pool, size)

    def create_timing_cache(self, data: bytes) -> HostTimings | None:
        return HostTimings(set(data.split())) if data != b"of another GPU" else None

    def set_timing_cache(self, cache: HostTimings, ignore_mismatch: bool) -> bool:
        self.__dict__["timings"] = cache
        cache.known.add(f"layer{len(cache.known)}".encode())  # what this build is going to measure
        return not ignore_mismatch


class HostTimings:
    def __init__(self, known: set[bytes]) -> None:
        self.known = known

    def combine(self, other: HostTimings, ignore_mismatch: bool) -> bool:
        self.known |= other.known
        return not ignore_mismatch

    def serialize(self) -> bytes:
        return b" ".join(sorted(self.known))


class HostEngine:
    def __init__(self, trt: HostTrt, session: Any, profiles: list[Any]) -> None:
        self.trt, self.session = trt, session
        self.profiles = profiles
        self.num_optimization_profiles = len(profiles)
        self.inputs = {each.name: each for each in session.get_inputs()}
        self.tensors = self.inputs | {each.name: each for each in session.get_outputs()}
        self.num_io_tensors = len(self.tensors)
        self._times: dict[str, int] | None = None

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self.trt.TensorIOMode
        return mode.INPUT if name in self.inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "uint8": "UINT8"}
        return getattr(self.trt.DataType, kinds[DTYPES[self.tensors[name].type]])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(axis, str) else axis for axis in self.tensors[name].shape)

    def result_size(self, axis: str, sizes: dict[str, int]) -> int:
        """Of an axis that outputs alone have, as a result that is so many times as high as its source."""
        if self._times is None:
            smallest = {name: self.get_tensor_profile_shape(name, 0)[0] for name in self.inputs}
            feeds = {name: np.zeros(shape, DTYPES[self.inputs[name].type]) for name, shape in smallest.items()}
            names = [name for name in self.tensors if name not in self.inputs]
            made = zip(names, self.session.run(names, feeds), strict=True)
            found = {
                each: array.shape[place]
                for name, array in made
                for place, each in enumerate(self.tensors[name].shape)
            }
            named = zip(self.inputs["source"].shape, smallest["source"], strict=True)
            self._times = {
                f"result_{each}": found[f"result_{each}"] // size for each, size in named if each in SIDES
            }
        return self._times[axis] * sizes[axis.removeprefix("result_")]

    def get_tensor_location(self, name: str) -> Any:
        return self.trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        shape = self.inputs[name].shape
        if self.profiles[profile] is not None:
            fixed = [shape] * 3  # an input without named axes
            return [tuple(each) for each in self.profiles[profile].get(name, fixed)]
        largest = [LIMITS.get(axis, LARGEST) if isinstance(axis, str) else axis for axis in shape]
        smallest = [1 if isinstance(axis, str) else axis for axis in shape]
        return [tuple(smallest), tuple(largest), tuple(largest)]

    def create_runtime_config(self) -> Any:
        return HostRuntimeConfig(self.trt)

    def create_execution_context(self, how: Any) -> Any:
        strategy = how.strategy if isinstance(how, HostRuntimeConfig) else how
        assert strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.trt.contexts += 1
        return HostContext(self)


class HostRuntimeConfig:
    def __init__(self, trt: HostTrt) -> None:
        self.trt = trt
        self.strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return HostKernels(self.trt)

    def set_runtime_cache(self, cache: Any) -> bool:
        return True


class HostKernels:
    def __init__(self, trt: HostTrt) -> None:
        self.trt = trt

    def deserialize(self, blob: bytes) -> bool:
        self.trt.kernels.append(blob)
        return True

    def serialize(self) -> bytes:
        return f"kernels of {self.trt.contexts} contexts".encode()


class HostContext:
    def __init__(self, engine: HostEngine) -> None:
        self.engine = engine
        self.sizes: dict[str, int] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = 0
        self.profile = 0

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream in self.engine.trt.cuda.queues
        self.profile, self.sizes = profile, {}
        return 0 <= profile < self.engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        lowest, _, highest = self.engine.get_tensor_profile_shape(name, self.profile)
        if not all(low <= size <= high for low, size, high in zip(lowest, shape, highest, strict=True)):
            return False
        named = zip(self.engine.inputs[name].shape, shape, strict=True)
        self.sizes.update({axis: size for axis, size in named if isinstance(axis, str)})
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(
            axis
            if isinstance(axis, int)
            else self.sizes[axis]
            if axis in self.sizes
            else self.engine.result_size(axis, self.sizes)
            for axis in self.engine.tensors[name].shape
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.engine.trt.cuda.queues
        return self.engine.trt.capturable

    def update_device_memory_size_for_shapes(self) -> int:
        return 512 * sum(self.sizes.values())

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.update_device_memory_size_for_shapes()
        self.scratch = address

    def execute_async_v3(self, stream: int) -> bool:
        cuda, addresses = self.engine.trt.cuda, dict(self.addresses)
        if cuda.captured[stream] is not None and not self.engine.trt.capturable:
            return False
        assert set(addresses) == set(self.engine.tensors)
        views = {
            name: cuda.view(address, self.get_tensor_shape(name), DTYPES[self.engine.tensors[name].type])
            for name, address in addresses.items()
        }
        assert self.scratch in cuda.memory

        def work() -> None:
            feeds = {name: views[name] for name in self.engine.inputs}
            names = [name for name in views if name not in feeds]
            for name, result in zip(names, self.engine.session.run(names, feeds), strict=True):
                views[name][...] = result

        cuda.calls["enqueue"] += 1
        cuda.enqueue(stream, work)
        return True
