"""The GPU through CUDA's runtime API: memory, copies, one stream, captured graphs. Every call is checked.

What is allocated is freed with its owner, or earlier where there is a ``close()``; nothing is freed at the exit of
the process, when the driver may be gone already.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import BackendError, OutOfMemoryError, UnavailableError

INSTALL = "pip install cuda-bindings"
OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""


def cuda() -> Any:
    """CUDA's runtime API; :class:`UnavailableError` where the package is missing."""
    try:
        from cuda.bindings import runtime
    except ImportError as failure:
        raise UnavailableError(f"cuda-bindings is missing ({str(failure)[:120]}); {INSTALL}") from None
    return runtime


def driver() -> Any:
    """CUDA's driver API; :class:`UnavailableError` where the package is missing."""
    try:
        from cuda.bindings import driver as api
    except ImportError as failure:
        raise UnavailableError(f"cuda-bindings is missing ({str(failure)[:120]}); {INSTALL}") from None
    return api


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its compute `capability`, the newest CUDA that its `driver` knows (13020 is 13.2), and the
    bytes of its `memory`, in whole GiB."""

    name: str
    capability: tuple[int, int]
    driver: int
    memory: int = 0

    @property
    def model(self) -> str:
        """What classic engines are bound to, as in ``NVIDIA L4 (compute capability 8.9)``."""
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]})"


def find_gpu() -> Gpu:
    """The GPU that engines run on; :class:`UnavailableError` says what is missing and what mends it."""
    api = cuda()
    try:
        _, driver = api.cudaDriverGetVersion()
    except RuntimeError:  # older bindings, where there is no library of the driver
        driver = 0
    if not driver:
        raise UnavailableError(
            "no NVIDIA driver was found, and engines run on NVIDIA GPUs alone; install it, or use backend='auto' "
            "on a machine without such a GPU"
        )
    error, count = api.cudaGetDeviceCount()
    if error == api.cudaError_t.cudaErrorInsufficientDriver:
        raise UnavailableError(
            f"the NVIDIA driver knows CUDA {driver // 1000}.{driver % 1000 // 10}, and cuda-bindings is newer; "
            f'update the driver, or pip install "cuda-bindings=={driver // 1000}.*"'
        )
    if error != api.cudaError_t.cudaSuccess or not count:
        raise UnavailableError(f"no NVIDIA GPU was found ({_name(error)}); engines run on nothing else")
    found = check(api.cudaGetDeviceProperties(0))
    name = found.name.decode(errors="replace") if isinstance(found.name, bytes) else str(found.name)
    memory = int(found.totalGlobalMem) >> 30 << 30
    return Gpu(name.rstrip("\0"), (int(found.major), int(found.minor)), int(driver), memory)


def check(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call; :class:`BackendError` where the call failed."""
    error, *values = result
    if int(error) == OUT_OF_MEMORY:
        raise OutOfMemoryError(f"CUDA failed: {_name(error)}; run fewer samples at once, or free the GPU's memory")
    if int(error) != 0:
        raise BackendError(f"CUDA failed: {_name(error)}")
    return values[0] if values else None


def _name(error: Any) -> str:
    _, text = cuda().cudaGetErrorString(error)
    return text.decode() if isinstance(text, bytes) else str(text)


class DeviceMemory:
    """Memory on the GPU, aligned to 256 bytes; the library takes its `address`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(check(cuda().cudaMalloc(max(1, size))))
        self.close = _freed_with(self, cuda().cudaFree, self.address)


class PinnedArray:
    """An array in page-locked memory, which the GPU copies from and to by itself; zeros at first.

    The memory lives as long as any view of the array, so that a caller's view never points to nothing.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self.address = int(check(cuda().cudaHostAlloc(max(1, size), cuda().cudaHostAllocPortable)))
        memory = (ctypes.c_uint8 * size).from_address(self.address)
        _freed_with(memory, cuda().cudaFreeHost, self.address)
        self.array: Array = np.frombuffer(memoryview(memory), np.uint8).view(dtype).reshape(shape)
        self.array[...] = 0


