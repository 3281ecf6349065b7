"""The cheapest way to make `n` samples from rounds whose costs were measured: an unbounded knapsack.

Each choice is a curve from the samples of a round to its seconds. Between measured sizes a round costs what lies
on the line between them; where a choice is bound to the measured sizes (static shapes), it costs as much as the
cheapest that is as large, to which it is padded. So padding is chosen only where it is cheaper than splitting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate

from gensdk_runtime.host.forking import new_lock

Step = tuple[int, int]
"""The number of a choice, and the samples that one round of it makes."""

MAX_KEPT_PLANS = 64
EXACT = 64
"""Up to so many samples, or the largest round, all ways to split are weighed."""


class Planner:
    """Plans over `curves`: for each choice seconds by samples; `padded`: whether it is bound to these sizes.

    Threads may share it. A plan is the same whenever it is asked for.
    """

    def __init__(self, curves: Sequence[Mapping[int, float]], padded: Sequence[bool]) -> None:
        self._sizes = [sorted(curve) for curve in curves]
        self._seconds = [[curve[size] for size in sizes] for curve, sizes in zip(curves, self._sizes, strict=True)]
        self._padded = list(padded)
        for seconds in (seconds for seconds, bound in zip(self._seconds, padded, strict=True) if bound):
            seconds[:] = [*accumulate(reversed(seconds), min)][::-1]
        self._block = max(EXACT, *(sizes[-1] for sizes in self._sizes))
        self._measured = self._cheapest_of_each_size()
        self._best: list[tuple[float, Step]] = [(0.0, (0, 0))]
        self._plans: OrderedDict[int, tuple[float, tuple[Step, ...]]] = OrderedDict()
        self._lock = new_lock()

    def largest(self, choice: int) -> int:
        """The samples of the largest round of a choice."""
        return self._sizes[choice][-1]

    def seconds(self, choice: int, n: int) -> float:
        """What `n` samples cost as one round of a choice; infinite where they don't fit into one."""
        sizes, seconds = self._sizes[choice], self._seconds[choice]
        above = bisect_left(sizes, n)
        if above == len(sizes):
            return float("inf")
        if above == 0 or sizes[above] == n or self._padded[choice]:
            return seconds[above]
        share = (n - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
        return seconds[above - 1] + share * (seconds[above] - seconds[above - 1])

    def cost(self, n: int) -> float:
        """Seconds for `n` samples as :meth:`plan` makes them."""
        return self._planned(n)[0]

    def plan(self, n: int) -> tuple[Step, ...]:
        """The cheapest rounds for `n` samples; large rounds come first."""
        return self._planned(n)[1]

    def _planned(self, n: int) -> tuple[float, tuple[Step, ...]]:
        """Kept for the sizes that were asked for last, since applications ask for the same `n` again."""
        with self._lock:
            found = self._plans.get(n)
            if found is None:
                found = self._plans[n] = self._make(n)
                if len(self._plans) > MAX_KEPT_PLANS:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(n)
            return found

    def _make(self, n: int) -> tuple[float, tuple[Step, ...]]:
        """Up to a block the table of best plans; beyond, one kind of round repeated comes before it."""
        self._extend(min(n, self._block))
        if n <= self._block:
            return self._best[n][0], self._trace(n)
        plans = []
        for size, seconds, choice in self._measured:
            times = -(-(n - self._block) // size)
            plans.append((times * seconds + self._best[n - times * size][0], -size, times, choice))
        cost, size, times, choice = min(plans)
        steps = ((choice, -size),) * times + self._trace(n + times * size)
        return cost, _large_first(steps)

    def _extend(self, n: int) -> None:
        """Fills the table: for each count the cost of the best plan, and its first round.

        Ties go to fewer and larger rounds.
        """
        best = self._best
        for left in range(len(best), n + 1):
            lowest, first = min((self.seconds(choice, left), choice) for choice in range(len(self._sizes)))
            step = (first, left)
            for size, seconds, choice in self._measured:
                if size < left:
                    cost = seconds + best[left - size][0]
                    if cost < lowest:
                        lowest, step = cost, (choice, size)
            best.append((lowest, step))

    def _trace(self, n: int) -> tuple[Step, ...]:
        steps = []
        while n:
            step = self._best[n][1]
            steps.append(step)
            n -= step[1]
        return _large_first(tuple(steps))

    def _cheapest_of_each_size(self) -> list[tuple[int, float, int]]:
        """(samples, seconds, choice) of the cheapest choice at each size that any was measured at, large ones
        first."""
        measured = {size for sizes in self._sizes for size in sizes}
        choices = range(len(self._sizes))
        return [
            (size, *min((self.seconds(choice, size), choice) for choice in choices))
            for size in sorted(measured, reverse=True)
        ]


def _large_first(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(sorted(steps, key=lambda step: (-step[1], step[0])))
