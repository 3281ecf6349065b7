"""A batch of a diffusion model under way, whose members may differ in solver, steps, guidance and step.

Members that began together with the same settings go in lockstep: a :class:`Cohort`. Cohorts that may share the
calls of a graph lie side by side in one :class:`Lane`. A step graph of the first contract has one time step and
one row of coefficients for all of its batch, so there each cohort has a lane of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound, HeldKeys
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.diffusion_graphs import CARRY
from gensdk_runtime.programs.diffusion_latents import Decoding
from gensdk_runtime.programs.diffusion_loop import MOST_STEPS, Loop
from gensdk_runtime.programs.diffusion_start import Start
from gensdk_runtime.programs.guidance import Passes
from gensdk_runtime.programs.run import Borrower, Run, State
from gensdk_runtime.programs.solvers import NO_CLIP, SolverTable
from gensdk_runtime.programs.step_tables import StepTables

REST = np.array([0.0, 0.0, NO_CLIP, 1.0, 0.0, 0.0, 0.0, 0.0], np.float32)
"""The row of coefficients that leaves a sample as it is."""


@dataclass(frozen=True)
class Steps:
    """A solver's table, as steps are fed: float32 `coefficients` [S, 8] in one array, its `rows`, whether each
    step adds noise, and how much of image and noise there is before it, float32 [S]."""

    timesteps: tuple[float, ...]
    coefficients: Float32
    rows: tuple[Float32, ...]
    noisy: tuple[bool, ...]
    alpha: Float32
    sigma: Float32

    @classmethod
    def of(cls, table: SolverTable) -> Steps:
        """Rounded once."""
        coefficients = table.coefficients.astype(np.float32)
        noisy = tuple((table.noise_scale > 0).tolist())
        times = tuple(int(time) if time.is_integer() else time for time in table.timesteps.tolist())
        alpha, sigma = table.alpha.astype(np.float32), table.sigma.astype(np.float32)
        return cls(times, coefficients, tuple(coefficients), noisy, alpha, sigma)


class Cohort:
    """Members of one run that go in lockstep: those at `places` of it, or with None all.

    `embeddings`: of each step, float32 [L, F] for the labels that occur; None for a graph that takes time steps.
    `interval`: only every so many steps are computed in full. `start`: where they start from images;
    `decoding`: where what the steps make are latents.
    """

    def __init__(
        self,
        run: Run,
        places: NDArray[np.intp] | None,
        steps: Steps,
        passes: Passes | None,
        *,
        embeddings: Sequence[Float32] | None,
        interval: int,
        start: Start | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        self.run, self.steps, self.passes, self.interval = run, steps, passes, interval
        self.keys = run.keys if places is None else tuple(run.keys[place] for place in places)
        self.step, self.done = 0, False
        self.berth: Berth | None = None
        self.keeps = start is not None and start.keeps
        self._start, self._decoding = start, decoding
        self._padded = passes
        self._tables: StepTables | None = None
        self._held: HeldKeys | None = None
        self._at = slice(None)
        self._places = places
        self._tells = run.watched and places is None
        self._embeddings = embeddings

    def __len__(self) -> int:
        return len(self.keys)

    def write(self, bound: Bound) -> None:
        """Writes what the next step is fed into the members' part of the batch."""
        at, step = self._at, self.step
        if self._tables is not None:
            self._tables.feed(bound, step)
        elif self.done:
            bound.overwrite("coefficients")[at] = REST
            return
        else:
            if self._embeddings is None:
                bound.overwrite("timestep")[at] = self.steps.timesteps[step]
            elif self._padded is None:
                bound.overwrite("embedding")[at] = self._embeddings[step][0]
            else:
                self._padded.spread(self._embeddings[step], bound.overwrite("embedding")[:, at])
            bound.overwrite("coefficients")[at] = self.steps.rows[step]
            if self.keeps and self._start is not None and step:
                self._start.keep(step, bound.input("sample")[at])
        if self.steps.noisy[step]:  # else what lies there is multiplied by zero
            self._draw("noise", bound, step + 1)

    def _draw(self, name: str, bound: Bound, stream: int) -> None:
        """Normal noise into the members' part of an input; where they have the batch to themselves, where it is
        read."""
        if self.berth is not None and self.berth.resident:
            bound.draw(name, "normal", self.hold_keys(), stream)
        else:
            part = bound.overwrite(name)[self._at]
            noise.normal(self.keys, stream, part.shape[1:], out=part)

    def hold_keys(self) -> HeldKeys:
        """The keys of the members where noise is drawn from them, with the batch to themselves."""
        if self._held is None:
            berth = self.berth
            self._held = HeldKeys(self.keys) if berth is None else berth.full.hold_keys(self.keys)
        return self._held

    def end_step(self, bound: Bound, seconds: float) -> bool:
        """Takes the result after the last step, or where a listener ends the run; True if there is more to do."""
        if self.done:
            return False
        step, run, end = self.step, self.run, len(self.steps.rows)
        run.graph_seconds += seconds
        self.step = step + 1
        if self._tells:
            timestep, at = self.steps.timesteps[step], self._at
            if run.end_step(step, end, timestep, lambda: self._shown(bound.output("next_previous_x0")[at])):
                self._take(bound, "next_previous_x0")
                return False
        if step + 1 < end:
            return True
        self._take(bound, "next_sample")
        return False

    @property
    def all_on_device(self) -> bool:
        """True before the first step, if all that the steps are fed is on the device, and nobody listens."""
        few = len(self.steps.rows) <= MOST_STEPS
        return self._tables is not None and self._tables.whole and few and self.step == 0 and not self.run.watched

    def end_loop(self, bound: Bound) -> None:
        """Takes the result of all steps, of which `bound` made the last."""
        self.step = len(self.steps.rows)
        self._take(bound, "next_sample")

    def stop(self) -> None:
        """Takes the present estimate of x_0 as the result; zeros before the first step."""
        if self.done:
            return
        if self.berth is None or self.berth.last is None:
            self._give(np.zeros((len(self), *self.run.data.shape[1:]), np.float32))
        else:
            self._take(self.berth.last, "next_previous_x0")

    def _finished(self, made: Float32) -> Float32:
        """What was made of the members, with what is kept of the images that they start from."""
        return made if self._start is None else self._start.finished(made)

    def _shown(self, x0: Float32) -> Float32:
        """An estimate of x_0, for who listens."""
        x0 = self._finished(x0)
        return x0 if self._decoding is None else self._decoding.shown(x0)

    def _take(self, bound: Bound, output: str) -> None:
        """Takes the members' samples from an output of the graph that ran last."""
        if self._decoding is None:
            self._give(self._finished(bound.output(output)[self._at]))
        elif self.berth is not None and self.berth.resident:
            self._give(self._decoding.images_of(bound, output, self.run))
        else:
            self._give(self._decoding.images(self._finished(bound.output(output)[self._at]), self.run))

    def _give(self, images: Float32) -> None:
        self.done = True
        run = self.run
        if self._places is None:
            run.finish(images)
        else:
            wanted = self._places < len(run.data)  # the others are what the batch was padded with
            run.data[self._places[wanted]] = images[wanted]

    def again(self, run: Run) -> bool:
        """Begins anew with `run` where it lies; False if it has other members or asks for something else."""
        old = self.run
        alike = self._places is None and len(run) == len(old) and run.conditions is old.conditions
        if self.berth is None or not alike or run.watched or old.watched or not self.berth.restart():
            return False
        self.run, self.keys, self.step, self.done = run, run.keys, 0, False
        self._held = None
        self._begin(self.berth.full)
        return True

    def move(self, berth: Berth, bound: Bound, at: slice) -> None:
        """Goes to its part of other buffers, of which `bound` runs next, with all that it has by now."""
        old, was = self.berth, self._at
        self.berth, self._at, self._held = berth, at, None
        self._tables = self._tables_of(berth) if berth.resident else None
        if self.passes is not None and self._tables is None:
            self._padded = berth.write_passes(self.passes, at)
        if old is None or old.last is None:
            self._begin(bound)
            return
        for output, name in CARRY.items():
            bound.overwrite(name)[at] = old.last.output(output)[was]
        if bound is not berth.full:
            features, out = old.features(), bound.overwrite("deep_features")
            if self.passes is None:
                out[at] = features[was]
            else:  # a pass that is added has the label of the first, and so its features
                out[:, at] = features[: len(out), was] if len(out) <= len(features) else features[:1, was]

    def _tables_of(self, berth: Berth) -> StepTables:
        """All that the steps are fed, on the device; for members that have the batch to themselves."""
        graph, rows = berth.full.session.graph, {"coefficients": self.steps.rows}
        fixed: dict[str, NDArray[Any]] = {}
        if self.passes is not None:
            fixed = {name: values for name, values in self.passes.fixed() if graph.input(name) is not None}
        if self._embeddings is not None:
            return StepTables(berth.bounds, rows, fixed, passes=self.passes, embeddings=self._embeddings)
        return StepTables(berth.bounds, {**rows, "timestep": self.steps.timesteps}, fixed)

    def _begin(self, bound: Bound) -> None:
        """Writes x_T as the sample that `bound` runs on."""
        latents = self.run.latents
        if self._start is not None:
            self._start.begin(bound.overwrite("sample")[self._at])
        elif latents is None:
            self._draw("sample", bound, noise.LATENT_STREAM)
        else:
            bound.overwrite("sample")[self._at] = latents if self._places is None else latents[self._places]


