"""What sampling costs on this machine in each way that was measured, and the cheapest split of `n` samples.

A *round* is what one :class:`Choice` does at once: `workers` batches side by side, each of `batch` samples. A
plan is a list of rounds. Padding a batch to a larger one is part of the same arithmetic, so it is chosen only
where it is cheaper than splitting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from gensdk_runtime.strict import StrictModel

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
        return self.model_copy(update={"workers": 1})

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
    padded: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All choices, in the order they were measured."""
        return tuple(dict.fromkeys(cost.choice for cost in self.costs))

    def only(self, choices: Iterable[Choice]) -> CostTable:
        """This table with these choices alone."""
        kept = set(choices)
        return CostTable(costs=tuple(c for c in self.costs if c.choice in kept), padded=self.padded)

    def seconds(self, choice: Choice, n: int) -> float:
        """What `n` samples cost as one round of `choice`; infinite where they don't fit into one."""
        sizes, seconds = self._curves[choice]
        above = bisect_left(sizes, n)
        if above == len(sizes):
            return float("inf")
        if above == 0 or sizes[above] == n or choice.backend in self.padded:
            return seconds[above]
        share = (n - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
        return seconds[above - 1] + share * (seconds[above] - seconds[above - 1])

    def plan(self, n: int) -> tuple[Round, ...]:
        """The cheapest rounds for `n` samples; large rounds come first."""
        block = max(sizes[-1] for sizes, _ in self._curves.values())
        full, rest = divmod(n, block)
        rounds = self._plan_block(block) * full + self._plan_block(rest)
        return tuple(sorted(rounds, key=lambda found: (-found.samples, found.choice.label)))

    def plan_batches(self, n: int, batch: int) -> tuple[Round, ...]:
        """Rounds of batches of just `batch` samples (the last may be smaller), by the choice best for it."""
        best = min(self.choices, key=lambda choice: self._rate(choice, batch))
        counts = [min(batch, n - first) for first in range(0, n, batch)]
        return tuple(Round(best, tuple(counts[i : i + best.workers])) for i in range(0, len(counts), best.workers))

    def _rate(self, choice: Choice, batch: int) -> float:
        """Seconds for each sample in batches of `batch`; beyond what was measured, as at the largest."""
        samples = min(batch * choice.workers, self._curves[choice][0][-1])
        return self.seconds(choice, samples) / samples

    def _plan_block(self, n: int) -> tuple[Round, ...]:
        """Dynamic programming over the samples that are left; kept, since applications ask for the same `n`."""
        if n not in self._plans:
            best: list[tuple[float, Round | None]] = [(0.0, None)]
            for left in range(1, n + 1):
                best.append(min(self._rounds(left, best), key=lambda found: found[0]))
            rounds: list[Round] = []
            while sum(found.samples for found in rounds) < n:
                found = best[n - sum(found.samples for found in rounds)][1]
                assert found is not None  # noqa: S101 - every choice can run one sample
                rounds.append(found)
            self._plans[n] = tuple(rounds)
        return self._plans[n]

    def _rounds(self, left: int, best: list[tuple[float, Round | None]]) -> Iterator[tuple[float, Round]]:
        """Each round that could come next, any measured one or all that is left, and what the whole then costs."""
        for choice in self.choices:
            sizes, _ = self._curves[choice]
            for size in {size for size in sizes if size <= left} | {min(left, sizes[-1])}:
                yield best[left - size][0] + self.seconds(choice, size), self._round(choice, size)

    def _round(self, choice: Choice, samples: int) -> Round:
        """`samples` dealt out to the workers as evenly as can be."""
        workers = min(choice.workers, samples)
        share, more = divmod(samples, workers)
        counts = tuple(share + (i < more) for i in range(workers))
        if choice.backend not in self.padded:
            return Round(choice, counts)
        batches = sorted({cost.batch for cost in self.costs if cost.choice == choice and cost.batch >= counts[0]})
        return Round(choice, counts, batches[0])

    @cached_property
    def _curves(self) -> dict[Choice, tuple[list[int], list[float]]]:
        """For each choice the samples of a round, rising, and their seconds."""
        curves = {}
        for choice in self.choices:
            points = dict(sorted((cost.samples, cost.seconds) for cost in self.costs if cost.choice == choice))
            curves[choice] = ([*points], [*points.values()])
        return curves

    @cached_property
    def _plans(self) -> dict[int, tuple[Round, ...]]:
        return {}
