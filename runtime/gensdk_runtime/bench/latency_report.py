"""The result of a measurement: typed, versioned, JSON in and out. A report with raw latencies is a baseline."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gensdk_runtime.bench.machine import Machine, Text
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.images import write_atomically
from gensdk_runtime.spec.options import OptionValues, all_options
from gensdk_runtime.spec.strict import StrictModel

REPORT_VERSION = 1
"""Raised when a reader of the older report could misread the newer one."""

MAX_REPORT_BYTES = 32 * 2**20
MAX_RUNS = 200
MAX_CALLS_PER_RUN = 10_000
MAX_CASES = 256

BOUNDARY = (
    "from the call of Generator.sample() until it returns the samples as a float32 array in host memory: "
    "drawing the noise, every step of the program and copies to and from the device are inside, loading and "
    "saving are not; one caller, one call at a time, the same seed; monotonic clock; garbage collection off"
)

Nanoseconds = Annotated[int, Field(ge=1, le=10**16)]
Milliseconds = Annotated[float, Field(gt=0)]
Percentile = Annotated[float, Field(gt=0, lt=100)]
Verdict = Literal["faster", "same", "slower", "can't tell"]


class SamplingOptions(OptionValues):
    """Arguments of :meth:`Generator.sample` to measure with: `label` and options; the model's own defaults hold
    for what is left out."""

    label: Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=200)] | None = None

    def keywords(self) -> dict[str, Any]:
        """What was given."""
        return self.model_dump(exclude_none=True)

    def differences(self, other: SamplingOptions) -> Iterator[str]:
        """What differs, as ``name: mine here, theirs there``.

        An option that one of the two lacks was at its default there: it is of the time before that option.
        """
        defaults = {name: option.value for name, (option, *_) in all_options().items()}
        mine, theirs = ({**defaults, **each.keywords()} for each in (self, other))
        for name in dict.fromkeys((*self.keywords(), *other.keywords())):
            if mine.get(name) != theirs.get(name):
                yield f"{name}: {mine.get(name)!r} here, {theirs.get(name)!r} there"


class BenchSettings(StrictModel):
    """How to measure; names and defaults are trtexec's, where it has one.

    `warmup_ms`: warm-up before each run. `duration_s` and `iterations`: measure each case at least so long and so
    often, all runs together. `runs`: how often to load the model anew and measure it; a comparison needs several.
    `percentiles` to report beside the median. `patience`: if two bundles are measured in turn and the verdict is
    open, measure again, up to so many times.
    """

    warmup_ms: Annotated[float, Field(ge=0, le=600_000)] = 200.0
    duration_s: Annotated[float, Field(ge=0, le=86_400)] = 3.0
    iterations: Annotated[int, Field(ge=1, le=MAX_CALLS_PER_RUN)] = 10
    runs: Annotated[int, Field(ge=1, le=MAX_RUNS)] = 1
    percentiles: Annotated[tuple[Percentile, ...], Field(max_length=16)] = (90.0, 95.0, 99.0)
    patience: Annotated[int, Field(ge=1, le=10)] = 3
    options: SamplingOptions = SamplingOptions()


class Subject(StrictModel):
    """What was measured. Two cases may be compared when all but `bundle` agrees.

    `image`: (channels, height, width), or of a model of points (dimensions,).
    """

    bundle: Text
    model: Text
    image: Annotated[tuple[int, ...], Field(min_length=1, max_length=8)]
    backend: Text
    precision: Text
    batch: Annotated[int, Field(ge=1, le=65536)]
    threads: Annotated[int, Field(ge=1, le=65536)] | None
    options: SamplingOptions

    def differences(self, other: Subject) -> tuple[str, ...]:
        """The keys that make the two incomparable, as ``key: mine here, theirs there``."""
        pairs = {
            key: (getattr(self, key), getattr(other, key))
            for key in ("model", "image", "backend", "precision", "batch", "threads")
        }
        facts = (
            f"{key}: {mine!r} here, {theirs!r} there" for key, (mine, theirs) in pairs.items() if mine != theirs
        )
        return (*facts, *self.options.differences(other.options))

    def __str__(self) -> str:
        return f"{self.model}, {self.backend}, {self.precision}, batch {self.batch}"


class Run(StrictModel):
    """One load of a model and the calls that followed.

    `first_call_ns` is the call right after loading. `probe_ns` is the machine's speed in that moment (see
    :func:`gensdk_runtime.bench.machine.speed_probe_ns`). `graphs_ns` is the median time that one call spent
    inside the graphs' sessions. `latencies_ns` are in the order of the calls.
    """

    load_ns: Nanoseconds
    first_call_ns: Nanoseconds
    probe_ns: Nanoseconds
    graphs_ns: Annotated[int, Field(ge=0, le=10**16)]
    latencies_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=MAX_CALLS_PER_RUN)]

    def latencies(self) -> NDArray[np.float64]:
        """Latencies in milliseconds, float64 [calls]."""
        return np.asarray(self.latencies_ns, dtype=np.float64) / 1e6


class Summary(StrictModel):
    """Latencies in milliseconds over all runs; load, first call and the share of graphs are medians of the runs.

    `graphs_ms` is the part of a call inside the graphs' sessions; the rest is noise, solver and bookkeeping.
    """

    calls: Annotated[int, Field(ge=1)]
    min_ms: Milliseconds
    mean_ms: Milliseconds
    percentiles_ms: dict[Text, Milliseconds]
    max_ms: Milliseconds
    samples_per_second: Annotated[float, Field(gt=0)]
    load_ms: Milliseconds
    first_call_ms: Milliseconds
    graphs_ms: Annotated[float, Field(ge=0)]


class Case(StrictModel):
    """One subject with its summary and raw runs."""

    subject: Subject
    summary: Summary
    runs: Annotated[tuple[Run, ...], Field(max_length=MAX_RUNS)]

    @classmethod
    def of(cls, subject: Subject, runs: tuple[Run, ...], percentiles: tuple[float, ...]) -> Case:
        """A case with the summary of its runs."""
        return cls(
            subject=subject, summary=_summarize(runs, batch=subject.batch, percentiles=percentiles), runs=runs
        )


class Comparison(StrictModel):
    """The verdict on one limit.

    `ratio` is new / old of the metric, from `low` to `high` with this `confidence`; none where there is too
    little data.
    """

    subject: Subject
    against: Text
    limit: Text
    ratio: float | None
    low: float | None
    high: float | None
    confidence: Annotated[float, Field(gt=0, lt=1)]
    verdict: Verdict
    reason: Text = ""


class Report(StrictModel):
    """All results of one measurement."""

    kind: Literal["gensdk-bench"] = "gensdk-bench"
    version: Annotated[int, Field(ge=1)] = REPORT_VERSION
    created: Text
    boundary: Annotated[str, Field(max_length=2000)] = BOUNDARY
    machine: Machine
    settings: BenchSettings
    cases: Annotated[tuple[Case, ...], Field(max_length=MAX_CASES)]
    comparisons: Annotated[tuple[Comparison, ...], Field(max_length=10 * MAX_CASES)] = ()
    warnings: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()

    @property
    def slower(self) -> tuple[Comparison, ...]:
        """The comparisons whose limit broke."""
        return tuple(comparison for comparison in self.comparisons if comparison.verdict == "slower")

    def without_latencies(self) -> Report:
        """The report without its raw runs, for people and scripts that want the summary."""
        return self.model_copy(
            update={"cases": tuple(case.model_copy(update={"runs": ()}) for case in self.cases)}
        )

    def save(self, path: Path) -> None:
        """Writes the report with its raw latencies, whole or not at all. Raises :class:`InputError`."""
        text = (self.model_dump_json() + "\n").encode()
        if len(text) > MAX_REPORT_BYTES:
            raise InputError(
                f"{path}: the report has {len(text) >> 20} MiB, at most {MAX_REPORT_BYTES >> 20} are read "
                "back; measure fewer cases at once"
            )
        write_atomically(path, text)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Reads a report that :meth:`save` wrote.

        Raises :class:`InputError` for a missing, too large, damaged or newer file, and for one that is no
        regular file.
        """
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: expected a report file, got something else; pass a file of --save")
            with path.open("rb") as file:
                text = file.read(MAX_REPORT_BYTES + 1)
        except OSError as failure:
            raise InputError(f"{path}: can't be read ({failure.strerror}); pass a file of --save") from None
        if len(text) > MAX_REPORT_BYTES:
            raise InputError(f"{path}: larger than {MAX_REPORT_BYTES >> 20} MiB; no report is")
        _refuse_newer(text, path)
        return cls.from_json(text, what=str(path))