class Plane(NamedTuple):
    """Memory on the GPU: `rows` of `width` bytes each, `pitch` bytes from one to the next."""

    address: int
    width: int
    pitch: int
    rows: int

    def cut(self, width: int) -> Plane:
        """The same in rows of at most `width` bytes, where it is one row that is longer."""
        if self.rows > 1 or self.width <= width:
            return self
        return Plane(self.address, width, width, self.width // width)


class Stream:
    """Work in order, beside the CPU and other streams. `handle` is what the library takes."""

    def __init__(self) -> None:
        api = cuda()
        self._stream = check(api.cudaStreamCreateWithFlags(api.cudaStreamNonBlocking))
        self._free_stream = _freed_with(self, api.cudaStreamDestroy, self._stream)
        self.handle = int(self._stream)
        self._uploaded = check(api.cudaEventCreateWithFlags(api.cudaEventDisableTiming))
        self._free_event = _freed_with(self, api.cudaEventDestroy, self._uploaded)
        self._marks, self._over = 0, 0  # how many there were, and how many of them are surely over
        self._reached = check(api.cudaEventCreateWithFlags(api.cudaEventDisableTiming))
        self._free_reached = _freed_with(self, api.cudaEventDestroy, self._reached)

    def upload(self, source: PinnedArray, target: DeviceMemory) -> None:
        """Copies to the GPU; `source` may change only after :meth:`wait_for_uploads`."""
        self.upload_part(source, target, 0, source.array.nbytes)

    def upload_part(self, source: PinnedArray, target: DeviceMemory, first: int, size: int) -> None:
        """The same with `size` bytes from byte `first` on."""
        kind = cuda().cudaMemcpyKind.cudaMemcpyHostToDevice
        check(cuda().cudaMemcpyAsync(target.address + first, source.address + first, size, kind, self._stream))

    def copy(self, target: Plane, source: Plane) -> None:
        """Copies within the GPU; the two may be cut into rows differently."""
        api = cuda()
        kind = api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        if not target.rows:
            return
        if target.rows == source.rows == 1:
            check(api.cudaMemcpyAsync(target.address, source.address, target.width, kind, self._stream))
            return
        target, source = target.cut(source.width), source.cut(target.width)
        if (target.width, target.rows) != (source.width, source.rows):
            raise BackendError("can't copy between two cuts whose rows have different lengths at once")
        check(
            api.cudaMemcpy2DAsync(
                *(target.address, target.pitch, source.address, source.pitch),
                *(target.width, target.rows, kind, self._stream),
            )
        )

    def clear(self, target: Plane) -> None:
        """Sets to zero."""
        api = cuda()
        if target.rows == 1:
            check(api.cudaMemsetAsync(target.address, 0, target.width, self._stream))
        elif target.rows:
            check(api.cudaMemset2DAsync(target.address, target.pitch, 0, target.width, target.rows, self._stream))

    def after(self, other: Stream) -> None:
        """What is put in from now on waits for what `other` has by now."""
        if other is not self:
            api = cuda()
            check(api.cudaEventRecord(other._reached, other._stream))
            check(api.cudaStreamWaitEvent(self._stream, other._reached, 0))

    def mark_uploads(self) -> int:
        """All uploads of a run are on their way. The number of this mark."""
        check(cuda().cudaEventRecord(self._uploaded, self._stream))
        self._marks += 1
        return self._marks

    def wait_for_uploads(self, mark: int | None = None) -> None:
        """Waits until what was uploaded before this mark, or the last one, has been read."""
        if self._over < (self._marks if mark is None else mark):
            (state,) = cuda().cudaEventQuery(
                self._uploaded
            )  # mostly they are over, and there is nothing to wait for
            if int(state) != 0:
                check(cuda().cudaEventSynchronize(self._uploaded))
            self._over = self._marks

    def download(self, source: DeviceMemory, target: PinnedArray) -> None:
        """Copies from the GPU, and waits for it and for all work before it."""
        self.download_part(source, target, 0, target.array.nbytes)

    def download_part(self, source: DeviceMemory, target: PinnedArray, first: int, size: int) -> None:
        """The same with `size` bytes from byte `first` on."""
        kind = cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(cuda().cudaMemcpyAsync(target.address + first, source.address + first, size, kind, self._stream))
        self.synchronize()

    def bring(self, source: Plane, target: PinnedArray) -> None:
        """Copies what lies in one piece, and waits for it and for all work before it."""
        if source.rows > 1:
            raise BackendError("expected memory in one piece, to be brought from the GPU")
        kind = cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
        if source.rows:
            check(cuda().cudaMemcpyAsync(target.address, source.address, source.width, kind, self._stream))
        self.synchronize()

    def synchronize(self) -> None:
        """Waits for all work; :class:`BackendError` where some of it failed."""
        check(cuda().cudaStreamSynchronize(self._stream))
        self._over = self._marks

    def capture(self, enqueue: Callable[[], bool]) -> CapturedGraph | None:
        """What `enqueue` puts into the stream as one graph, not run yet; None where it can't be captured."""
        api = cuda()
        # of this thread alone: other threads may go on allocating
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(api.cudaStreamBeginCapture(self._stream, mode))
        enqueued, collects = False, gc.isenabled()
        gc.disable()  # what it frees would end the capture
        try:
            enqueued = enqueue()
        finally:
            error, graph = api.cudaStreamEndCapture(self._stream)
            if collects:
                gc.enable()
            if int(error) != 0 or not enqueued:
                api.cudaGetLastError()  # forgets the failure, which is no error here
                if int(error) == 0:
                    check(api.cudaGraphDestroy(graph))
        if int(error) != 0 or not enqueued:
            return None
        try:
            return CapturedGraph(check(api.cudaGraphInstantiate(graph, 0)), self._stream)
        finally:
            check(api.cudaGraphDestroy(graph))

    def drain(self) -> None:
        """Waits for all work, failed or not: what it used may be freed afterwards."""
        if self._free_stream.alive:
            cuda().cudaStreamSynchronize(self._stream)

    def close(self) -> None:
        """Waits for all work, then frees the stream. May be called twice."""
        self.drain()
        self._free_event()
        self._free_reached()
        self._free_stream()


class CapturedGraph:
    """Work that is launched as a whole, with the shapes and addresses that it was captured with."""

    def __init__(self, executable: Any, stream: Any) -> None:
        self._executable, self._stream = executable, stream
        self.close = _freed_with(self, cuda().cudaGraphExecDestroy, executable)

    def launch(self) -> None:
        """Puts the work into the stream that it was captured from."""
        check(cuda().cudaGraphLaunch(self._executable, self._stream))


def _freed_with(owner: object, free: Callable[[Any], Any], resource: Any) -> weakref.finalize[..., Any]:
    """Frees `resource` once: when called, or with its `owner`."""
    finalizer = weakref.finalize(owner, free, resource)
    finalizer.atexit = False
    return finalizer
