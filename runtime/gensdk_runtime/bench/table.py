"""A report as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as RichText

from gensdk_runtime.bench.machine import Machine
from gensdk_runtime.bench.report import Case, Comparison, Report

_STYLES = {"faster": "green", "same": "green", "slower": "bold red", "can't tell": "yellow"}


def report_table(report: Report) -> RenderableType:
    """Latencies, verdicts where something was compared, warnings, machine and timing boundary."""
    parts: list[RenderableType] = [_latencies(report.cases)]
    if report.comparisons:
        parts.append(_verdicts(report.comparisons))
    parts += [RichText(f"warning: {warning}", style="yellow") for warning in report.warnings]
    settings = report.settings
    parts.append(
        RichText(
            f"machine: {_machine(report.machine)}\n"
            f"timed: {report.boundary}\n"
            f"settings: warm-up {settings.warmup_ms:g} ms before each of {settings.runs} run(s), then at least "
            f"{settings.duration_s:g} s and {settings.iterations} calls for each case in all",
            style="dim",
        )
    )
    return Group(*parts)


def _latencies(cases: tuple[Case, ...]) -> Table:
    table = Table(title="latency of Generator.sample() in ms", title_justify="left")
    percentiles = list(dict.fromkeys(name for case in cases for name in case.summary.percentiles_ms))
    for column in ("bundle", "backend", "precision"):
        table.add_column(column, overflow="fold")
    for column in (
        "batch",
        "calls",
        "min",
        "mean",
        *percentiles,
        "max",
        "samples/s",
        "in graphs",
        "load",
        "first",
    ):
        table.add_column(column, justify="right")
    for case in cases:
        subject, summary = case.subject, case.summary
        tails = [summary.percentiles_ms.get(name) for name in percentiles]
        table.add_row(
            subject.bundle,
            subject.backend,
            subject.precision,
            str(subject.batch),
            str(summary.calls),
            *(_ms(value) for value in (summary.min_ms, summary.mean_ms, *tails, summary.max_ms)),
            f"{summary.samples_per_second:,.1f}",
            f"{summary.graphs_ms / summary.percentiles_ms['p50']:.0%}",
            _ms(summary.load_ms),
            _ms(summary.first_call_ms),
        )
    return table


def _verdicts(comparisons: tuple[Comparison, ...]) -> Table:
    table = Table(title="new / old, with 95 % interval", title_justify="left")
    for column in ("case", "against", "limit", "ratio", "interval", "verdict", "why"):
        table.add_column(column, overflow="fold")
    for comparison in comparisons:
        known = comparison.low is not None and comparison.high is not None and comparison.ratio is not None
        table.add_row(
            str(comparison.subject),
            comparison.against,
            comparison.limit,
            f"{comparison.ratio:.3f}" if known else "-",
            f"{comparison.low:.3f} .. {comparison.high:.3f}" if known else "-",
            RichText(comparison.verdict, style=_STYLES[comparison.verdict]),
            comparison.reason,
        )
    return table


def _ms(value: float | None) -> str:
    """Three or four digits that mean something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _machine(machine: Machine) -> str:
    quota = "" if machine.cpu_quota is None else f" (quota {machine.cpu_quota:g})"
    load = f", load {machine.load_average[0]:g}" if machine.load_average else ""
    gpus = f", GPU {', '.join(machine.gpus)}" if machine.gpus else ", no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.cpu}, {machine.cores} cores{quota}, {machine.memory_gib} GiB{gpus}{load}; {machine.os}, "
        f"Python {machine.python}, {versions}"
    )
