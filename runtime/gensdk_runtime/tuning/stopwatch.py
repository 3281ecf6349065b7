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
from gensdk_runtime.programs.run import Run
from gensdk_runtime.spec.model import ModelSpec


@dataclass(frozen=True)
class Reading:
    """`seconds` that whole batches take, side by side; `step`: what one step of them takes."""

    seconds: float
    step: float


@dataclass
class _Stopwatch:
    """Notes when each step ends, and stops the run at the first end after `seconds`. It looks at no samples: those
    of a device would come down for it."""

    seconds: float
    start: float = field(default_factory=perf_counter)
    ends: list[float] = field(default_factory=list)
    over: float = 0.0
    num_steps: int = 1
    cut: bool = False

    def __call__(self, num_steps: int) -> bool:
        self.ends.append(perf_counter())
        self.cut = self.ends[-1] - self.start >= self.seconds
        # A run that ends by itself before that, as sequences do, has no more steps.
        self.num_steps = num_steps if self.cut else len(self.ends)
        return self.cut

    @property
    def step(self) -> float:
        """What the first step takes, with all that comes before it; on a device that was still at it when the
        steps had ended, what one of them took on the average."""
        return max(self.ends[0] - self.start, (self.over - self.start) / len(self.ends))

    def whole(self, *, waits: bool) -> float:
        """What the run takes with all steps: those after the first like the median of those seen (so that a pause
        of the process, which hits one step, does not count for all), and what came after them once.

        Where a run does not wait for the device (`waits`), its steps may have ended before their work did: then
        they count as so many equal parts of the time that all took.
        """
        first, after = self.ends[0] - self.start, self.over - self.ends[-1]
        others = [end - begin for begin, end in pairwise(self.ends)]
        usual = median_low(others) if others else first
        if not waits and after > first + usual:
            return (self.over - self.start) / len(self.ends) * self.num_steps
        return first + usual * (self.num_steps - 1) + after


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

    waits = all(session.waits for session in runner.sessions.values())

    def watched(run: Run) -> _Stopwatch:
        run.clock = watch = _Stopwatch(seconds)
        runner.program.run(run, settings)
        watch.over = perf_counter()
        return watch

    def unwatched(run: Run) -> float:
        run.clock, start = None, perf_counter()
        runner.program.run(run, settings)
        return perf_counter() - start

    at_once = map if workers == 1 else pool.map  # in this thread where there is one batch
    with no_garbage_collection():
        watches = list(at_once(watched, runs))
        whole, step = max(watch.whole(waits=waits) for watch in watches), max(watch.step for watch in watches)
        readings: list[float] = []
        while sum(readings) < seconds and whole < seconds:
            readings.append(max(at_once(unwatched, runs)))
    return Reading(median_low(readings) if readings else whole, step)


def _run(model: ModelSpec, batch: int, first: int) -> Run:
    keys = sample_keys(batch, [(0, first + i) for i in range(batch)])
    data = np.empty((batch, *model.output.shape), model.output.dtype)
    return Run(keys=keys, data=data, conditions=examples_of(model, batch, first=first), first=first)
