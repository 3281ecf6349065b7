"""What passes between the host and a GPU in one call, counted on a GPU that the CPU plays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from gensdk_runtime.spec.settings import SolverName
from support.host_gpu import HostCuda

UP, DOWN, WAITS = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "waits"
SOLVERS: list[dict[str, Any]] = [
    *({"solver": name} for name in get_args(SolverName)),
    {"solver": "ddim", "eta": 0.5},
    {"solver": "ddim", "eta": 1.0},
]
"""Every solver, and those that draw noise in each step among them."""


def counted(cuda: HostCuda, call: Callable[[], Any]) -> tuple[Any, Counter[str]]:
    """What a call gives, and what it does on the GPU; the second time, when all that is kept was made."""
    call()
    cuda.calls.clear()
    made = call()
    return made, Counter(cuda.calls)
