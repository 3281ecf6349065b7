"""Intervals for the ratio of a latency statistic, by a hierarchical block bootstrap.

Latencies of consecutive calls depend on each other (clock speed, caches, neighbours on the machine), and so
do all calls of one run. Both levels are resampled: runs with replacement, and inside a run blocks of
consecutive calls (Künsch 1989; Kalibera & Jones 2013, "Rigorous benchmarking in reasonable time"). In a paired
measurement both sides were called in turn, so that one resampling of pairs serves both, and the machine's
drift cancels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]
Runs = Sequence[Float64]

_CHUNK = 1_000_000
"""Values gathered at once; bounds the memory of a bootstrap to a few dozen MB."""
_DRIFT_PAIRS = 8
"""Consecutive pairs whose medians stand for the machine's speed at that moment."""


@dataclass(frozen=True)
class Statistic:
    """A statistic of latencies: the mean where `percentile` is none, otherwise that percentile (0 to 100)."""

    percentile: float | None = None

    def of(self, values: Float64) -> Float64:
        """The statistic along the last axis: [..., n] to [...]."""
        if self.percentile is None:
            return np.asarray(values.mean(axis=-1))
        return np.asarray(np.percentile(values, self.percentile, axis=-1))


@dataclass(frozen=True)
class RatioInterval:
    """Estimate and two-sided confidence interval of new / old."""

    ratio: float
    low: float
    high: float


def ratio_intervals(
    new: Runs,
    old: Runs,
    statistics: Sequence[Statistic],
    *,
    paired: bool,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[RatioInterval]:
    """Estimates statistic(new) / statistic(old) for each of `statistics`.

    `new` and `old` hold positive latencies in call order, one float64 [n_r] for each run. With `paired`,
    ``new[r][i]`` and ``old[r][i]`` were measured one right after the other. The answer depends on the data
    and `seed` alone.
    """
    if paired:
        new, old = _without_drift(new, old)
    estimates = [math.log(_ratio(s, np.concatenate(new), np.concatenate(old))) for s in statistics]
    draws = np.concatenate(
        list(_draws(new, old, statistics, paired=paired, resamples=resamples, seed=seed)), axis=1
    )
    tail = (1.0 - confidence) / 2
    widening = _few_runs_factor(min(len(new), len(old)), confidence)
    intervals = []
    for estimate, draw in zip(estimates, draws, strict=True):
        low, high = np.quantile(draw, [tail, 1.0 - tail])
        intervals.append(
            RatioInterval(
                ratio=math.exp(estimate),
                low=math.exp(estimate - widening * max(estimate - float(low), 0.0)),
                high=math.exp(estimate + widening * max(float(high) - estimate, 0.0)),
            )
        )
    return intervals


def _ratio(statistic: Statistic, new: Float64, old: Float64) -> float:
    return float(statistic.of(new) / statistic.of(old))


def _draws(
    new: Runs, old: Runs, statistics: Sequence[Statistic], *, paired: bool, resamples: int, seed: int
) -> Iterator[Float64]:
    """Log ratios of resampled data, float64 [len(statistics), rows] a chunk."""
    rng = np.random.default_rng(seed)
    new_flat, old_flat = np.concatenate(new), np.concatenate(old)
    new_lengths, old_lengths = _lengths(new), _lengths(old)
    if paired:
        blocks = block_length([np.log(n / o) for n, o in zip(new, old, strict=True)])
        new_block = old_block = max(blocks, min(_DRIFT_PAIRS, int(new_lengths.min())))
    else:
        new_block, old_block = (block_length([np.log(run) for run in runs]) for runs in (new, old))
    rows = max(1, _CHUNK // max(len(new_flat), len(old_flat)))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        new_index = _resample(new_lengths, new_block, count, rng)
        old_index = new_index if paired else _resample(old_lengths, old_block, count, rng)
        new_rows, old_rows = new_flat[new_index], old_flat[old_index]
        yield np.stack([np.log(s.of(new_rows) / s.of(old_rows)) for s in statistics])


def _lengths(runs: Runs) -> Indices:
    return np.array([len(run) for run in runs], dtype=np.intp)


def _resample(lengths: Indices, block: int, rows: int, rng: np.random.Generator) -> Indices:
    """Indices into the concatenated runs, [rows, R * m], m the median length of a run.

    Each row takes R runs with replacement, and from each of them circular blocks that start anywhere.
    """
    offsets = np.cumsum(lengths) - lengths
    size = int(np.median(lengths))
    run = rng.integers(len(lengths), size=(rows, len(lengths)))
    blocks = -(-size // block)
    starts = rng.random((rows, len(lengths), blocks)) * lengths[run][..., None]
    inside = (starts.astype(np.intp)[..., None] + np.arange(block)) % lengths[run][..., None, None]
    index = offsets[run][..., None] + inside.reshape(rows, len(lengths), -1)[..., :size]
    return np.asarray(index.reshape(rows, -1), dtype=np.intp)


def _without_drift(new: Runs, old: Runs) -> tuple[list[Float64], list[Float64]]:
    """Divides each group of consecutive pairs by the geometric mean of the two sides' medians.

    What the machine does to both sides in that moment goes, the ratio of the sides stays: a factor on one side
    scales the ratio by just that factor.
    """
    scaled: tuple[list[Float64], list[Float64]] = ([], [])
    for new_run, old_run in zip(new, old, strict=True):
        groups = max(1, len(new_run) // _DRIFT_PAIRS)
        scale = np.concatenate(
            [
                np.full(part.shape[1], np.sqrt(np.prod(np.median(part, axis=1))))
                for part in np.array_split(np.stack([new_run, old_run]), groups, axis=1)
            ]
        )
        scaled[0].append(new_run / scale)
        scaled[1].append(old_run / scale)
    return scaled


def block_length(runs: Runs) -> int:
    """Calls in a block: twice the time over which ranks stay correlated, at least n^(1/3), at most n / 4.

    Ranks, because a single spike would hide the correlation of all the others.
    """
    shortest = int(_lengths(runs).min())
    times = [_correlation_time(np.argsort(np.argsort(run)).astype(np.float64)) for run in runs]
    wanted = max(2.0 * float(np.median(times)), math.cbrt(shortest))
    return max(1, min(math.ceil(wanted), shortest // 4))


def _correlation_time(values: Float64) -> float:
    """1 + 2 * sum of autocorrelations, up to the first that is lost in noise (Sokal's initial sequence)."""
    centred = values - values.mean()
    power = float(centred @ centred)
    if power == 0.0:
        return 1.0
    noise = 2.0 / math.sqrt(len(values))
    time = 1.0
    for lag in range(1, len(values) // 4):
        correlation = float(centred[lag:] @ centred[:-lag]) / power
        if correlation < noise:
            break
        time += 2.0 * correlation
    return time


def _few_runs_factor(runs: int, confidence: float) -> float:
    """Widens the interval for few runs: Student's t against the normal, and the bootstrap's (R - 1) / R."""
    z = NormalDist().inv_cdf((1.0 + confidence) / 2)
    v = max(runs - 1, 1)
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)  # Abramowitz & Stegun 26.7.5
    return t / z * math.sqrt((v + 1) / v)
