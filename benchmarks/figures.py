"""What a comparison says: figures with their intervals, the bounds they are held to, and the verdicts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bench.bootstrap import RatioInterval, Statistic, ratio_intervals

Verdict = Literal["holds", "MISSES", "can't tell", "not measured", ""]
Rounds = Sequence[NDArray[np.float64]]
"""Times of one peer: for each round those of its calls, float64 [calls]."""


@dataclass(frozen=True)
class Bound:
    """What a figure has to keep: at most, or at least, `limit`."""

    kind: Literal["<=", ">="]
    limit: float

    def verdict(self, low: float, high: float) -> Verdict:
        """By the whole interval: noise alone neither passes nor fails a figure."""
        if self.kind == ">=":
            return "holds" if low >= self.limit else "MISSES" if high < self.limit else "can't tell"
        return "holds" if high <= self.limit else "MISSES" if low > self.limit else "can't tell"

    def __str__(self) -> str:
        return f"{self.kind} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One line of the result. `value` None: it could not be measured, and `detail` says why."""

    group: str
    what: str
    value: float | None
    low: float | None = None
    high: float | None = None
    bound: Bound | None = None
    detail: str = ""

    @property
    def verdict(self) -> Verdict:
        """Empty for a figure that is only reported."""
        if self.bound is None:
            return ""
        if self.value is None:
            return "not measured"
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return self.bound.verdict(low, high)

    @property
    def interval(self) -> str:
        """Empty for a figure that needs none."""
        return "" if self.low is None or self.high is None else f"{self.low:.4g} .. {self.high:.4g}"

    def line(self) -> str:
        """The figure in one line."""
        value = "-" if self.value is None else f"{self.value:.4g}"
        parts = [f"{self.what}: {value}", f"({self.interval})" if self.interval else ""]
        parts += [f"{self.bound}: {self.verdict}" if self.bound else "", f"[{self.detail}]" if self.detail else ""]
        return " ".join(filter(None, parts))


def ratio(new: Rounds, old: Rounds, *, scale: float = 1.0) -> RatioInterval:
    """Median of `new` over median of `old`, times `scale`, with its 95 % interval.

    Only rounds in which both were called count; the machine's drift cancels within a round.
    """
    pairs = [(a, b) for a, b in zip(new, old, strict=False) if len(a) and len(b)]
    calls = [min(len(a), len(b)) for a, b in pairs]
    (interval,) = ratio_intervals(
        [a[:count] for (a, _), count in zip(pairs, calls, strict=True)],
        [b[:count] for (_, b), count in zip(pairs, calls, strict=True)],
        [Statistic(50.0)],
        paired=True,
    )
    return RatioInterval(interval.ratio * scale, interval.low * scale, interval.high * scale)


def ratio_figure(
    group: str,
    what: str,
    new: Rounds,
    old: Rounds,
    bound: Bound | None,
    *,
    scale: float = 1.0,
    detail: str = "",
) -> Figure:
    """The figure of :func:`ratio`."""
    found = ratio(new, old, scale=scale)
    return Figure(group, what, found.ratio, found.low, found.high, bound, detail)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the median of what `values` are drawn from, by their order alone (the sign test's): the
    narrowest that holds it with `confidence`, or from the least to the largest where they are too few for that."""
    ordered, n = sorted(values), len(values)
    tails = itertools.accumulate(math.comb(n, left_out) / 2**n for left_out in range((n + 1) // 2))
    depth = max(0, sum(2 * tail <= 1 - confidence for tail in tails) - 1)
    return ordered[depth], ordered[n - 1 - depth]


def at_most(limit: float) -> Bound:
    """Holds where the figure is `limit` or less."""
    return Bound("<=", limit)


def at_least(limit: float) -> Bound:
    """Holds where the figure is `limit` or more."""
    return Bound(">=", limit)
