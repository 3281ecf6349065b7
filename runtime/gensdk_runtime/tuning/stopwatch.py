"""Times batches as a generator runs them, at the bundle's defaults; where a whole run is long, its first steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median_low
from time import perf_counter

import numpy as np

from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.errors import BackendError
from gensdk_runtime.host.garbage import no_garbage_collection
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.run import Run, StepEnd
from gensdk_runtime.spec.model import ModelSpec


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
    model: ModelSpec, runner: Runner, pool: ThreadPoolExecutor, *, batch: int, workers: int, seconds: float
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

    at_once = map if workers == 1 else pool.map  # in this thread where there is one batch
    with no_garbage_collection():
        watches = list(at_once(watched, runs))
        whole, step = max(watch.whole for watch in watches), max(watch.first for watch in watches)
        readings: list[float] = []
        while sum(readings) < seconds and whole < seconds:
            readings.append(max(at_once(unwatched, runs)))
    return Reading(median_low(readings) if readings else whole, step)


def _run(model: ModelSpec, batch: int, first: int) -> Run:
    keys = sample_keys(batch, [(0, first + i) for i in range(batch)])
    data = np.empty((batch, *model.output.shape), model.output.dtype)
    return Run(keys=keys, data=data, conditions=examples_of(model, batch, first=first), first=first)
