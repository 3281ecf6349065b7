"""Noise drawn by the GPU into its own memory: the numbers of :mod:`gensdk_runtime.noise`, from ``noise.cu``.

The words of Philox and uniform numbers are the same bits as the CPU's. Normal numbers are computed in float64 in
the same order, without fused multiply-add, and rounded to float32; NVIDIA states at most 1 unit in the last place
for ``log`` and 2 for ``sincos`` in float64, and NumPy's own differ as much from one processor to another. So a
number differs only where the two float64 results lie on both sides of a boundary of rounding: by 1 unit in the
last place of float32, for about one number in 10^8 (the shipped PTX, run in C, and NumPy on x86 agreed in all of
2.5 * 10^8).

``noise.ptx`` is compiled once, by NVRTC of CUDA 12.0 for compute capability 7.5 (``tests/support/noise_ptx.py``):
any newer driver takes it, and makes code for its own GPU from it.
"""

from __future__ import annotations

import ctypes
import weakref
from importlib import resources
from typing import Any

import numpy as np

from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.cuda.device import OUT_OF_MEMORY, Stream, check
from gensdk_runtime.backends.cuda.resident import GpuArray
from gensdk_runtime.errors import BackendError, GensdkError, OutOfMemoryError, tell
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.noise import Distribution

ENTRIES = {"normal": b"gensdk_normal", "uniform": b"gensdk_uniform"}
"""The kernel of each distribution."""
THREADS = 128
"""Of a block; each draws two numbers."""
NO_CONTEXT = 201
"""CUDA_ERROR_INVALID_CONTEXT: this thread has made no call of the runtime API yet."""
TYPES = (ctypes.c_void_p, ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_void_p)
"""Keys, the stream of random numbers, rows, numbers in a row, and where they go."""


class NoiseKernels:
    """The kernels of one backend, loaded when they are first asked for. Threads share them."""

    def __init__(self) -> None:
        self._functions: dict[str, Any] | None = None
        self._lock = new_lock()

    @property
    def usable(self) -> bool:
        """False where the driver does not take them, which is told once."""
        functions = self._functions
        if functions is None:
            with self._lock:
                functions = self._functions
                if functions is None:
                    functions = self._functions = self._loaded()
        return bool(functions)

    def draw(self, out: GpuArray, distribution: Distribution, keys: GpuArray, stream: int) -> None:
        """Puts the drawing of float32 `out` [n, ...], in one piece, into the order of its work.

        `keys`: uint64 [n, 2], seed and position; they may change in the order of their own work after that.
        `stream`: of random numbers, 0 to 2^64 - 1. Raises :class:`BackendError` where the launch fails.
        """
        rows, count = out.shape[0], out[:1].nbytes // 4 if out.shape[0] else 0
        if keys.shape != (rows, 2):
            raise ValueError(f"expected keys as [{rows}, 2] for {out!r}, got {list(keys.shape)}")
        if out.dtype != np.float32 or keys.dtype != np.uint64 or keys.plane().rows > 1:
            raise ValueError(f"expected float32 from uint64 keys in one piece, got {out!r} from {keys!r}")
        if not rows * count:
            return
        place = out.plane()
        if place.rows != 1 or not self.usable:
            raise BackendError(f"can't draw {out!r} on the GPU: it is not in one piece, or there are no kernels")
        out.stream.after(keys.stream)
        values = (keys.plane().address, stream, rows, count, place.address)
        self._launch(distribution, -(-rows * ((count + 1) // 2) // THREADS), out.stream, values)
        keys.stream.after(out.stream)

    def _launch(self, distribution: Distribution, blocks: int, stream: Stream, values: tuple[int, ...]) -> None:
        assert self._functions  # noqa: S101 - they are usable
        api, grid, block = device.driver(), (blocks, 1, 1), (THREADS, 1, 1)
        work = (self._functions[distribution], *grid, *block, 0, api.CUstream(stream.handle), (values, TYPES), 0)
        result = api.cuLaunchKernel(*work)
        if int(result[0]) == NO_CONTEXT:
            _take_context()
            result = api.cuLaunchKernel(*work)
        _check(api, result)

    def _loaded(self) -> dict[str, Any]:
        """The functions; none, and a word about it, where this driver or package can't load them."""
        try:
            api = device.driver()
            _take_context()
            ptx = resources.files(__package__).joinpath("noise.ptx").read_bytes()
            module = _check(api, api.cuModuleLoadData(ptx + b"\0"))
            weakref.finalize(self, api.cuModuleUnload, module).atexit = False
            return {name: _check(api, api.cuModuleGetFunction(module, entry)) for name, entry in ENTRIES.items()}
        except OutOfMemoryError:
            raise  # there may be memory the next time
        except (GensdkError, OSError, RuntimeError) as failure:  # RuntimeError: the driver lacks a call
            tell(f"noise is drawn by the CPU and sent to the GPU, since its kernels can't be loaded: {failure}")
            return {}


def _take_context() -> None:
    """Makes the context in which the runtime API works current in this thread."""
    api = device.cuda()
    check(api.cudaSetDevice(check(api.cudaGetDevice())))


def _check(api: Any, result: tuple[Any, ...]) -> Any:
    """The value of a call of the driver; :class:`BackendError` where it failed."""
    error, *values = result
    if int(error) != 0:
        _, text = api.cuGetErrorString(error)
        said = f"CUDA's driver failed: {text.decode() if isinstance(text, bytes) else error}"
        if int(error) == OUT_OF_MEMORY:
            raise OutOfMemoryError(f"{said}; run fewer samples at once, or free the GPU's memory")
        raise BackendError(said)
    return values[0] if values else None