def _refuse_newer(text: bytes, path: Path) -> None:
    """Comes before all else, since a newer report may have keys that this version doesn't know."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not readable as JSON; measure a new one with --save") from None
    version = raw.get("version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > REPORT_VERSION:
        shown = str(version) if version < 10**9 else "over 10^9"  # str() refuses huge integers
        raise InputError(
            f"{path}: report version {shown}, this gensdk reads up to {REPORT_VERSION}; upgrade gensdk"
        )


def percentile_name(percentile: float) -> str:
    """50.0 to ``p50``, 99.9 to ``p99.9``."""
    return f"p{percentile:g}"


def _summarize(runs: tuple[Run, ...], *, batch: int, percentiles: tuple[float, ...]) -> Summary:
    """The summary of `runs`, each call of which made `batch` samples. The median is always reported."""
    latencies = np.concatenate([run.latencies() for run in runs])
    wanted = sorted({50.0, *percentiles})
    found = np.percentile(latencies, wanted)
    return Summary(
        calls=len(latencies),
        min_ms=float(latencies.min()),
        mean_ms=float(latencies.mean()),
        percentiles_ms={percentile_name(p): float(ms) for p, ms in zip(wanted, found, strict=True)},
        max_ms=float(latencies.max()),
        samples_per_second=1e3 * batch / float(latencies.mean()),
        load_ms=float(np.median([run.load_ns for run in runs])) / 1e6,
        first_call_ms=float(np.median([run.first_call_ns for run in runs])) / 1e6,
        graphs_ms=float(np.median(latencies)) * _share_in_graphs(runs),
    )


def _share_in_graphs(runs: tuple[Run, ...]) -> float:
    """The part of a median call inside the graphs, at most 1; within each run, as speed drifts between them."""
    return min(1.0, float(np.median([run.graphs_ns / np.median(run.latencies_ns) for run in runs])))
