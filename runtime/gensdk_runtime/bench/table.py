"""A report as tables for people."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as RichText

from gensdk_runtime.bench.machine import Machine
from gensdk_runtime.bench.report import Case, Comparison, Report, Subject

_STYLES = {"faster": "green", "same": "green", "slower": "bold red", "can't tell": "yellow"}


def report_table(report: Report) -> RenderableType:
    """Latencies, verdicts where something was compared, warnings, machine and timing boundary."""
    parts: list[RenderableType] = [_latencies(report.cases), _throughput(report.cases)]
    if report.comparisons:
        parts.append(_verdicts(report.comparisons))
    parts += [RichText(f"warning: {warning}", style="yellow") for warning in report.warnings]
    settings = report.settings
    parts.append(
        RichText(
            f"machine: {_machine(report.machine)}\n"
            f"timed: {report.boundary}\n"
            f"settings: warm-up {settings.warmup_ms:g} ms before each of {settings.runs} run(s), then at least "
            f"{settings.duration_s:g} s and {settings.iterations} calls for each case in all, up to "
            f"{settings.patience} times that where two bundles in turn do not tell",
            style="dim",
        )
    )
    return Group(*parts)


def _latencies(cases: tuple[Case, ...]) -> Table:
    percentiles = list(dict.fromkeys(name for case in cases for name in case.summary.percentiles_ms))
    table = _table("latency of Generator.sample() in ms", "min", "mean", *percentiles, "max")
    for case in cases:
        summary = case.summary
        tails = [summary.percentiles_ms.get(name) for name in percentiles]
        values = (summary.min_ms, summary.mean_ms, *tails, summary.max_ms)
        table.add_row(RichText(_label(case, cases)), *(_ms(value) for value in values))
    return table


def _throughput(cases: tuple[Case, ...]) -> Table:
    columns = ("calls", "samples/s", "in graphs", "load ms", "first call ms")
    table = _table("throughput, share of time inside the graphs, cold start", *columns)
    for case in cases:
        summary = case.summary
        table.add_row(
            RichText(_label(case, cases)),
            str(summary.calls),
            f"{summary.samples_per_second:,.1f}",
            f"{summary.graphs_ms / summary.percentiles_ms['p50']:.0%}",
            _ms(summary.load_ms),
            _ms(summary.first_call_ms),
        )
    return table


def _verdicts(comparisons: tuple[Comparison, ...]) -> Table:
    confidence = min(comparison.confidence for comparison in comparisons)
    table = Table(title=f"new / old with its {confidence:.1%} interval", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("case", "against", "limit", "ratio", "interval", "verdict", "why"):
        table.add_column(column, overflow="fold")
    for comparison in comparisons:
        table.add_row(
            RichText(_of(comparison.subject)),
            RichText(comparison.against),
            comparison.limit,
            "-" if comparison.ratio is None else f"{comparison.ratio:.3f}",
            "-" if comparison.low is None else f"{comparison.low:.3f} .. {comparison.high:.3f}",
            RichText(comparison.verdict, style=_STYLES[comparison.verdict]),
            RichText(comparison.reason),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("case", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _label(case: Case, cases: tuple[Case, ...]) -> str:
    """The case without what all cases share."""
    several = len({other.subject.bundle for other in cases}) > 1
    return f"{case.subject.bundle} {_of(case.subject)}" if several else _of(case.subject)


def _of(subject: Subject) -> str:
    return f"{subject.backend} {subject.precision} batch {subject.batch}"


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