class Berth(Borrower):
    """The buffers of one batch: those of the step graph, and of the shallow one where steps share features.

    `full` runs every `interval` steps; `last` is what ran last. `resident`: what goes on from step to step stays
    on a device: it is that of all graphs, and the members are `alike`, with the whole batch to themselves.
    """

    def __init__(self, graphs: Sequence[Session], interval: int, *, batch: int, passes: int, alike: bool) -> None:
        super().__init__()
        sizes = {"batch": batch, "guidance": passes} if passes else {"batch": batch}
        self.bounds = [self.borrow(graph, sizes, CARRY) for graph in graphs]
        self._graphs = graphs
        self.full = self.bounds[0]
        self.last: Bound | None = None
        self._turns = (self.full, *[self.bounds[-1]] * (interval - 1))
        self._one_device = self.full.on_device and len({bound.session.backend for bound in self.bounds}) == 1
        self.resident = alike and self._one_device
        for bound in self.bounds:
            if self.resident:  # where noise was cleared when the memory was taken
                bound.feed("previous_x0").fill(0)
            else:
                bound.overwrite("previous_x0").fill(0)
                bound.overwrite("noise").fill(0)

    def restart(self) -> bool:
        """To before the first step; False where a graph runs on another backend by now."""
        pairs = zip(self.bounds, self._graphs, strict=True)
        if any(bound.session.backend != graph.backend for bound, graph in pairs):
            return False
        for bound in self.bounds:
            bound.rewind()
            bound.feed("previous_x0").fill(0)
        self.last = None
        return True

    def due(self, number: int) -> Bound:
        """What runs in step `number`."""
        return self._turns[number % len(self._turns)]

    def ready(self, number: int) -> Bound:
        """The same, given what the step before has made."""
        bound, last = self._turns[number % len(self._turns)], self.last
        if bound is not last:
            if last is not None:
                self._hand_over(last, bound)
            self.last = bound
        return bound

    def _hand_over(self, last: Bound, bound: Bound) -> None:
        given = {name: output for output, name in CARRY.items()}
        if bound is not self.full:
            given["deep_features"] = "deep_features"
        for name, output in given.items():
            if self._one_device:
                bound.feed(name)[...] = last.made(output)
            else:
                bound.overwrite(name)[...] = last.output(output)

    def features(self) -> Float32:
        """The deep features of the last full step."""
        if self.last is self.full:
            return self.full.output("deep_features")
        return self.bounds[-1].input("deep_features")

    def write_passes(self, passes: Passes, at: slice) -> Passes:
        """Writes what of guidance stays the same from step to step; the passes as they run in this batch."""
        for bound in self.bounds:
            passes = passes.padded(len(bound.overwrite("guidance_weights")))
            for name, values in passes.fixed():
                if bound.session.graph.input(name) is not None:
                    out = bound.overwrite(name)
                    (out if out.ndim == 1 else out[:, at])[...] = values
        return passes


