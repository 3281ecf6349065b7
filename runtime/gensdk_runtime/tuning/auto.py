"""``backend="auto"``: what measured fastest on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from gensdk_runtime.backends import create_backend, get_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, GensdkError
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.opening import open_choice
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.plan.runners import Look, Runners
from gensdk_runtime.spec.signature import Precision
from gensdk_runtime.tuning.tune import Awaited, Tuned, tuned

MEASURING = "not measured: another process is measuring this bundle, and what it finds is taken when it is done"


def auto_runners(bundle: Bundle, precision: Precision | Literal["auto"], threads: int | None) -> Runners:
    """The choices that measured fastest, each opened when it is first needed; without measurement, see below."""
    found = tuned(bundle, precision, threads)
    if found is None:
        return _unmeasured(bundle, precision, threads)
    if isinstance(found, Awaited):
        return _unmeasured(bundle, precision, threads, [MEASURING], awaited=partial(_look, found))
    try:
        return _measured(bundle, found, threads)
    except BackendError as failure:
        return _unmeasured(bundle, precision, threads, [f"what measured fastest failed: {failure}"])


def _measured(bundle: Bundle, found: Tuned, threads: int | None) -> Runners:
    opener = partial(open_choice, bundle, precision=found.precision)
    return Runners({}, costs=found.table, opener=opener, resort=Choice(threads=threads))


def _look(awaited: Awaited) -> Runners | Literal["measuring"] | None:
    """What another process has found by now, open; None where it found nothing, or it can't be opened."""
    found = None if awaited.bundle.closed else awaited.look()
    if not isinstance(found, Tuned):
        return found
    try:
        return _measured(awaited.bundle, found, awaited.threads)
    except GensdkError:
        return None


def _unmeasured(
    bundle: Bundle,
    precision: Precision | Literal["auto"],
    threads: int | None,
    fallbacks: Sequence[str] = (),
    *,
    awaited: Look | None = None,
) -> Runners:
    """ONNX Runtime on CUDA where a GPU really runs it, on the CPU otherwise."""
    devices = get_backend("onnxruntime").availability().devices
    spec = "onnxruntime:cuda" if "cuda" in devices else "onnxruntime"
    chosen: Precision = "fp32" if precision == "auto" else precision
    runner = open_runner(bundle, create_backend(spec, threads=threads), chosen)
    opener = partial(open_choice, bundle, precision=chosen)
    return Runners(
        {Choice(backend=spec, threads=threads): runner}, opener=opener, fallbacks=fallbacks, awaited=awaited
    )
