"""A GPU that isn't there: CUDA's runtime API and TensorRT's over the CPU's memory, for the logic around them.

It is stricter than a real one. A stream's work is done as late as it may be, so a buffer that is changed too early
shows; memory starts as garbage; a copy in the wrong direction, or beyond what was allocated, fails; and at the end
one can count what was copied, launched, and not freed.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from cuda.bindings import runtime as real

OK = real.cudaError_t.cudaSuccess
WRONG = real.cudaError_t.cudaErrorInvalidValue
KINDS = real.cudaMemcpyKind
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(float16)": "float16"}
LIMITS = {"guidance": 2, "labels": 128, "rows": 1024}
LARGEST = 64


class HostCuda:
    """``cuda.bindings.runtime``; its types, constants and texts are the real ones."""

    def __init__(self) -> None:
        self.memory: dict[int, tuple[str, Any]] = {}
        self.objects: dict[int, str] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.captured: dict[int, list[Callable[[], None]] | None] = {}
        self.events: dict[int, tuple[int, Callable[[], None]] | None] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.calls: Counter[str] = Counter()
        self._numbers = itertools.count(1)

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

    def cudaGetDeviceCount(self) -> Any:
        return OK, 1

    def cudaGetDeviceProperties(self, device: int) -> Any:
        return OK, SimpleNamespace(name=b"Host GPU\0\0", major=8, minor=9)

    def cudaMalloc(self, size: int) -> Any:
        return OK, self._allocate("device", size)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return OK, self._allocate("host", size)

    def cudaFree(self, address: int) -> Any:
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
        sides = {
            KINDS.cudaMemcpyHostToDevice: ("host", "device"),
            KINDS.cudaMemcpyDeviceToHost: ("device", "host"),
        }
        for address, side in zip((source, target), sides[kind], strict=True):
            if self.memory[address][0] != side or len(self.memory[address][1]) < size:
                return (WRONG,)
        self.calls[kind.name] += 1
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        def mark() -> None:
            """Marks a place in the queue."""

        self.events[event] = (stream, mark)
        self.enqueue(stream, mark)
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> Any:
        if self.events[event] is not None:
            stream, mark = self.events[event]
            while mark in self.queues[stream]:
                self.queues[stream].pop(0)()
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> Any:
        while self.queues[stream]:
            self.queues[stream].pop(0)()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> Any:
        if mode != self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal or self.queues[stream]:
            return (WRONG,)
        self.captured[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        graph = self._object("graph")
        self.graphs[graph] = self.captured[stream] or []
        self.captured[stream] = None
        return OK, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
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
        (self.queues[stream] if captured is None else captured).append(work)

    def view(self, address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """GPU memory, to compute on."""
        side, memory = self.memory[address]
        assert side == "device"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(memory, np.uint8)[:size].view(dtype).reshape(shape)

    def _allocate(self, side: str, size: int) -> int:
        memory = (ctypes.c_uint8 * size).from_buffer(bytearray(b"\xab" * size))
        address = ctypes.addressof(memory)
        self.memory[address] = (side, memory)
        return address

    def _object(self, kind: str) -> int:
        number = next(self._numbers)
        self.objects[number] = kind
        return number


class HostTrt:
    """A TensorRT package whose engines are ONNX files, run by ONNX Runtime; the rest is the real package."""

    def __init__(self, real_package: Any, cuda: HostCuda) -> None:
        self._real = real_package
        self.cuda = cuda
        self.kernels: list[bytes | None] = []
        self.capturable = True
        self.contexts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def Runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, data: bytes) -> Any:
        try:
            return HostEngine(self, onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]))
        except Exception:
            return None


class HostEngine:
    def __init__(self, trt: HostTrt, session: Any) -> None:
        self.trt, self.session = trt, session
        self.inputs = {each.name: each for each in session.get_inputs()}
        self.tensors = self.inputs | {each.name: each for each in session.get_outputs()}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self.trt.TensorIOMode
        return mode.INPUT if name in self.inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64"}
        return getattr(self.trt.DataType, kinds[DTYPES[self.tensors[name].type]])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(axis, str) else axis for axis in self.tensors[name].shape)

    def get_tensor_location(self, name: str) -> Any:
        return self.trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        shape = self.inputs[name].shape
        largest = [LIMITS.get(axis, LARGEST) if isinstance(axis, str) else axis for axis in shape]
        smallest = [1 if isinstance(axis, str) else axis for axis in shape]
        return [tuple(smallest), tuple(largest), tuple(largest)]

    def create_runtime_config(self) -> Any:
        return HostConfig(self.trt)

    def create_execution_context(self, how: Any) -> Any:
        strategy = how.strategy if isinstance(how, HostConfig) else how
        assert strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.trt.contexts += 1
        return HostContext(self)


class HostConfig:
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

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        for axis, size in zip(self.engine.inputs[name].shape, shape, strict=True):
            if isinstance(axis, str):
                if not 1 <= size <= LIMITS.get(axis, LARGEST):
                    return False
                self.sizes[axis] = size
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(
            self.sizes[axis] if isinstance(axis, str) else axis for axis in self.engine.tensors[name].shape
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

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
