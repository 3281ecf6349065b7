"""What is measured, how long a reading should be, and what costs come out of readings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from gensdk_runtime.plan.costs import Choice, Cost
from gensdk_runtime.spec.signature import Precision

MAX_REPEATS = 200


@dataclass
class Point:
    """A choice at a batch size. `unit` is the last known time of one of its `units` steps."""

    choice: Choice
    precision: Precision
    batch: int
    unit: float
    units: int
    readings: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The lower quartile."""
        return sorted(self.readings)[(len(self.readings) - 1) // 4]

    @property
    def samples(self) -> int:
        """What a full round makes."""
        return self.batch * self.choice.workers

    @property
    def noise(self) -> float:
        """The standard error of :attr:`seconds`, as a part of it, from how far the quartile is from the median."""
        return (median(self.readings) / self.seconds - 1.0) / math.sqrt(len(self.readings))


@dataclass(frozen=True)
class Effort:
    """How much measuring may cost: seconds of readings (`budget`), of preparing backends for batch sizes, of one
    reading, and of waiting for a backend to load; rounds of readings. `thorough` tries more thread counts and
    batch sizes."""

    budget: float
    preparing: float
    reading: float
    patience: float
    rounds: int
    thorough: bool

    def extent(self, point: Point) -> tuple[int | None, int]:
        """Steps of one run (None: all), and runs of one reading, so that it lasts about as long as it should."""
        if not point.unit:  # nothing is known yet
            return 2, 1
        wanted = self.reading / max(point.unit, 1e-6)
        if wanted >= point.units:
            return None, max(1, min(MAX_REPEATS, round(wanted / point.units)))
        return max(1 if point.unit > self.reading else 2, math.ceil(wanted)), 1

    def cost_of_reading(self, point: Point) -> float:
        """Seconds that the next reading of `point` will take."""
        units, repeats = self.extent(point)
        return point.unit * (units or point.units) * repeats


SHORT = Effort(budget=1.3, preparing=1.5, reading=0.006, patience=10.0, rounds=5, thorough=False)
"""The first ``auto`` load."""


def full(budget: float) -> Effort:
    """``gensdk tune`` with so many seconds."""
    return Effort(
        budget, preparing=2 * budget, reading=0.02, patience=max(60.0, 2 * budget), rounds=25, thorough=True
    )


def forecast(known: Sequence[Point], batch: int) -> Point | None:
    """A new point of the same choice, with what its steps will take at most; None where nothing is known."""
    if not known:
        return None
    units = [other.unit * max(1.0, batch / other.batch) for other in known]
    first = known[0]
    return Point(first.choice, first.precision, batch, unit=min(units), units=first.units)


def outside_in(sizes: Sequence[int]) -> list[int]:
    """The first, the last, then those that halve the gaps: so that a few tell the most."""
    if not sizes:
        return []
    order = [0, len(sizes) - 1]
    gaps = [(0, len(sizes) - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return [sizes[place] for place in dict.fromkeys(order)]


def rising_costs(points: Iterable[Point]) -> tuple[Cost, ...]:
    """The costs of points of one precision.

    Fewer samples never take longer than more of them: where readings say so they were disturbed, and the cost of
    the larger batch counts for the smaller one too.
    """
    found = list(points)
    return tuple(
        Cost(
            choice=point.choice,
            batch=point.batch,
            seconds=min(o.seconds for o in found if o.choice == point.choice and o.batch >= point.batch),
        )
        for point in found
    )
