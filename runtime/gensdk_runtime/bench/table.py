"""A report as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from gensdk_runtime.bench.latency_report import Case, Comparison, Report, Subject
from gensdk_runtime.bench.machine import Machine
from gensdk_runtime.host.text_table import table_text, wrapped


def report_text(report: Report, *, width: int | None = None) -> str:
    """Latencies, verdicts where something was compared, warnings, machine and timing boundary, as lines.

    `width`: columns on the terminal, None where there is no limit.
    """
    parts = [_latencies(report.cases, width), _throughput(report.cases, width)]
    if report.comparisons:
        parts.append(_verdicts(report.comparisons, width))
    settings = report.settings
    below = [
        *(f"warning: {warning}" for warning in report.warnings),
        f"machine: {_machine(report.machine)}",
        f"timed: {report.boundary}",
        f"settings: warm-up {settings.warmup_ms:g} ms before each of {settings.runs} run(s), then at least "
        f"{settings.duration_s:g} s and {settings.iterations} calls for each case in all, up to "
        f"{settings.patience} times that where two bundles in turn do not tell",
    ]
    parts.append("".join(line + "\n" for text in below for line in wrapped(text, width, indent="  ")))
    return "\n".join(parts)


def _latencies(cases: tuple[Case, ...], width: int | None) -> str:
    percentiles = list(dict.fromkeys(name for case in cases for name in case.summary.percentiles_ms))
    rows = []
    for case in cases:
        summary = case.summary
        tails = [summary.percentiles_ms.get(name) for name in percentiles]
        values = (summary.min_ms, summary.mean_ms, *tails, summary.max_ms)
        rows.append((_label(case, cases), *(_ms(value) for value in values)))
    return _table("latency of Generator.sample() in ms", ("min", "mean", *percentiles, "max"), rows, width)


def _throughput(cases: tuple[Case, ...], width: int | None) -> str:
    columns = ("calls", "samples/s", "in graphs", "load ms", "first call ms")
    rows = [
        (
            _label(case, cases),
            str(case.summary.calls),
            f"{case.summary.samples_per_second:,.1f}",
            f"{case.summary.graphs_ms / case.summary.percentiles_ms['p50']:.0%}",
            _ms(case.summary.load_ms),
            _ms(case.summary.first_call_ms),
        )
        for case in cases
    ]
    return _table("throughput, share of time inside the graphs, cold start", columns, rows, width)


def _verdicts(comparisons: tuple[Comparison, ...], width: int | None) -> str:
    confidence = min(comparison.confidence for comparison in comparisons)
    rows = [
        (
            _of(comparison.subject),
            comparison.against,
            comparison.limit,
            "-" if comparison.ratio is None else f"{comparison.ratio:.3f}",
            "-" if comparison.low is None else f"{comparison.low:.3f} .. {comparison.high:.3f}",
            comparison.verdict,
            comparison.reason,
        )
        for comparison in comparisons
    ]
    columns = ("case", "against", "limit", "ratio", "interval", "verdict", "why")
    return table_text(columns, rows, title=f"new / old with its {confidence:.1%} interval", width=width)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> str:
    """A case in each row, its numbers set to the right."""
    numbers = range(1, len(columns) + 1)
    return table_text(("case", *columns), rows, title=title, width=width, right=numbers)


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
