"""Times batches as a generator runs them, at the bundle's defaults; where a whole run is long, its first steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median_low
from time import perf_counter
from typing import Any

import numpy as np

from gensdk_runtime.conditions.example_images import example_images
from gensdk_runtime.errors import BackendError
from gensdk_runtime.host.garbage import no_garbage_collection
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.base import Run, StepEnd
from gensdk_runtime.spec.manifest import ModelSpec


@dataclass(frozen=True)
class Reading:
    """`seconds` that whole batches take, side by side; `step`: what one step of them takes."""

    seconds: float
    step: float


@dataclass
class _Stopwatch:
    """Notes when each step ends, and stops the run at the first end after `seconds`."""

    seconds: float
    start: float = field(default_factory=perf_counter)
    ends: list[float] = field(default_factory=list)
    num_steps: int = 1

    def __call__(self, step: StepEnd) -> bool:
        self.ends.append(perf_counter())
        self.num_steps = step.num_steps
        return self.ends[-1] - self.start >= self.seconds

    @property
    def first(self) -> float:
        """What the first step takes, with all that comes before it."""
        return self.ends[0] - self.start

    @property
    def whole(self) -> float:
        """What all steps take: those after the first like the median of those seen (so that a pause of the
        process, which hits one step, does not count for all)."""
        others = [end - begin for begin, end in pairwise(self.ends)]
        return self.first + (median_low(others) if others else self.first) * (self.num_steps - 1)


def time_batches(
    model: ModelSpec, runner: Runner, pool: ThreadPoolExecutor | None, *, batch: int, workers: int, seconds: float
) -> Reading:
    """Times batches of `batch` samples, one on each of `workers` threads of `pool`, for about so many `seconds`.

    A run that takes longer is stopped after the step that exceeds them, a shorter one is repeated. Raises
    :class:`BackendError` where the runner is a one-call graph for other settings.
    """
    settings = runner.program.resolve({})
    if not runner.program.covers(settings, listening=False):
        raise BackendError("the one-call graph is for other settings than the defaults")
    runs = [_run(model, batch, first=worker * batch) for worker in range(workers)]

    def watched(run: Run) -> _Stopwatch:
        run.on_step_end = watch = _Stopwatch(seconds)
        runner.program.run(run, settings)
        return watch

    def unwatched(run: Run) -> float:
        run.on_step_end, start = None, perf_counter()
        runner.program.run(run, settings)
        return perf_counter() - start

    with no_garbage_collection():
        watches = [watched(runs[0])] if pool is None else list(pool.map(watched, runs))
        whole, step = max(watch.whole for watch in watches), max(watch.first for watch in watches)
        readings: list[float] = []
        while sum(readings) < seconds and whole < seconds:
            readings.append(unwatched(runs[0]) if pool is None else max(pool.map(unwatched, runs)))
    return Reading(median_low(readings) if readings else whole, step)


def _run(model: ModelSpec, batch: int, first: int) -> Run:
    keys = sample_keys(batch, [(0, first + i) for i in range(batch)])
    labels: Any = None
    if model.num_classes is not None:
        labels = np.arange(first, first + batch, dtype=np.int64) % model.num_classes
    images = np.empty((batch, *model.output.shape), np.float32)
    return Run(keys=keys, images=images, labels=labels, sources=example_images(model, batch), first=first)