class Lane:
    """Cohorts that share the calls of `graphs`, one after another in the batch; just one unless it is `shared`."""

    def __init__(self, graphs: tuple[Session, ...], cohort: Cohort, *, shared: bool) -> None:
        self.cohorts = [cohort]
        self.more = True
        self._graphs, self._interval, self._shared = graphs, cohort.interval, shared
        self._number = 0
        self._settled = False
        self._loop: Loop | None = None
        self.berths: list[Berth] = []

    def step(self) -> bool:
        """One step of all cohorts; True if one of them has more to do."""
        if not self._settled:
            self._settle()
        bound = self.berths[0].ready(self._number)
        for cohort in self.cohorts:
            cohort.write(bound)
        start = perf_counter()
        bound.run()
        seconds = perf_counter() - start
        self._number += 1
        self.more = False
        for cohort in self.cohorts:
            if cohort.end_step(bound, seconds):
                self.more = True
        return self.more

    def again(self, run: Run) -> bool:
        """Begins anew with `run` in place of the one run that there was; False where there were more."""
        self._number = 0
        if len(self.cohorts) != 1 or not self._settled or not self.cohorts[0].again(run):
            return False
        self.more = True
        if self._loop is None and self.berths[0].resident:
            self._loop = Loop()
        return True

    def complete(self) -> bool:
        """All steps as one piece of work, where they were done in this way before; False: nothing was done."""
        if self._loop is None:
            return False
        cohort = self.cohorts[0]
        done = self._loop.done(self.berths[0], cohort)
        if done:
            self._number, self.more = len(cohort.steps.rows), False
        return done

    def _settle(self) -> None:
        """Lays the cohorts that have more to do side by side in buffers of their size, with what they have."""
        self.cohorts = [cohort for cohort in self.cohorts if not cohort.done]
        batch = sum(len(cohort) for cohort in self.cohorts)
        passes = max(0 if cohort.passes is None else len(cohort.passes) for cohort in self.cohorts)
        alike, first = len(self.cohorts) == 1 and not self.cohorts[0].keeps, 0
        berth = Berth(self._graphs, self._interval, batch=batch, passes=passes, alike=alike)
        for cohort in self.cohorts:
            at = slice(first, first := first + len(cohort)) if self._shared else slice(None)
            cohort.move(berth, berth.due(self._number), at)
        for old in self.berths:
            old.close()
        self.berths, self._settled = [berth], True

    def takes(self, other: Lane) -> bool:
        """True if the cohorts of `other` can go on in this lane: the same graphs are due at the same times."""
        interval = self._interval
        alike = self._shared and self._graphs == other._graphs and interval == other._interval
        return alike and self._number % interval == other._number % interval

    def add(self, other: Lane) -> None:
        """Takes over the cohorts of `other`."""
        self.cohorts += other.cohorts
        self.more = self.more or other.more
        self.berths += other.berths
        self._settled = False

    def remove(self, run: Run) -> None:
        """Lets the cohorts of `run` go, with what they have."""
        for cohort in self.cohorts:
            if cohort.run is run:
                cohort.stop()
                self._settled = False
        self.cohorts = [cohort for cohort in self.cohorts if cohort.run is not run]
        self.more = not all(cohort.done for cohort in self.cohorts)

    def close(self, *, broken: bool = False) -> None:
        """Gives the buffers back."""
        while self.berths:
            self.berths.pop().close(broken=broken)


