"""``backend="auto"``: what measured fastest on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from gensdk_runtime.backends import create_backend, get_backend
from gensdk_runtime.bundle import Bundle
from gensdk_runtime.errors import BackendError
from gensdk_runtime.runner import open_runner
from gensdk_runtime.signature import Precision
from gensdk_runtime.tuning.costs import Choice
from gensdk_runtime.tuning.lineup import Lineup
from gensdk_runtime.tuning.opening import open_choice
from gensdk_runtime.tuning.tune import tuned


def auto_lineup(bundle: Bundle, precision: Precision | Literal["auto"], threads: int | None) -> Lineup:
    """The choices that measured fastest, each opened when it is first needed; without measurement, see below."""
    found = tuned(bundle, precision, threads)
    if found is None:
        return _unmeasured(bundle, precision, threads)
    try:
        return Lineup({}, costs=found.table, opener=partial(open_choice, bundle, precision=found.precision))
    except BackendError as failure:
        return _unmeasured(bundle, precision, threads, [f"what measured fastest failed: {failure}"])


def _unmeasured(
    bundle: Bundle, precision: Precision | Literal["auto"], threads: int | None, fallbacks: Sequence[str] = ()
) -> Lineup:
    """ONNX Runtime on CUDA where a GPU really runs it, on the CPU otherwise."""
    devices = get_backend("onnxruntime").availability().devices
    spec = "onnxruntime:cuda" if "cuda" in devices else "onnxruntime"
    chosen: Precision = "fp32" if precision == "auto" else precision
    backend = create_backend(spec, threads=threads)
    runner = open_runner(bundle, backend, chosen)
    return Lineup({Choice(backend=spec, threads=threads): runner}, fallbacks=fallbacks)
