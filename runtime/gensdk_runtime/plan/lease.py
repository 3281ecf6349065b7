"""Buffers that stay with one caller: each of its calls begins again in those of the call before."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any
from weakref import finalize

from gensdk_runtime.host.forking import abandon, new_lock, renew_in_children
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.run import Run, State

MAX_KEPT = 4
"""States that wait for their next run; more only where more threads call at the same moment."""


class Lease:
    """What a prepared call keeps bound. Threads may share it: each run takes a state that no other has.

    The buffers go back once the lease is dropped or closed.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Runner, State]] = []
        self._closed = False
        self._lock = new_lock()
        finalize(self, _close, self._kept).atexit = False
        renew_in_children(self)

    def after_fork(self) -> None:
        """See :class:`gensdk_runtime.host.forking.Renewable`: buffers of the parent are neither used nor freed."""
        for _, state in self._kept:
            abandon(state)
        self._kept.clear()

    def close(self) -> None:
        """Gives the buffers back; those of runs that are under way follow at their end. May be called twice."""
        with self._lock:
            self._closed = True
            kept = self._kept[:]
            self._kept.clear()
        _close(kept)

    def run(self, runner: Runner, run: Run, settings: Any) -> None:
        """What :meth:`Program.run_timed` does, in the buffers that are kept where they will do."""
        start = perf_counter()
        state = self._again(runner, run) or runner.program.begin(run, settings)
        try:
            state.complete()
        except BaseException:
            state.close(broken=True)
            raise
        if not self._keep(runner, state):
            state.close()
        run.seconds = perf_counter() - start

    def _keep(self, runner: Runner, state: State) -> bool:
        with self._lock:
            if self._closed or not state.restarts or len(self._kept) >= MAX_KEPT:
                return False
            self._kept.append((runner, state))
            return True

    def _again(self, runner: Runner, run: Run) -> State | None:
        with self._lock:
            if not self._kept:
                return None
            of, state = self._kept.pop()
        try:
            if of is runner and state.again(run):
                return state
        except BaseException:
            state.close(broken=True)
            raise
        state.close()
        return None


def _close(kept: Sequence[tuple[Runner, State]]) -> None:
    for _, state in kept:
        state.close()
