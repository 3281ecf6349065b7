"""One call that measures a bundle in all its cases, compares it, and reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from gensdk_runtime.bench.gate import (
    DEFAULT_LIMIT,
    Limit,
    compare_paired,
    compare_with_baseline,
    enough_calls,
    machine_warnings,
)
from gensdk_runtime.bench.latency_report import MAX_RUNS, BenchSettings, Case, Comparison, Report, Run
from gensdk_runtime.bench.machine import Machine, shown, this_machine
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.fields import Precision

COMPARISON_RUNS = 10
"""Runs of a measurement that is to be compared: each loads the model anew, and luck differs from load to load."""


def bench(
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    baseline: Report | None = None,
    fail_on: Sequence[str] = (DEFAULT_LIMIT,),
    batches: Sequence[int] = (1,),
    precisions: Sequence[Precision] = ("fp32",),
    backends: Sequence[str] = ("auto",),
    threads: int | None = None,
    settings: BenchSettings | None = None,
    allow_other_machine: bool = False,
    on_case: Callable[[str], None] | None = None,
) -> Report:
    """Measures `bundle` for each backend, precision and batch size.

    `against`: another bundle, measured in turn with the first; the verdicts say whether `bundle` is slower than
    it. `baseline`: an earlier report of this machine to compare with instead. `fail_on`: limits such as
    ``p95:+5%`` or ``throughput:-5%``; :attr:`Report.slower` holds those that broke. `settings`: how to measure; by
    default three seconds a case, in one run, or in ten where something is compared. `on_case` is called with the
    name of each case before it is measured. Raises :class:`InputError` for arguments and baselines that do not
    fit, and what loading and sampling raise.
    """
    if against is not None and baseline is not None:
        raise InputError("expected against or baseline, got both; compare with one of them")
    comparing = against is not None or baseline is not None
    limits = [Limit.parse(text) for text in dict.fromkeys(fail_on)]
    settings = settings or BenchSettings(runs=COMPARISON_RUNS if comparing else 1)
    report = Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        settings=settings,
        cases=(),
    )
    warnings = _busy(report.machine)
    if baseline is not None:
        warnings += machine_warnings(report, baseline, allow_other_machine=allow_other_machine)
    cases: list[Case] = []
    comparisons: list[Comparison] = []
    for backend, precision, batch in dict.fromkeys(product(backends, precisions, batches)):
        if on_case is not None:
            on_case(f"{bundle}: {backend}, {precision}, batch {batch}")
        target = _target(bundle, backend, precision, batch, threads)
        if against is not None:
            other = _target(against, backend, precision, batch, threads)
            new, old, verdicts = measure_in_turn(target, other, settings, limits)
            cases += (new, old)
            comparisons += verdicts
            differences = new.subject.differences(old.subject)
            warnings += tuple(f"the bundles differ: {difference}" for difference in differences)
            continue
        cases += measure([target], enough_calls(settings) if settings.runs > 1 else settings)
        if baseline is not None:
            comparisons += compare_with_baseline(cases[-1], baseline, limits)
    return report.model_copy(
        update={
            "cases": tuple(cases),
            "comparisons": tuple(comparisons),
            "warnings": tuple(dict.fromkeys(warnings)),
        }
    )


def measure_in_turn(
    new: Target, old: Target, settings: BenchSettings, limits: Sequence[Limit], *, seed: int = 0
) -> tuple[Case, Case, tuple[Comparison, ...]]:
    """Measures two targets in turn and compares them, again and again while a verdict is "can't tell".

    At most ``settings.patience`` times, and with as many calls in each run as a verdict needs. Since each look at
    the data is a chance to be wrong, the 5 % of error are divided among the looks (Bonferroni).
    """
    confidence = 1 - 0.05 / settings.patience
    targets = (new, old)
    runs: list[tuple[Run, ...]] = [(), ()]
    for look in range(settings.patience):
        found = measure(targets, enough_calls(settings), seed=seed * settings.patience + look)
        runs = [(*earlier, *case.runs) for earlier, case in zip(runs, found, strict=True)]
        first, second = (
            Case.of(case.subject, together, settings.percentiles)
            for case, together in zip(found, runs, strict=True)
        )
        comparisons = compare_paired(first, second, limits, confidence=confidence)
        full = len(runs[0]) + settings.runs > MAX_RUNS
        if full or all(comparison.verdict != "can't tell" for comparison in comparisons):
            break
    return first, second, comparisons


def _busy(machine: Machine) -> tuple[str, ...]:
    """A warning if other processes use the processor: latencies then depend on them more than on the model."""
    load = machine.load_average[0] if machine.load_average else 0.0
    if load <= 0.5 * machine.cores:
        return ()
    return (f"the machine was busy before the measurement began (load {load:g} on {machine.cores} cores)",)


def _target(bundle: str | Path, backend: str, precision: Precision, batch: int, threads: int | None) -> Target:
    def load() -> Generator:
        return Generator.load(bundle, backend=backend, precision=precision, threads=threads)

    return Target(name=shown(str(bundle)), open=load, batch=batch, threads=threads)
