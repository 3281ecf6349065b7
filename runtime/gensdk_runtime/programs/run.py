"""One batch on its way: what it depends on, what comes of it, and its state between two steps of a program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound, Carry, Sizes
from gensdk_runtime.noise import Distribution, Float32, SampleKey


@dataclass(frozen=True)
class StepEnd:
    """What ``callback_on_step_end`` gets: step `step` of `num_steps` has ended for these samples.

    `timestep` is the model's time step, an int where it is whole (a row for autoregressive models); `first` is the
    place of the first of the `count` samples; `x0` is the present estimate of the images, float32 [count, C, H,
    W], or points [count, D]; of a model that samples in a latent space the latents, or where it has a
    :attr:`LatentSpec.preview` a guess of the images at the size of those; `objective`, of a model that optimizes
    its input, is what each sample's objective was before this step, float32 [count].
    """

    step: int
    num_steps: int
    timestep: float
    first: int
    count: int
    x0: Float32
    objective: Float32 | None = None


StepCallback = Callable[[StepEnd], object]
"""Is called after each step; a true value that it returns ends the run."""
StepClock = Callable[[int], bool]
"""Is told that a step of so many has ended, without a look at the samples; True ends the run."""


@dataclass
class Run:
    """One batch on its way: what it depends on, and the clock of its graph calls. Belongs to one thread.

    The graphs run a batch of len(run) samples, of which the first len(`data`) are wanted: a batch may be padded
    to a size that the backend is fast at; `size` tells it where no `keys` do, since nothing is drawn. `data` takes
    the result [count, ...], of the model's kind of output, or uint8 images [count, H, W, C] for a program that
    :attr:`Program.makes_uint8`; of another task what that makes. `conditions`: what the samples are asked to be,
    by kind, [len(run), ...]; of a task that judges images, those are the "image". `lengths` [count], to be filled
    too: how much of each is its own, where samples may end early.
    """

    keys: tuple[SampleKey, ...]
    data: NDArray[Any]
    conditions: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    latents: Float32 | None = None
    first: int = 0
    on_step_end: StepCallback | None = None
    on_progress: Callable[[float], None] | None = None
    clock: StepClock | None = None
    graph_seconds: float = 0.0
    seconds: float = 0.0
    stopped: bool = field(default=False)
    size: int = 0
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.size or len(self.keys)

    def halved(self) -> list[Run]:
        """The same work as two batches, without what this one was padded with."""
        count = len(self.data)
        middle = (count + 1) // 2
        return [self._part(slice(0, middle)), self._part(slice(middle, count))]

    def _part(self, some: slice) -> Run:
        data = self.data[some]
        return Run(
            keys=self.keys[some],
            data=data,
            conditions={kind: values[some] for kind, values in self.conditions.items()},
            latents=None if self.latents is None else self.latents[some],
            first=self.first + some.start,
            on_step_end=self.on_step_end,
            size=len(data),
            lengths=None if self.lengths is None else self.lengths[some],
        )

    def timed(self, bound: Bound) -> None:
        """Runs a graph and adds its time to :attr:`graph_seconds`; on a device it may only begin there, and is
        waited for where its results are read (:attr:`Bound.waited`)."""
        start = perf_counter()
        bound.run()
        self.graph_seconds += perf_counter() - start

    @property
    def watched(self) -> bool:
        """True if a callback listens to steps."""
        return self.on_step_end is not None or self.on_progress is not None or self.clock is not None

    def end_step(
        self,
        step: int,
        num_steps: int,
        timestep: float,
        x0: Callable[[], Float32],
        *,
        objective: Float32 | None = None,
    ) -> bool:
        """Reports a finished step; True when the caller wants to stop here. `x0` is asked only if one listens."""
        if self.on_progress is not None:
            self.on_progress((step + 1) / num_steps)
        if self.clock is not None:
            self.stopped = self.clock(num_steps)
        if self.on_step_end is not None:
            count = len(self.data)
            height = None if objective is None else objective[:count].copy()
            info = StepEnd(step, num_steps, timestep, self.first, count, x0()[:count].copy(), height)
            self.stopped |= bool(self.on_step_end(info))
        return self.stopped

    def finish(self, made: NDArray[Any]) -> None:
        """Keeps the result [len(run), ...] without what it was padded with."""
        self.data[...] = made[: len(self.data)]

    def latent(self, out: Float32) -> None:
        """Writes the latents that the caller gave, or standard normal noise, into `out` [len(self), ...]."""
        if self.latents is None:
            noise.normal(self.keys, noise.LATENT_STREAM, out.shape[1:], out=out)
        else:
            np.copyto(out, self.latents)

    def feed_latent(self, bound: Bound, name: str, distribution: Distribution = "normal") -> None:
        """The same as input `name` of a graph; noise is drawn where the graph reads it."""
        if self.latents is None:
            bound.draw(name, distribution, bound.hold_keys(self.keys), noise.LATENT_STREAM)
        else:
            np.copyto(bound.overwrite(name), self.latents)


class Borrower:
    """Has buffers of graphs on loan until it is closed, at the end of ``with`` or by :meth:`close`."""

    def __init__(self) -> None:
        self._borrowed: list[tuple[Session, Bound]] = []

    def borrow(self, session: Session, sizes: Sizes, carry: Carry | None = None) -> Bound:
        """A graph with its buffers; see :meth:`Session.lend`."""
        bound = session.lend(sizes, carry)
        self._borrowed.append((session, bound))
        return bound

    def take_waited(self) -> float:
        """Seconds that were waited for what graphs had begun (:attr:`Bound.waited`), since it was asked last."""
        return sum(bound.take_waited() for _, bound in self._borrowed)

    def close(self, *, broken: bool = False) -> None:
        """Gives the buffers back, `broken` after a run that failed. May be called twice."""
        for _, bound in self._borrowed if broken else ():
            bound.drain()  # all of them first: what one began may still write into another
        while self._borrowed:
            session, bound = self._borrowed.pop()
            session.give_back(bound, broken=broken)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        self.close(broken=kind is not None)


class State(Borrower, ABC):
    """A batch under way, between two of its steps. Belongs to one thread.

    :meth:`step` until there is no more to do, then :meth:`finish`, then :meth:`close`.
    """

    restarts: ClassVar[bool] = False
    """Whether :meth:`again` may say yes."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @abstractmethod
    def step(self) -> bool:
        """Makes one step; True if there is more to do. ``run.end_step`` is told of it, and may end the run."""

    @abstractmethod
    def finish(self) -> None:
        """Fills ``run.data`` with the samples, or where steps are left with the present estimate."""

    def complete(self) -> None:
        """All steps that are left, and :meth:`finish`."""
        while self.step():
            pass
        self.finish()
        self.run.graph_seconds += self.take_waited()

    def again(self, run: Run) -> bool:
        """Begins anew with `run`, in the same buffers and with the same settings; False where it can't.

        Of states whose :attr:`restarts` is true, once they are finished.
        """
        return False

    def join(self, other: State) -> bool:
        """Takes over the runs of `other`, each at the step that it is at; False where they can't share a batch."""
        return False


class OneRun(State):
    """One run of one graph is the whole loop.

    `bound` is for the program to write the inputs into. `read` takes the samples from it, as float32 or as bytes.
    """

    def __init__(
        self, run: Run, session: Session, sizes: Sizes, read: Callable[[Bound, bool], NDArray[Any]]
    ) -> None:
        super().__init__(run)
        self.bound = self.borrow(session, sizes)
        self._read = read

    def step(self) -> bool:
        """The one step."""
        self.run.timed(self.bound)
        if self.run.watched:
            self.run.end_step(0, 1, 0, lambda: self._read(self.bound, False))
        return False

    def finish(self) -> None:
        """See :class:`State`."""
        self.run.finish(self._read(self.bound, self.run.data.dtype == np.uint8))
