"""The runners that a generator may use, opened when they are first needed, and how it splits its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

from gensdk_runtime.errors import BackendError
from gensdk_runtime.programs.base import Program
from gensdk_runtime.runner import Runner
from gensdk_runtime.tuning.costs import Choice, CostTable, Form, Round


class Lineup:
    """A runner for each :class:`Choice`, and the costs by which to choose among them.

    `opener` opens the runner of a choice; `costs` None: there is one choice, and nothing was measured. A choice
    that can't be opened any more (its package was removed, its driver is gone) is left out from then on, and
    the record of results says so.
    """

    def __init__(
        self,
        runners: Mapping[Choice, Runner],
        *,
        costs: CostTable | None = None,
        opener: Callable[[Choice], Runner] | None = None,
        fallbacks: Sequence[str] = (),
    ) -> None:
        self._runners = dict(runners)
        self._costs = costs
        self._opener = opener
        self._lock = Lock()
        self._closed = False
        self._fallbacks = list(fallbacks)
        self._kept: tuple[CostTable, CostTable] | None = None
        self.generation = 0
        """Counts up when a plan may no longer be what it was: a choice was left out, or all was closed."""
        if not self._runners:
            self.plan(1, None, 1)

    @property
    def first(self) -> Runner:
        """The runner that was opened first: for checks."""
        return next(iter(self._runners.values()))

    @property
    def steps(self) -> Runner:
        """A runner with all of the model's graphs: for what is run graph by graph."""
        choice = next((choice.alone for choice in self._runners if choice.form == "steps"), None)
        if choice is None:
            choice = next(iter(self._step_choices())).alone
            self._open(choice)
        return self._runners[choice]

    def every(self) -> tuple[Runner, ...]:
        """A runner for each choice that runs graph by graph, opened now; what can't be opened is left out."""
        self.open_all()
        steps = dict.fromkeys(choice.alone for choice in self._step_choices())
        return tuple(self._runners[choice] for choice in steps if choice in self._runners)

    def plan(
        self, n: int, batch: int | None, limit: int, *, accept: Callable[[Program[Any]], bool] | None = None
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
                return [(found, self._runners[found.choice.alone]) for found in rounds]

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
        return {
            "backend": "+".join(dict.fromkeys(runner.label for runner in runners)),
            "precision": "+".join(dict.fromkeys(runner.precision for runner in runners)),
            **({"fallback": "; ".join(self._fallbacks)} if self._fallbacks else {}),
        }

    def close(self) -> None:
        """Closes what is open. May be called twice."""
        with self._lock:
            self._closed = True
            self.generation += 1
            for runner in self._runners.values():
                runner.close()

    def _choices(self) -> tuple[Choice, ...]:
        return self._costs.choices if self._costs is not None else tuple(self._runners)

    def _step_choices(self) -> tuple[Choice, ...]:
        """The choices that run step by step; where there is none, those that there are, made to."""
        choices = self._choices()
        steps = tuple(choice for choice in choices if choice.form == "steps")
        return steps or tuple(dict.fromkeys(choice.model_copy(update={"form": "steps"}) for choice in choices))

    def _plan(self, n: int, batch: int | None, limit: int, form: Form) -> Sequence[Round]:
        if self._costs is not None:
            costs = self._costs if form == "one_call" else self._step_costs(self._costs)
            return costs.plan(n) if batch is None else costs.plan_batches(n, batch)
        only = next(iter(self._runners if form == "one_call" else self._step_choices()))
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
                if self._opener is None:
                    raise BackendError(f"it was opened as one call alone; it can't run {choice.label}")
                self._runners[choice.alone] = self._opener(choice.alone)
            return self._runners[choice.alone]

    def _drop(self, choice: Choice, reason: BackendError) -> None:
        """Leaves `choice` out from now on; raises `reason` where nothing else is left."""
        with self._lock:
            left = [other for other in self._choices() if other.alone != choice.alone]
            made = choice.form == "steps" and all(other.form != "steps" for other in self._choices())
            if self._costs is None or not left or self._closed or made:
                raise reason
            self._costs = self._costs.only(left)
            self.generation += 1
            self._fallbacks.append(f"{choice.label} failed: {reason}")
