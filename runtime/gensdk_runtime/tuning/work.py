"""The work that is timed: batches as :class:`Generator` runs them, stopped early where a whole run is long."""

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
    """`seconds` that whole batches take, side by side; each has `units` steps."""

    seconds: float
    units: int


@dataclass
class _Stopwatch:
    """Notes when each step ends, and stops after `units` of them."""

    units: int
    start: float
    marks: list[float] = field(default_factory=list)
    num_steps: int = 1

    def __call__(self, step: StepEnd) -> bool:
        self.marks.append(perf_counter())
        self.num_steps = step.num_steps
        return len(self.marks) >= self.units

    @property
    def seconds(self) -> float:
        """What all steps take: the first with all that comes before it, the others like the median of those seen
        (so that a pause of the process, which hits one step, does not count for all)."""
        first = self.marks[0] - self.start
        others = [end - begin for begin, end in pairwise(self.marks)]
        return first + (median_low(others) if others else first) * (self.num_steps - 1)


def read_clock(
    model: ModelSpec,
    runner: Runner,
    pool: ThreadPoolExecutor | None,
    *,
    batch: int,
    workers: int,
    units: int | None,
) -> Reading:
    """Times one batch of `batch` samples on each of `workers` threads of `pool`, at the bundle's defaults.

    Raises :class:`BackendError` where the runner is a one-call graph for other settings.
    """
    settings = runner.program.resolve({})
    if not runner.program.covers(settings, listening=False):
        raise BackendError("the one-call graph is for other settings than the defaults")
    runs = [_run(model, batch, first=worker * batch) for worker in range(workers)]

    def work(run: Run) -> _Stopwatch:
        watch = _Stopwatch(units or 1, perf_counter())
        run.on_step_end = None if units is None else watch
        runner.program.run(run, settings)
        if units is None:
            watch.marks.append(perf_counter())
        return watch

    with no_garbage_collection():
        watches = [work(runs[0])] if pool is None else list(pool.map(work, runs))
    return Reading(max(watch.seconds for watch in watches), watches[0].num_steps)


def _run(model: ModelSpec, batch: int, first: int) -> Run:
    keys = sample_keys(batch, [(0, first + i) for i in range(batch)])
    labels: Any = None
    if model.num_classes is not None:
        labels = np.arange(first, first + batch, dtype=np.int64) % model.num_classes
    images = np.empty((batch, *model.output.shape), np.float32)
    return Run(keys=keys, images=images, labels=labels, sources=example_images(model, batch), first=first)
