"""Runs the batches of a call, whatever they do: side by side, in halves where memory is short, checked for NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakSet

import numpy as np

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.conditions.base import Growth, Size
from gensdk_runtime.errors import BackendError, OutOfMemoryError, not_finite, tell
from gensdk_runtime.host.forking import new_lock, renew_in_children
from gensdk_runtime.host.memory import Room
from gensdk_runtime.host.progress import Progress
from gensdk_runtime.plan.batches import Batches, largest_batch
from gensdk_runtime.plan.costs import Round
from gensdk_runtime.plan.lease import Lease
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.plan.runners import Accept, Runners
from gensdk_runtime.programs.run import Run
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import HEIGHT, WIDTH

FoundT = TypeVar("FoundT")
Rounds = Sequence[tuple[Round, Runner]]

DEVICES = ("cuda", "gpu", "tensorrt", "dml", "coreml")
"""What is in the names of backends that run in the memory of a device."""
MAX_WORKERS = 256


class Done(NamedTuple, Generic[FoundT]):
    """A batch that ran, and what its task gave."""

    run: Run
    found: FoundT


@dataclass(frozen=True)
class Work(Generic[FoundT]):
    """All batches of one call: `task` runs one of them over a runner, and fills ``run.data``.

    `what` is done, as a progress bar says it: "sampling"; `made`: what comes out, in the plural. `halves`: the
    caller left the batch size open, so a batch that does not fit into memory may be run in two halves. `infinite`:
    an infinite result is one; NaN never is.
    """

    task: Callable[[Runner, Run], FoundT]
    rounds: Rounds
    batches: Batches
    what: str = "sampling"
    made: str = "samples"
    halves: bool = False
    infinite: bool = False
    progress: bool | None = None


class Executor:
    """The one place that runs graphs in batches. Threads may share it.

    `runners`: what it runs on. `room`: the memory that runs may take.
    """

    def __init__(self, model: ModelSpec, runners: Runners) -> None:
        self.model = model
        self.runners = runners
        self.room = Room(host=not any(device in runners.first.label for device in DEVICES))
        self.most: int | None = None
        """The largest batch of the model's own size that is left open, once a larger one did not fit."""
        self._workers: ThreadPoolExecutor | None = None
        self._leases: WeakSet[Lease] = WeakSet()  # who calls again owns them
        self._closed = False
        self._lock = new_lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """See :class:`gensdk_runtime.host.forking.Renewable`: the threads stayed behind."""
        self._workers = None

    @property
    def closed(self) -> bool:
        """True once it was closed."""
        return self._closed

    def lease(self) -> Lease:
        """A lease for a caller that calls again, which ends with the executor."""
        lease = Lease()
        with self._lock:
            self._leases.add(lease)
            closed = self._closed
        if closed:
            lease.close()
        return lease

    def close(self) -> None:
        """Closes the runners and the leases; work that is under way ends, at the latest with
        :class:`BackendError`."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, None
            leases = list(self._leases)
        for lease in leases:
            lease.close()
        self.runners.close()
        if workers is not None:
            workers.shutdown(wait=False)

    def limit(self, batch_size: int | None, growth: Growth | None = None, size: Size | None = None) -> int:
        """The largest batch: what the caller asked for, or what bundle and backend take and fits into memory.

        `growth`: of samples that are not of the model's own size; `size`: the (height, width) of their images.
        Raises :class:`InputError` for a `batch_size` that the bundle does not take.
        """
        if batch_size is not None:
            return check_whole(batch_size, "batch_size", least=1, most=self.model.max_batch)
        known = (largest_batch(self.model, growth=growth), self.most, self.largest_batch(size))
        return min(most for most in known if most is not None)

    def largest_batch(self, size: Size | None) -> int | None:
        """As many images of this (height, width) as the backend takes at once; None: any number."""
        source = self.model.source
        if size is None or source is None:
            return None
        _, runner = self.runners.plan(1, 1, 1)[0]
        return runner.largest("batch", {HEIGHT: source.padded(size[0]), WIDTH: source.padded(size[1])})

    def largest_sides(self) -> tuple[int | None, int | None]:
        """The height and width up to which the backend takes an image alone; None: any."""
        _, runner = self.runners.plan(1, 1, 1)[0]
        return runner.largest(HEIGHT, {"batch": 1}), runner.largest(WIDTH, {"batch": 1})

    def plan(
        self,
        n: int,
        batch_size: int | None = None,
        *,
        growth: Growth | None = None,
        size: Size | None = None,
        fixed: bool = False,
        accept: Accept | None = None,
    ) -> Rounds:
        """How `n` samples are split, with an open runner for each round.

        `fixed`: in batches of :meth:`limit`, and not as was measured to be cheapest. `accept`: whether a one-call
        program will do. Raises as :meth:`limit` does, and :class:`BackendError` where nothing can be opened.
        """
        limit = self.limit(batch_size, growth, size)
        # What was measured holds for samples of the model's own size: larger ones go in batches that fit.
        given = fixed or batch_size is not None or limit < largest_batch(self.model)
        return self.runners.plan(n, limit if given else None, limit, accept=accept)

    def run(self, work: Work[FoundT]) -> list[Done[FoundT]]:
        """Runs round after round until all is done, or a callback stopped it; the batches that began, in order.

        Raises :class:`BackendError` where the backend fails, memory does not suffice, a result is NaN or infinite,
        or the executor was closed.
        """
        done: list[Done[FoundT]] = []
        total = len(work.batches.data)
        try:
            with Progress(total, f"{work.what} {self.model.name}", show=work.progress) as bar:
                for found, runner in work.rounds:
                    fresh = work.batches.next(found)
                    for run in fresh if bar.shown else ():
                        run.on_progress = bar.share(len(run.data))
                    begun = self._round(work, runner, fresh)
                    done += begun
                    stopped = begun[-1].run.stopped
                    for run in fresh[: len(begun)] if stopped else fresh:
                        if run.on_progress is not None:
                            run.on_progress(1.0)  # not every program tells its steps
                    if stopped:
                        break
        except MemoryError:
            raise OutOfMemoryError(
                f"out of memory while {work.what} {total} of {self.model.name!r}; pass a smaller batch_size, take "
                "fewer at a time, or give more memory"
            ) from None
        return done

    def _round(self, work: Work[FoundT], runner: Runner, runs: Sequence[Run]) -> list[Done[FoundT]]:
        """Runs batches side by side, or one after another where a callback listens; those that began."""
        if len(runs) == 1:
            return self._batch(work, runner, runs[0])
        if runs[0].on_step_end is not None:
            done: list[Done[FoundT]] = []
            for run in runs:
                done += self._batch(work, runner, run)
                if run.stopped:
                    break
            return done
        waiting: list[Future[list[Done[FoundT]]]] = []
        try:
            for run in runs[1:]:
                waiting.append(self._submit(partial(self._batch, work, runner, run)))
            first = self._batch(work, runner, runs[0])  # in this thread: it would only wait
        finally:
            wait(waiting)  # all of them, so that none still writes where another failed
        side_by_side = [*first, *(done for each in waiting for done in each.result())]
        for each_done in side_by_side:
            each_done.run.graph_seconds /= len(runs)  # they spent it at the same time
        return side_by_side

    def _batch(self, work: Work[FoundT], runner: Runner, run: Run) -> list[Done[FoundT]]:
        """One batch, or what it was cut into where it did not fit into memory."""
        try:
            found = work.task(runner, run)
        except (MemoryError, OutOfMemoryError):
            count = len(run.data)
            if not work.halves or count == 1 or run.on_step_end is not None:
                raise
            self._shrink(count)
        else:
            self._check(work, runner, run)
            return [Done(run, found)]
        return [done for half in run.halved() for done in self._batch(work, runner, half)]

    def _shrink(self, count: int) -> None:
        """Half as many from now on; the results stay the same, since no sample depends on its batch."""
        smaller = (count + 1) // 2
        with self._lock:
            known = self.most is not None and self.most <= smaller
            self.most = self.most if known else smaller
        if not known:
            tell(
                f"a batch of {count} of model {self.model.name!r} did not fit into memory and was run in halves; "
                f"from now on batches are of at most {smaller} (pass batch_size to choose)"
            )

    def _submit(self, work: Callable[[], FoundT]) -> Future[FoundT]:
        """To threads for batches that run side by side; kept, as starting them costs as much as a small batch."""
        with self._lock:
            if self._closed:
                raise BackendError("the generator was closed; load the bundle again")
            if self._workers is None:  # it starts threads only as they are needed
                self._workers = ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="gensdk")
            try:
                return self._workers.submit(work)
            except RuntimeError as failure:  # the interpreter is ending, or the system has no more threads
                raise BackendError(f"no thread can be started ({failure})") from None

    def _check(self, work: Work[FoundT], runner: Runner, run: Run) -> None:
        made = run.data
        if made.dtype.kind != "f":  # of bytes the program checked it
            return
        if isfinite(np.add.reduce(made, axis=None)):  # one pass; NaN and infinity survive a sum
            return
        fine = ~np.isnan(made) if work.infinite else np.isfinite(made)
        bad = int((~fine).reshape(len(made), -1).any(axis=1).sum())
        if bad:
            raise not_finite(f"{bad} of {len(made)} {work.made}", runner.label, runner.precision)
