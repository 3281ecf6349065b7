"""The latency regression gate: limits such as ``p95:+5%``, and a verdict with an interval for each.

The verdict follows the interval of new / old, not the estimate, so that noise alone rarely fails a release:

- ``slower``: the whole interval lies beyond the limit.
- ``same``: the whole interval lies within the limit, in both directions.
- ``faster``: the whole interval lies on the fast side of 1.
- ``can't tell``: anything else, or too few calls for the metric. Measure longer.

A gate fails on ``slower``, and on a ``can't tell`` whose estimate is beyond the limit or that has none: see
:func:`failed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gensdk_runtime.bench.bootstrap import RatioInterval, Statistic, ratio_intervals
from gensdk_runtime.bench.latency_report import (
    MAX_CALLS_PER_RUN,
    BenchSettings,
    Case,
    Comparison,
    Report,
    Run,
    Verdict,
)
from gensdk_runtime.errors import InputError

DEFAULT_LIMIT = "p50:+5%"
"""The median: of all latency statistics the one that a busy machine disturbs least."""

MIN_RUNS = 3
MIN_CALLS_PER_RUN = 4
MIN_TAIL_CALLS = 5
"""Calls that must lie beyond a percentile before it is estimated at all."""

_LIMIT = re.compile(
    r"(mean|throughput|p(?P<percentile>\d{1,2}(\.\d{1,3})?)):(?P<sign>[+-])(?P<percent>\d{1,3}(\.\d{1,3})?)%"
)


@dataclass(frozen=True)
class Limit:
    """How far `metric` may get worse: `allowed` 0.05 lets a latency grow, or throughput fall, by 5 %."""

    text: str
    metric: str
    statistic: Statistic
    allowed: float

    @property
    def is_throughput(self) -> bool:
        """True if more is better."""
        return self.metric == "throughput"

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Reads ``p95:+5%``, ``mean:+3%`` or ``throughput:-5%``; :class:`InputError` for anything else."""
        found = _LIMIT.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"expected a limit such as p95:+5%, mean:+3% or throughput:-5%, got {text[:60]!r} "
                "(min and max have no honest interval; gate on a percentile)"
            )
        metric, allowed = found[1], float(found["percent"]) / 100
        worse = "-" if metric == "throughput" else "+"
        if found["sign"] != worse:
            raise InputError(f"{metric} gets worse by {worse}; write {metric}:{worse}{found['percent']}%")
        if metric == "throughput" and allowed >= 1:
            raise InputError(f"throughput can't fall by {found['percent']}%; write less than 100%")
        percentile = found["percentile"]
        if percentile is not None and float(percentile) == 0:
            raise InputError("p0 has no honest interval; gate on p50 or higher")
        statistic = Statistic(None if percentile is None else float(percentile))
        return cls(text=text.strip(), metric=metric, statistic=statistic, allowed=allowed)

    def breaks(self, ratio: float) -> bool:
        """True if new / old as reports show it (of throughputs, where that is the metric) is beyond the limit."""
        return ratio < 1 - self.allowed if self.is_throughput else ratio > 1 + self.allowed

    def verdict(self, interval: RatioInterval) -> Verdict:
        """The verdict on an interval of the *time* ratio, new / old."""
        slowest = 1 / (1 - self.allowed) if self.is_throughput else 1 + self.allowed
        if interval.low > slowest:
            return "slower"
        if interval.low >= 1 / slowest and interval.high <= slowest:
            return "same"
        return "faster" if interval.high < 1 else "can't tell"


def failed(report: Report) -> tuple[Comparison, ...]:
    """The comparisons that fail a gate: slower for sure, not measured at all, or undecided with an estimate beyond
    the limit.

    An undecided comparison does not pass as checked.
    """
    return tuple(
        each
        for each in report.comparisons
        if each.verdict == "slower"
        or (each.verdict == "can't tell" and (each.ratio is None or Limit.parse(each.limit).breaks(each.ratio)))
    )


def enough_calls(settings: BenchSettings) -> BenchSettings:
    """`settings` with so many calls that each run has MIN_CALLS_PER_RUN, however long a call takes."""
    needed = min(MIN_CALLS_PER_RUN * settings.runs, MAX_CALLS_PER_RUN)
    return settings.model_copy(update={"iterations": max(settings.iterations, needed)})


def compare_paired(
    new: Case, old: Case, limits: Sequence[Limit], *, confidence: float = 0.95
) -> tuple[Comparison, ...]:
    """Compares two cases that were measured in turn (see :func:`gensdk_runtime.bench.measure.measure`)."""
    return _compare(new, old, limits, paired=True, confidence=confidence, against=old.subject.bundle)


def compare_with_baseline(
    new: Case, baseline: Report, limits: Sequence[Limit], *, confidence: float = 0.95
) -> tuple[Comparison, ...]:
    """Compares a case with the same case of an earlier report.

    The machine may have been faster or slower in that hour. The probes stored with the runs tell by how much;
    the interval is widened to cover both no correction and full correction by them. Raises
    :class:`InputError` where the baseline has no such case; the nearest case's differing key is named.
    """
    old = matching_case(new, baseline)
    against = f"baseline of {baseline.created}"
    return _compare(new, old, limits, paired=False, confidence=confidence, against=against)


