"""The runners that a generator may use, opened when they are first needed, and how it splits its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

from gensdk_runtime.errors import BackendError
from gensdk_runtime.runner import Runner
from gensdk_runtime.tuning.costs import Choice, CostTable, Round


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
        if not self._runners:
            self.plan(1, None, 1)

    @property
    def first(self) -> Runner:
        """The runner that was opened first: for checks, and for what is run graph by graph."""
        return next(iter(self._runners.values()))

    def plan(self, n: int, batch: int | None, limit: int) -> list[tuple[Round, Runner]]:
        """Rounds for `n` samples, each with its open runner.

        In batches of `batch`, or None: as is cheapest, in batches of at most `limit`. Raises
        :class:`BackendError` where no choice can be opened.
        """
        while True:
            rounds = self._plan(n, batch, limit)
            for each in dict.fromkeys(found.choice for found in rounds):
                try:
                    self._open(each)
                except BackendError as failure:
                    self._drop(each, failure)
                    break
            else:
                return [(found, self._runners[found.choice.alone]) for found in rounds]

    def open_all(self) -> None:
        """Opens every choice now, for a bundle that will be closed."""
        for choice in self._choices():
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
            for runner in self._runners.values():
                runner.close()

    def _choices(self) -> tuple[Choice, ...]:
        return self._costs.choices if self._costs is not None else tuple(self._runners)

    def _plan(self, n: int, batch: int | None, limit: int) -> Sequence[Round]:
        if self._costs is not None:
            return self._costs.plan(n) if batch is None else self._costs.plan_batches(n, batch)
        only, size = next(iter(self._runners)), batch or limit
        return [Round(only, (min(size, n - first),)) for first in range(0, n, size)]

    def _open(self, choice: Choice) -> None:
        with self._lock:
            if choice.alone in self._runners:
                return
            if self._closed or self._opener is None:
                raise BackendError("the generator was closed; load the bundle again")
            self._runners[choice.alone] = self._opener(choice.alone)

    def _drop(self, choice: Choice, reason: BackendError) -> None:
        """Leaves `choice` out from now on; raises `reason` where nothing else is left."""
        with self._lock:
            left = [other for other in self._choices() if other.alone != choice.alone]
            if self._costs is None or not left or self._closed:
                raise reason
            self._costs = self._costs.only(left)
            self._fallbacks.append(f"{choice.label} failed: {reason}")
