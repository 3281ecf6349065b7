"""The runners that a generator may use, opened when they are first needed, and how it splits its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Literal

from gensdk_runtime.errors import BackendError, BundleError, UnavailableError
from gensdk_runtime.host.forking import new_lock, renew_in_children
from gensdk_runtime.plan.costs import Choice, CostTable, Form, Round
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.base import Program

Accept = Callable[[Program[Any]], bool]
"""Tells whether a program will do."""
LOOK_EVERY = 1.0
"""Seconds between two looks at whether another process has measured."""


class Runners:
    """A runner for each :class:`Choice`, and the costs by which to choose among them.

    `opener` opens the runner of a choice, again in a forked child; `costs` None: there is one choice, and nothing
    was measured. A choice that can't be opened any more (its package was removed, its driver is gone, the bundle
    was overwritten) is left out from then on, and the record of results says so; `resort` is taken when none is
    left of those that were measured; `awaited` is asked now and then for better ones.
    """

    def __init__(
        self,
        runners: Mapping[Choice, Runner],
        *,
        costs: CostTable | None = None,
        opener: Callable[[Choice], Runner] | None = None,
        resort: Choice | None = None,
        fallbacks: Sequence[str] = (),
        awaited: Look | None = None,
    ) -> None:
        self._runners = dict(runners)
        self._unmeasured = tuple(runners)
        self._costs = costs
        self._opener = opener
        self._resort: Choice | None = None
        self._lock = new_lock()
        self._closed = self._forked = False
        self._fallbacks = list(fallbacks)
        self._awaited = awaited
        self._next_look = monotonic() + LOOK_EVERY
        self._kept: tuple[CostTable, CostTable] | None = None
        self.generation = 0
        """Counts up when a plan may no longer be what it was: a choice was left out, or all was closed."""
        if not self._runners:
            self.plan(1, None, 1)
        self._resort = resort  # from now on: what can't be opened in the first place is the caller's to answer
        renew_in_children(self)

    @property
    def first(self) -> Runner:
        """The runner that was opened first: for checks."""
        return next(iter(self._runners.values()))

    def after_fork(self) -> None:
        """See :class:`gensdk_runtime.host.forking.Renewable`: a child opens anew what it can't go on with."""
        if self._opener is not None and not all(runner.survives_fork for runner in self._runners.values()):
            self._runners = {}
            self._forked = True
            self.generation += 1

    @property
    def steps(self) -> Runner:
        """A runner with all of the model's graphs: for what is run graph by graph."""
        while True:
            there = next((choice.alone for choice in self._runners if choice.form == "steps"), None)
            choice = there or next(iter(self._step_choices())).alone
            try:
                return self._open(choice)
            except BackendError as failure:
                self._drop(choice, failure)

    def every(self) -> tuple[Runner, ...]:
        """A runner for each choice that runs graph by graph, opened now; what can't be opened is left out."""
        self.open_all()
        steps = dict.fromkeys(choice.alone for choice in self._step_choices())
        return tuple(self._runners[choice] for choice in steps if choice in self._runners)

    def plan(
        self, n: int, batch: int | None, limit: int, *, accept: Accept | None = None
    ) -> list[tuple[Round, Runner]]:
        """Rounds for `n` samples, each with its open runner.

        In batches of `batch`, or None: as is cheapest, in batches of at most `limit`. `accept`: whether a one-call
        program will do; where it won't, all runs step by step. Raises :class:`BackendError` where no choice can
        be opened.
        """
        form: Form = "one_call"
        while True:
            rounds = self._plan(n, batch, limit, form)
            for each in dict.fromkeys(found.choice for found in rounds):
                try:
                    runner = self._open(each)
                except BackendError as failure:
                    self._drop(each, failure)
                    break
                if each.form == "one_call" and accept is not None and not accept(runner.program):
                    form = "steps"
                    break
            else:
                opened = [(found, self._runners[found.choice.alone]) for found in rounds]
                return [(_padded(found, runner, batch or limit), runner) for found, runner in opened]

    def look(self) -> None:
        """Goes over to what another process has measured meanwhile, once there is something."""
        if self._awaited is None or monotonic() < self._next_look:
            return
        with self._lock:
            awaited, self._awaited = self._awaited, None  # other threads go on meanwhile
        found = None if awaited is None else awaited()
        with self._lock:
            if found == "measuring":
                self._awaited, self._next_look = awaited, monotonic() + LOOK_EVERY
            elif isinstance(found, Runners) and not self._closed:
                self._costs, self._opener, self._resort = found._costs, found._opener, found._resort
                kept = {choice: mine for choice, mine in self._runners.items() if choice not in found._runners}
                self._runners, self._fallbacks = {**found._runners, **kept}, list(found._fallbacks)
                self.generation += 1
                return
        if isinstance(found, Runners):
            found.close()

    def open_all(self) -> None:
        """Opens every choice now, for a bundle that will be closed."""
        for choice in dict.fromkeys((*self._choices(), *self._step_choices())):
            try:
                self._open(choice)
            except BackendError as failure:
                self._drop(choice, failure)

    def record(self, rounds: Sequence[tuple[Round, Runner]]) -> dict[str, Any]:
        """What ran, and what could not: for the settings of the samples."""
        runners = [runner for _, runner in rounds]
        fallbacks = list(self._fallbacks)
        for runner in runners:
            if stayed := runner.fallbacks:
                fallbacks += [each for each in stayed if each not in fallbacks]
        return {
            "backend": "+".join(dict.fromkeys(runner.label for runner in runners)),
            "precision": "+".join(dict.fromkeys(runner.precision for runner in runners)),
            **({"fallback": "; ".join(fallbacks)} if fallbacks else {}),
        }

    def close(self) -> None:
        """Closes what is open. May be called twice."""
        with self._lock:
            self._closed = True
            self.generation += 1
            for runner in self._runners.values():
                runner.close()

    def _choices(self) -> tuple[Choice, ...]:
        return self._costs.choices if self._costs is not None else self._unmeasured

    def _step_choices(self) -> tuple[Choice, ...]:
        """The choices that run step by step; where there is none, those that there are, made to."""
        choices = self._choices()
        steps = tuple(choice for choice in choices if choice.form == "steps")
        return steps or tuple(dict.fromkeys(choice.model_copy(update={"form": "steps"}) for choice in choices))

    def _plan(self, n: int, batch: int | None, limit: int, form: Form) -> Sequence[Round]:
        if self._costs is not None:
            costs = self._costs if form == "one_call" else self._step_costs(self._costs)
            return costs.plan(n) if batch is None else costs.plan_batches(n, batch)
        only = next(iter(self._unmeasured if form == "one_call" else self._step_choices()))
        size = batch or limit
        return [Round(only, (min(size, n - first),)) for first in range(0, n, size)]

    def _step_costs(self, costs: CostTable) -> CostTable:
        """The costs of :meth:`_step_choices`; kept, since a table keeps its plans."""
        if self._kept is None or self._kept[0] is not costs:
            steps = tuple(cost for cost in costs.costs if cost.choice.form == "steps")
            made = tuple(
                cost.model_copy(update={"choice": cost.choice.model_copy(update={"form": "steps"})})
                for cost in costs.costs
            )
            self._kept = costs, CostTable(costs=steps or made, padded=costs.padded)
        return self._kept[1]

    def _open(self, choice: Choice) -> Runner:
        with self._lock:
            if choice.alone not in self._runners:
                if self._closed:
                    raise BackendError("the generator was closed; load the bundle again")
                if self._opener is None or (self._costs is None and choice.alone not in self._unmeasured):
                    raise BackendError(f"it was opened as one call alone; it can't run {choice.label}")
                self._runners[choice.alone] = self._opened(choice.alone, self._opener)
            return self._runners[choice.alone]

    def _opened(self, choice: Choice, opener: Callable[[Choice], Runner]) -> Runner:
        try:
            return opener(choice)
        except (BackendError, BundleError) as failure:
            if self._forked and not isinstance(failure, UnavailableError):
                raise BackendError(
                    f"{choice.label} can't be opened again after this process was forked ({failure}); load the "
                    "bundle in the child"
                ) from None
            if isinstance(failure, BundleError) and self._runners:
                raise BackendError(
                    f"the bundle was changed since it was loaded ({failure}); load it again"
                ) from None
            raise

    def _drop(self, choice: Choice, reason: BackendError) -> None:
        """Leaves `choice` out from now on; raises `reason` where nothing else is left."""
        with self._lock:
            left = [other for other in self._choices() if other.alone != choice.alone]
            made = choice.form == "steps" and all(other.form != "steps" for other in self._choices())
            if self._costs is None or self._closed or made:
                raise reason
            if left:
                self._costs = self._costs.only(left)
            elif self._resort is not None and self._resort.backend != choice.backend:
                self._costs, self._unmeasured = None, (self._resort,)
            else:
                raise reason
            self.generation += 1
            self._fallbacks.append(f"{choice.label} failed: {reason}")


def _padded(found: Round, runner: Runner, most: int) -> Round:
    """The round in batches of a size that its backend meets again, where each new one costs much."""
    count = max(found.counts)
    padded = count if found.batch is not None else runner.padded_batch(count, most)
    return found if padded == count else replace(found, batch=padded)


Look = Callable[[], Runners | Literal["measuring"] | None]
"""Gives runners to go over to; None: there will be none."""