class DiffusionState(State):
    """Runs under way. Between two steps others may join, and one may leave.

    Who lets them join sees to it that they are no more samples than the model's `max_batch`. A run that is done
    has its images; its samples rest where they lie, at the cost of the others, until it leaves or others join.
    """

    restarts = True

    def __init__(self, run: Run, lane: Lane) -> None:
        super().__init__(run)
        self._lanes = [lane]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that have more to do."""
        cohorts = [cohort for lane in self._lanes for cohort in lane.cohorts if not cohort.done]
        return tuple({id(cohort.run): cohort.run for cohort in cohorts}.values())

    def again(self, run: Run) -> bool:
        """See :class:`State`."""
        if len(self._lanes) != 1 or not self._lanes[0].again(run):
            return False
        self.run = run
        return True

    def complete(self) -> None:
        """See :class:`State`."""
        if len(self._lanes) != 1 or not self._lanes[0].complete():
            super().complete()
            return
        self.finish()
        self.run.graph_seconds += self.take_waited()

    def step(self) -> bool:
        """One step of each run."""
        more = False
        for lane in self._lanes:
            if lane.more and lane.step():
                more = True
        return more

    def finish(self) -> None:
        """See :class:`State`."""
        for lane in self._lanes:
            for cohort in lane.cohorts:
                cohort.stop()

    def join(self, other: State) -> bool:
        """Takes over all runs of `other`, which is used up; each goes on from the step that it is at."""
        if not isinstance(other, DiffusionState) or other is self:
            return False
        for lane in other._lanes:
            for mine in self._lanes:
                if mine.takes(lane):
                    mine.add(lane)
                    break
            else:
                self._lanes.append(lane)
        other._lanes = []
        return True

    def leave(self, run: Run) -> None:
        """Ends `run` here: its images are its samples, or its present estimate of x_0 where it has more to do."""
        for lane in self._lanes:
            lane.remove(run)
        gone = [lane for lane in self._lanes if not lane.cohorts]
        self._lanes = [lane for lane in self._lanes if lane.cohorts]
        for lane in gone:
            lane.close()

    def take_waited(self) -> float:
        """See :class:`Borrower`."""
        return sum(berth.take_waited() for lane in self._lanes for berth in lane.berths)

    def close(self, *, broken: bool = False) -> None:
        """See :class:`Borrower`."""
        for lane in self._lanes:
            lane.close(broken=broken)
