"""What sampling costs on this machine in each way that was measured, and the cheapest split of `n` samples.

A *round* is what one :class:`Choice` does at once: `workers` batches side by side, each of `batch` samples. A
plan is a list of rounds (:mod:`gensdk_runtime.plan.planner`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Literal

from pydantic import Field

from gensdk_runtime.plan.planner import Planner
from gensdk_runtime.spec.strict import StrictModel

Form = Literal["steps", "one_call"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=65536)]


class Choice(StrictModel):
    """One way to run a model.

    `backend` as in :meth:`Generator.load`; `threads` inside one graph (None: the backend's own number);
    `spinning`: its threads wait busily between runs; `workers`: batches that run side by side, each in a thread
    of its own; `form`: a call for each step, or the whole sampler as one graph.
    """

    backend: Annotated[str, Field(max_length=100)] = "onnxruntime"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    spinning: bool = False
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    form: Form = "steps"

    @property
    def alone(self) -> Choice:
        """The same with one worker: what is opened, since workers share the graphs."""
        return self if self.workers == 1 else _alone(self)

    @property
    def label(self) -> str:
        """In a few words, as in ``onnxruntime, 1 thread x 2 workers``."""
        parts = [self.backend]
        if self.threads is not None:
            parts.append(f"{self.threads} thread" + ("" if self.threads == 1 else "s"))
        if self.workers > 1:
            parts[-1] += f" x {self.workers} workers"
        parts += ["spinning"] if self.spinning else []
        parts += ["one call"] if self.form == "one_call" else []
        return ", ".join(parts)


@lru_cache(maxsize=256)
def _alone(choice: Choice) -> Choice:
    """Kept, since it is asked for in each call of ``sample``."""
    return choice.model_copy(update={"workers": 1})


class Cost(StrictModel):
    """`seconds` that one round of `choice` takes for `workers` batches of `batch` samples, at the defaults."""

    choice: Choice
    batch: Count
    seconds: Positive

    @property
    def samples(self) -> int:
        """What a full round makes."""
        return self.batch * self.choice.workers


@dataclass(frozen=True)
class Round:
    """One round: for each batch that runs side by side how many samples it makes, each run as `batch` samples."""

    choice: Choice
    counts: tuple[int, ...]
    batch: int | None = None
    """The size that batches are padded to; None: each has its own size."""

    @property
    def samples(self) -> int:
        """What the round makes."""
        return sum(self.counts)


class CostTable(StrictModel):
    """All that was measured for one bundle and one precision on one machine.

    `padded`: backends that take only the batch sizes they were measured at without preparing anew (static
    shapes); a smaller batch is padded for them.
    """

    costs: Annotated[tuple[Cost, ...], Field(min_length=1, max_length=4096)]
    padded: Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(max_length=64)] = ()

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """All choices, in the order they were measured."""
        return tuple(dict.fromkeys(cost.choice for cost in self.costs))

    def only(self, choices: Iterable[Choice]) -> CostTable:
        """This table with these choices alone."""
        kept = set(choices)
        return CostTable(costs=tuple(c for c in self.costs if c.choice in kept), padded=self.padded)

    def seconds(self, choice: Choice, n: int) -> float:
        """What `n` samples cost as one round of `choice`; infinite where they don't fit into one."""
        return self._planner.seconds(self._number[choice], n)

    def cost(self, n: int) -> float:
        """Seconds for `n` samples as :meth:`plan` makes them."""
        return self._planner.cost(n)

    def plan(self, n: int) -> tuple[Round, ...]:
        """The cheapest rounds for `n` samples; large rounds come first."""
        return tuple(self._round(number, samples) for number, samples in self._planner.plan(n))

    def plan_batches(self, n: int, batch: int) -> tuple[Round, ...]:
        """Rounds of batches of just `batch` samples (the last may be smaller), by the choice best for it."""
        best = min(self.choices, key=lambda choice: self._batches_cost(choice, n, batch))
        size = batch if best.backend in self.padded else None
        counts = [min(batch, n - first) for first in range(0, n, batch)]
        return tuple(
            Round(best, tuple(counts[i : i + best.workers]), size) for i in range(0, len(counts), best.workers)
        )

    def _batches_cost(self, choice: Choice, n: int, batch: int) -> float:
        """Seconds for `n` samples in batches of `batch`; beyond what was measured, at the rate of the largest."""
        rounds = -(-n // (batch * choice.workers))
        samples, largest = batch * choice.workers, self._planner.largest(self._number[choice])
        return rounds * self.seconds(choice, min(samples, largest)) * max(1.0, samples / largest)

    def _round(self, number: int, samples: int) -> Round:
        """`samples` dealt out to the workers of a choice as evenly as can be."""
        found = self._made.get((number, samples))
        if found is None:
            choice = self.choices[number]
            workers = min(choice.workers, samples)
            share, more = divmod(samples, workers)
            counts = tuple(share + (i < more) for i in range(workers))
            found = self._made[number, samples] = Round(choice, counts, self._padded_to(choice, counts[0]))
        return found

    def _padded_to(self, choice: Choice, count: int) -> int | None:
        """The cheapest batch size that was measured and takes `count` samples, for a backend bound to those."""
        if choice.backend not in self.padded:
            return None
        fitting = [cost for cost in self.costs if cost.choice == choice and cost.batch >= count]
        return min(fitting, key=lambda cost: (cost.seconds, cost.batch)).batch

    @cached_property
    def _number(self) -> dict[Choice, int]:
        return {choice: number for number, choice in enumerate(self.choices)}

    @cached_property
    def _planner(self) -> Planner:
        curves = [
            {cost.samples: cost.seconds for cost in self.costs if cost.choice == choice} for choice in self.choices
        ]
        return Planner(curves, [choice.backend in self.padded for choice in self.choices])

    @cached_property
    def _made(self) -> dict[tuple[int, int], Round]:
        return {}
