"""Memory of the device that is taken, by whoever; or of this process, where no device is used."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from day_one.backends import on_gpu
from gensdk_runtime.backends.cuda import device
from gensdk_runtime.errors import GensdkError, UnavailableError
from gensdk_runtime.host.child_process import run_program

MIB = 2**20


@dataclass(frozen=True)
class Meter:
    """`read` gives bytes that are taken. `exact`: what was freed is seen to be free, to `tolerance` bytes."""

    name: str
    read: Callable[[], int]
    exact: bool
    tolerance: int = 0

    def settled(self) -> int:
        """After the garbage is collected."""
        gc.collect()
        return self.read()


def meter_for(backend: str) -> Meter:
    """What tells how much memory `backend` takes here. Raises UnavailableError where nothing does."""
    if not on_gpu(backend):
        return _resident()
    try:
        api = device.cuda()
        device.check(api.cudaFree(0))  # makes the context, which stays
        _cuda_taken()
        return Meter("cudaMemGetInfo", _cuda_taken, exact=True, tolerance=16 * MIB)
    except (GensdkError, RuntimeError):
        pass
    _smi_taken()
    return Meter("nvidia-smi", _smi_taken, exact=True, tolerance=16 * MIB)


def _cuda_taken() -> int:
    error, free, total = device.cuda().cudaMemGetInfo()
    device.check((error,))
    return int(total) - int(free)


def _smi_taken() -> int:
    """Of the first GPU, in whole MiB."""
    try:
        found = run_program(
            "nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", timeout=10
        )
        if found is not None and not found.code:
            return int(found.output.split()[0]) * MIB
    except (OSError, TimeoutError, ValueError, IndexError):
        pass
    raise UnavailableError("nothing tells the GPU's memory: neither cuda-bindings nor nvidia-smi; install either")


def _resident() -> Meter:
    status = Path("/proc/self/statm")
    if not status.exists():
        raise UnavailableError("this system does not tell the memory of a process in /proc")
    import resource

    page = resource.getpagesize()
    return Meter("resident memory of the process", lambda: int(status.read_text().split()[1]) * page, exact=False)
