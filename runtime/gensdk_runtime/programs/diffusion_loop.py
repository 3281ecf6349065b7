"""All steps of a call as one piece of a device's work, for calls that are made again and again."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gensdk_runtime.programs.diffusion_state import Berth, Cohort

MOST_STEPS = 256
"""Of longer loops each step is launched by itself: what is recorded takes memory for each operation."""
TRIES = 3
"""How often it is tried to record a loop: what a graph runs on may have to warm up."""


class Loop:
    """All steps of one cohort, which begins again and again in the same buffers, as one piece of work."""

    def __init__(self) -> None:
        self._work: Callable[[], None] | None = None
        self._tries = TRIES

    def done(self, berth: Berth, cohort: Cohort) -> bool:
        """Does all steps; False where they can't be one piece, and none was done."""
        cohort.hold_keys()
        if self._work is None:
            if not self._tries or not cohort.all_on_device:
                return False
            self._work = berth.full.record(lambda: self._steps(berth, cohort), berth.bounds[1:])
            cohort.step, berth.last = 0, None
            if self._work is None:
                self._tries -= 1
                for bound in berth.bounds:
                    bound.rewind()
                return False
        for bound in berth.bounds:
            bound.rewind()
        start = perf_counter()
        self._work()
        cohort.run.graph_seconds += perf_counter() - start
        berth.last = berth.due(len(cohort.steps.rows) - 1)
        cohort.end_loop(berth.last)
        return True

    @staticmethod
    def _steps(berth: Berth, cohort: Cohort) -> None:
        for number in range(len(cohort.steps.rows)):
            bound = berth.ready(number)
            cohort.write(bound)
            bound.run()
            cohort.step = number + 1