def matching_case(new: Case, baseline: Report) -> Case:
    """The case of `baseline` that measured the same thing as `new`."""
    differences = [new.subject.differences(case.subject) for case in baseline.cases]
    for case, difference in zip(baseline.cases, differences, strict=True):
        if not difference:
            if not case.runs:
                raise InputError("the baseline has no raw latencies; write it with --save, not from --json")
            return case
    nearest = min(differences, key=len, default=("it has no case at all",))
    raise InputError(
        f"the baseline has no case for {new.subject} ({', '.join(nearest)}); measure a new one with --save"
    )


def machine_warnings(new: Report, baseline: Report, *, allow_other_machine: bool) -> tuple[str, ...]:
    """Warnings for the reader about differences between machines. Raises :class:`InputError` for another machine,
    unless that is allowed."""
    hardware = new.machine.hardware_differences(baseline.machine)
    if hardware and not allow_other_machine:
        raise InputError(
            f"the baseline was measured on another machine ({hardware[0]}); measure a new one with --save, "
            "compare with --against, or pass --allow-other-machine"
        )
    warnings = [f"other machine: {difference}" for difference in hardware]
    warnings += [f"other version: {d}" for d in new.machine.software_differences(baseline.machine)]
    for key in ("warmup_ms", "duration_s", "iterations", "runs"):
        mine, theirs = getattr(new.settings, key), getattr(baseline.settings, key)
        if mine != theirs:
            warnings.append(f"other setting: {key}: {mine} here, {theirs} there")
    return tuple(warnings)


def _compare(
    new: Case, old: Case, limits: Sequence[Limit], *, paired: bool, confidence: float, against: str
) -> tuple[Comparison, ...]:
    reasons = [_too_few(limit, new.runs, old.runs) for limit in limits]
    told = [limit for limit, reason in zip(limits, reasons, strict=True) if not reason]
    intervals: Iterator[RatioInterval] = iter(())
    if told:
        mine, theirs = ([run.latencies() for run in case.runs] for case in (new, old))
        statistics = [limit.statistic for limit in told]
        intervals = iter(ratio_intervals(mine, theirs, statistics, paired=paired, confidence=confidence))
    drift = 1.0 if paired else _probe_ratio(new.runs, old.runs)
    comparisons = []
    for limit, reason in zip(limits, reasons, strict=True):
        comparison = Comparison(
            subject=new.subject, against=against, limit=limit.text, ratio=None, low=None, high=None,
            confidence=confidence, verdict="can't tell", reason=reason,
        )  # fmt: skip
        comparisons.append(comparison if reason else _told(comparison, limit, next(intervals), drift))
    return tuple(comparisons)


def _told(comparison: Comparison, limit: Limit, interval: RatioInterval, drift: float) -> Comparison:
    """The comparison with its interval, widened by the machine's drift, and the verdict on it."""
    low, high = min(interval.low, interval.low / drift), max(interval.high, interval.high / drift)
    ratio = interval.ratio
    verdict = limit.verdict(RatioInterval(ratio, low, high))
    reasons = []
    if verdict == "can't tell":
        reasons.append("the interval spans the limit; measure longer (--duration) or on a quieter machine")
    if abs(math.log(drift)) > 0.05:
        reasons.append(f"the machine itself ran at {1 / drift:.2f} of the baseline's speed")
    if limit.is_throughput:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    update = {"ratio": ratio, "low": low, "high": high, "verdict": verdict, "reason": "; ".join(reasons)}
    return comparison.model_copy(update=update)


def _too_few(limit: Limit, new: Sequence[Run], old: Sequence[Run]) -> str:
    """Why there is too little data for an honest interval; empty where there is enough."""
    for runs in (new, old):
        if len(runs) < MIN_RUNS:
            return f"{len(runs)} runs, at least {MIN_RUNS} are needed; raise --runs"
        calls = [len(run.latencies_ns) for run in runs]
        if min(calls) < MIN_CALLS_PER_RUN:
            needed = MIN_CALLS_PER_RUN * len(runs)
            return f"a run has {min(calls)} calls, {MIN_CALLS_PER_RUN} are needed; raise --iterations to {needed}"
        percentile = limit.statistic.percentile
        tail = MIN_TAIL_CALLS if percentile is None else sum(calls) * min(percentile, 100 - percentile) / 100
        if tail < MIN_TAIL_CALLS:
            return f"{sum(calls)} calls are too few for {limit.metric}; raise --duration"
    return ""


def _probe_ratio(new: Sequence[Run], old: Sequence[Run]) -> float:
    """How much longer the fixed piece of work took now than then."""
    return float(np.median([run.probe_ns for run in new]) / np.median([run.probe_ns for run in old]))
