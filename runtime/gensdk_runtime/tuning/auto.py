"""``backend="auto"``: what measured fastest on this machine."""

from __future__ import annotations

from typing import Literal

from gensdk_runtime.backends import create_backend, get_backend
from gensdk_runtime.bundle import Bundle
from gensdk_runtime.manifest import Precision
from gensdk_runtime.runner import open_runner
from gensdk_runtime.tuning.costs import Choice
from gensdk_runtime.tuning.lineup import Lineup


def auto_lineup(bundle: Bundle, precision: Precision | Literal["auto"], threads: int | None) -> Lineup:
    """Without measurement: ONNX Runtime on CUDA where a GPU really runs it, on the CPU otherwise."""
    devices = get_backend("onnxruntime").availability().devices
    spec = "onnxruntime:cuda" if "cuda" in devices else "onnxruntime"
    choice = Choice(backend=spec, threads=threads)
    chosen: Precision = "fp32" if precision == "auto" else precision
    backend = create_backend(spec, threads=threads)
    return Lineup({choice: open_runner(bundle, backend, chosen)})
