"""TF32: NVIDIA GPUs since Ampere round what goes into fp32 products to 10 bits of mantissa, unless forbidden.

gensdk asks for full precision, since bundles are proven in it; ``onnxruntime:cuda:tf32`` lets a GPU round. CUDA's
provider has an option for it. Those over TensorRT have none: there the driver's NVIDIA_TF32_OVERRIDE decides, for
the process as a whole, and what it says to the first engine holds.
"""

from __future__ import annotations

import os
import sys

from gensdk_runtime.errors import UnavailableError, tell
from gensdk_runtime.host.forking import new_lock

VARIABLE = "NVIDIA_TF32_OVERRIDE"
_lock = new_lock()
_settled: bool | None = None  # what TensorRT's first engine of this process was told; None: there was none


def check_tf32_wanted(label: str) -> None:
    """Raises :class:`UnavailableError` where TF32 is forbidden to the process, which no provider can go beyond."""
    if os.environ.get(VARIABLE, "").strip() == "0":
        raise UnavailableError(
            f"{label} wants TF32, and {VARIABLE}=0 forbids it to this process; run it in another one without that "
            "(onnxruntime:tensorrt and :nvtensorrtrtx set it where they run in full fp32)"
        )


def settle_for_process(allowed: bool, label: str) -> None:
    """Allows or forbids TF32 to all of this process, before a library of TensorRT is used.

    Raises :class:`UnavailableError` where an engine of this process was told otherwise.
    """
    global _settled  # noqa: PLW0603 - it is about the process
    with _lock:
        if _settled is not None and _settled != allowed:
            raise UnavailableError(
                f"{label} can't share a process with engines {'with' if _settled else 'without'} TF32: TensorRT "
                "decides for the whole; run it in another"
            )
        if not allowed and VARIABLE not in os.environ:
            os.environ[VARIABLE] = "0"
            if _beside_pytorch():
                tell(f"{label} runs in full fp32: {VARIABLE}=0 is set, by which PyTorch loses TF32 here too")
        elif not allowed and os.environ[VARIABLE].strip() != "0":
            tell(f"{label} runs fp32 graphs in TF32, since {VARIABLE} is {os.environ[VARIABLE]!r}; set it to 0")
        _settled = allowed


def _beside_pytorch() -> bool:
    """True if the process uses PyTorch too, whose arithmetic changes with the variable."""
    return "torch" in sys.modules
