"""Uploads, downloads, synchronizations and allocations of one call, counted where the backends ask for them.

Each call has a seed of its own, as an application's have: what is kept of the last seed must not pass for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from day_one.backends import backend_of, on_gpu
from day_one.device_calls import ALLOCATIONS, COUNTED, DOWNLOADS, UPLOADS, WAITS, counting
from day_one.result import Found, Order, Row, attempted
from gensdk_runtime.backends.base import Session
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec

BATCH, STEPS, WARM_UPS = 8, 10, 4
MOST: Mapping[str, int] = {UPLOADS: 3, DOWNLOADS: 1, ALLOCATIONS: 0}
"""What a call over buffers that stay on the device may do there when all that is kept has been made."""
MOST_OF_ENGINES: Mapping[str, int] = {**MOST, WAITS: 1}
"""The same of a backend of engines. ONNX Runtime before 1.23 has to be waited for after each run."""


@dataclass(frozen=True)
class Watch:
    """How a backend's calls are `counted`, `which` of them can be, and the `most` of each that is right."""

    counted: Callable[[], Any]
    which: tuple[str, ...]
    most: Mapping[str, int]
    whole: bool = False
    """Whether nothing passes but what is counted."""


def watch_over(session: Session) -> Watch:
    """By where the session has its buffers, which the backend's name does not say: without cuda-bindings those
    of ONNX Runtime are its own."""
    if session.backend.startswith("tensorrt"):
        return Watch(counting, COUNTED, MOST_OF_ENGINES, whole=True)
    from gensdk_runtime.backends.onnxruntime.resident import CudaSession

    if isinstance(session, CudaSession):
        return Watch(counting, COUNTED, MOST)
    return Watch(counting_tensors, (UPLOADS, DOWNLOADS, ALLOCATIONS), {})


def rows(order: Order) -> Found:
    """Each embedded bundle by ``sample()`` and by a prepared call; bounds hold where the buffers are ours."""
    if not on_gpu(order.piece):
        yield order.row("", "all", "skipped", detail="it works in the memory of the host: nothing passes")
        return
    yield f"opening {order.piece}"
    backend = backend_of(order)
    for bundle in order.bundles:
        with Generator.load(bundle, backend=backend, precision="fp32") as generator:
            steps: Any = (
                {"num_inference_steps": STEPS} if isinstance(generator.model.program, DiffusionSpec) else {}
            )
            subject = f"{bundle}, batch {BATCH}" + (f", {STEPS} steps" if steps else "")
            watch = watch_over(next(iter(generator.sessions.values())))
            for name, call in calls(generator, steps).items():
                yield f"{name} of {bundle}"
                yield from _counted_call(order, f"{subject}, {name}", call, watch)


def calls(generator: Generator, options: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """The ways to draw BATCH samples, by name; each time of another seed."""
    prepared, seeds = generator.prepare(BATCH, **options), count()
    return {
        "sample()": lambda: generator.sample(BATCH, seed=next(seeds), progress=False, **options),
        "prepared draw()": lambda: prepared.draw(next(seeds)),
    }


def _counted_call(order: Order, subject: str, call: Callable[[], Any], watch: Watch) -> Iterator[Row]:
    for _ in range(WARM_UPS):
        call()
    with watch.counted() as found:
        call()
    for what in COUNTED:
        yield _row(order, subject, what, found.counts[what], watch)
    if not watch.whole:
        yield attempted(order, subject, "CUDA's calls", partial(_profiled, order, subject, call))


def _row(order: Order, subject: str, what: str, value: int, watch: Watch) -> Row:
    if what not in watch.which:
        return order.row(subject, what, "skipped", detail="ONNX Runtime does it by itself; see CUDA's calls")
    beside = "" if watch.whole else "inside a graph ONNX Runtime may do more, see CUDA's calls"
    if what in watch.most:
        most = watch.most[what]
        words = "; ".join(filter(None, (f"at most {most}", beside)))
        return order.check(subject, what, value <= most, value, detail=words)
    return order.row(subject, what, "measured", value, detail=beside)


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
