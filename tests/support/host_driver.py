"""CUDA's driver API over the CPU's memory: it loads PTX, and launches what is in it, as late as it may.

It does not read the code: `play` stands for it, which is NumPy's noise, or what ``ptx_in_c.py`` made of the PTX.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from cuda.bindings import driver as real

from gensdk_runtime import noise
from gensdk_runtime.backends.cuda import device
from support.host_gpu import HostCuda

Play = Callable[[str, tuple[int, ...], int, int], None]
"""Gets an entry's name, its parameters, the blocks and the threads in a block."""
RESULTS = real.CUresult
OK, WRONG = RESULTS.CUDA_SUCCESS, RESULTS.CUDA_ERROR_INVALID_VALUE
ENTRY = re.compile(rb"\.visible \.entry (\w+)\(")
SIZES = {ctypes.c_void_p: 8, ctypes.c_ulonglong: 8}


class HostDriver:
    """``cuda.bindings.driver`` beside `cuda`; its types and constants are the real ones.

    `refuses`: what loading PTX fails with.
    """

    def __init__(self, cuda: HostCuda, play: Play | None = None) -> None:
        self.cuda = cuda
        self.play = play or self.drawn_by_numpy
        self.refuses: Any = None
        self.functions: dict[int, str] = {}
        self.modules: dict[int, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        if not isinstance(getattr(real, name), type):
            raise AttributeError(f"{name} is not played here")
        return getattr(real, name)

    def cuGetErrorString(self, error: Any) -> Any:
        return OK, error.name.encode()

    def cuModuleLoadData(self, image: bytes) -> Any:
        if threading.get_ident() not in self.cuda.threads:
            return RESULTS.CUDA_ERROR_INVALID_CONTEXT, None
        if self.refuses is not None:
            return self.refuses, None
        if not image.endswith(b"\0") or b".version" not in image:
            return RESULTS.CUDA_ERROR_INVALID_PTX, None
        self.cuda.calls["modules"] += 1
        module = len(self.modules) + 1
        self.modules[module] = image
        return OK, module

    def cuModuleUnload(self, module: int) -> Any:
        return (OK if self.modules.pop(module, None) else WRONG,)

    def cuModuleGetFunction(self, module: int, name: bytes) -> Any:
        if name not in ENTRY.findall(self.modules[module]):
            return RESULTS.CUDA_ERROR_NOT_FOUND, None
        function = 1000 + len(self.functions)
        self.functions[function] = name.decode()
        return OK, function

    def cuLaunchKernel(self, function: int, *how: Any) -> Any:
        grid, block, (shared, stream, given, extra) = how[:3], how[3:6], how[6:]
        values, types = given
        if threading.get_ident() not in self.cuda.threads:
            return (RESULTS.CUDA_ERROR_INVALID_CONTEXT,)
        if not isinstance(stream, real.CUstream) or int(stream) not in self.cuda.queues:
            return (RESULTS.CUDA_ERROR_INVALID_HANDLE,)
        alone = grid[1:] == block[1:] == (1, 1) and (shared, extra) == (0, 0)
        if not alone or not 0 < grid[0] < 2**31 or not 0 < block[0] <= 1024:
            return (WRONG,)
        keys, _, rows, count, out = values
        assert [SIZES[each] for each in types] == [8] * 5, "what the PTX takes"
        assert all(type(value) is int and 0 <= value < 2**64 for value in values)
        assert keys % 8 == out % 4 == 0
        assert self.cuda.holds(keys, "device", rows * 16)
        assert self.cuda.holds(out, "device", rows * count * 4)
        assert grid[0] * block[0] >= rows * ((count + 1) // 2), "a thread for each word"
        self.cuda.calls["drawn"] += 1
        name = self.functions[function]
        self.cuda.enqueue(int(stream), lambda: self.play(name, values, grid[0], block[0]))
        return (OK,)

    def drawn_by_numpy(self, name: str, values: tuple[int, ...], blocks: int, threads: int) -> None:
        keys, number, rows, count, out = values
        pairs = [noise.SampleKey(*pair) for pair in self.cuda.view(keys, (rows, 2), "uint64").tolist()]
        drawn = noise.DRAWS["uniform" if name == "gensdk_uniform" else "normal"](pairs, number, (count,))
        np.copyto(self.cuda.view(out, (rows, count), "float32"), drawn)


class Patches(Protocol):
    """pytest's ``monkeypatch``, or what sets for good (``benchmarks/day_one``)."""

    def setattr(self, target: object, name: str, value: object, /) -> None: ...


def play_on(cuda: HostCuda, monkeypatch: Patches, play: Play | None = None) -> HostDriver:
    """Has the package find `cuda`, and a driver beside it."""
    driver = HostDriver(cuda, play)
    monkeypatch.setattr(device, "cuda", lambda: cuda)
    monkeypatch.setattr(device, "driver", lambda: driver)
    return driver
