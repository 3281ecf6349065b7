"""Uploads, downloads, synchronizations and allocations of one call, counted where the backends ask for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from day_one.backends import backend_of, on_gpu
from day_one.device_calls import ALLOCATIONS, COUNTED, DOWNLOADS, UPLOADS, WAITS, counting
from day_one.result import Found, Order, Row, attempted
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec

BATCH, STEPS, WARM_UPS = 8, 10, 4
MOST: Mapping[str, int] = {UPLOADS: 3, DOWNLOADS: 1, WAITS: 1, ALLOCATIONS: 0}
"""What a call of a backend of engines may do on the device when all that is kept has been made."""


def rows(order: Order) -> Found:
    """Each embedded bundle once; bounds hold for engines, of which every call is seen."""
    if not on_gpu(order.piece):
        yield order.row("", "all", "skipped", detail="it works in the memory of the host: nothing passes")
        return
    yield f"opening {order.piece}"
    backend = backend_of(order)
    bounded = order.piece.startswith("tensorrt")
    counter = counting if bounded else counting_tensors
    for bundle in order.bundles:
        yield f"a call of {bundle}"
        with Generator.load(bundle, backend=backend, precision="fp32") as generator:
            steps: Any = (
                {"num_inference_steps": STEPS} if isinstance(generator.model.program, DiffusionSpec) else {}
            )
            subject = f"{bundle}, batch {BATCH}" + (f", {STEPS} steps" if steps else "")
            call = partial(generator.sample, BATCH, seed=0, progress=False, **steps)
            for _ in range(WARM_UPS):
                call()
            with counter() as found:
                call()
            for what in COUNTED:
                yield _row(order, subject, what, found.counts, bounded)
            if not bounded:
                yield attempted(order, subject, "CUDA's calls", partial(_profiled, order, subject, call))


def _row(order: Order, subject: str, what: str, counts: Counter[str], bounded: bool) -> Row:
    value, most = counts[what], MOST.get(what)
    if bounded and most is not None:
        return order.check(subject, what, value <= most, value, detail=f"at most {most}")
    if not bounded and what not in (UPLOADS, DOWNLOADS, ALLOCATIONS):
        return order.row(subject, what, "skipped", detail="ONNX Runtime does it by itself; see CUDA's calls")
    return order.row(subject, what, "measured", value)


class Tally:
    """What was counted."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()


@contextmanager
def counting_tensors() -> Iterator[Tally]:
    """Counts the tensors that ONNX Runtime's backend moves and makes by itself. Inside one graph ONNX Runtime may
    do more."""
    from gensdk_runtime.backends.onnxruntime.providers import Memory

    tally, originals = Tally(), {}
    for name, what in (("upload", UPLOADS), ("download", DOWNLOADS), ("allocate", ALLOCATIONS)):
        originals[name] = getattr(Memory, name)
        setattr(Memory, name, _counted(originals[name], what, tally))
    try:
        yield tally
    finally:
        for name, original in originals.items():
            setattr(Memory, name, original)


def _counted(original: Callable[..., Any], what: str, tally: Tally) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        tally.counts[what] += 1
        return original(*arguments, **named)

    return call


PROFILED = ("cudaMemcpyAsync", "cudaMemcpy", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMalloc")


def _profiled(order: Order, subject: str, call: Callable[[], Any]) -> Row:
    """All that the process asks of CUDA in one call, by PyTorch's profiler, which listens to the driver."""
    try:
        import torch
    except (ImportError, OSError):
        return order.row(
            subject, "CUDA's calls", "skipped", detail="PyTorch, whose profiler counts them, is missing"
        )
    if not torch.cuda.is_available():
        return order.row(
            subject, "CUDA's calls", "skipped", detail="this build of PyTorch has no profiler of CUDA"
        )
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
    counts = {event.key: event.count for event in profile.key_averages()}
    seen = {key: n for key, n in counts.items() if key.startswith(("Memcpy", "Memset")) or key in PROFILED}
    words = ", ".join(f"{key} {n}" for key, n in sorted(seen.items())) or "the profiler saw none"
    return order.row(subject, "CUDA's calls", "measured", float(sum(seen.values())), detail=words)
