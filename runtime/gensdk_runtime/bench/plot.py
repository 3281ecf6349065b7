"""A report as a picture: the distribution of latencies, and throughput by batch size."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.bench.latency_report import Case, Report
from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.host.user_cache import cache_folder
from gensdk_runtime.media.images import write_atomically

_MAX_CURVES = 12


def check_plot(path: Path) -> None:
    """Raises what :func:`plot_report` would raise for this path; to be called before a long measurement."""
    if path.suffix.lower() != ".png":
        raise InputError(f"expected a .png path for the plot, got {str(path)[-60:]!r}")
    _keep_fonts_in_our_cache()
    try:
        _import_matplotlib()
    except ImportError:
        raise UnavailableError('matplotlib is missing; pip install "gensdk[plot]"') from None


def _import_matplotlib() -> None:
    """Without the ``matplotlibrc`` of the working directory, which matplotlib would obey before the user's own.

    A folder from a stranger could otherwise make it run LaTeX with a preamble of the stranger's.
    """
    planted = "matplotlib" not in sys.modules and os.path.lexists("matplotlibrc")
    with contextlib.chdir(Path(sys.prefix).anchor) if planted else contextlib.nullcontext():
        import matplotlib.figure  # noqa: F401


def _keep_fonts_in_our_cache() -> None:
    """Lets matplotlib keep its list of fonts in gensdk's cache, where it has no folder in the user's home yet."""
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ:
        return
    with contextlib.suppress(
        UnavailableError, RuntimeError, OSError
    ):  # no cache or no home: matplotlib's own ways
        settled = [Path.home() / name for name in (".config/matplotlib", ".cache/matplotlib", ".matplotlib")]
        if not any(folder.exists() for folder in settled):
            os.environ["MPLCONFIGDIR"] = str(cache_folder("matplotlib"))


def plot_report(report: Report, path: Path) -> None:
    """Writes a PNG of two panels: the share of calls that took at most x ms, and samples/s by batch size.

    Raises :class:`UnavailableError` without matplotlib and :class:`InputError` for a path that does not end in
    ``.png``, or a report without raw latencies.
    """
    check_plot(path)
    if not report.cases or not all(case.runs for case in report.cases):
        raise InputError("the report has no raw latencies to plot; write it with --save, not from --json")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_latencies(left, report.cases)
    _draw_throughput(right, report.cases)
    machine = report.machine
    figure.suptitle(f"{report.cases[0].subject.model} on {machine.cpu}, {machine.cores} cores", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def _draw_latencies(axes: Any, cases: tuple[Case, ...]) -> None:
    for case in cases[:_MAX_CURVES]:
        values = np.sort(np.concatenate([run.latencies() for run in case.runs]))
        axes.step(values, np.arange(1, len(values) + 1) / len(values), where="post", label=_label(case))
    axes.set(xscale="log", xlabel="latency of one call, ms", ylabel="share of calls", ylim=(0, 1.02))
    axes.axhline(0.5, color="0.85", zorder=0)
    axes.axhline(0.95, color="0.85", zorder=0)
    left_out = len(cases) - _MAX_CURVES
    axes.set_title(f"latency ({left_out} more cases not drawn)" if left_out > 0 else "latency")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


def _draw_throughput(axes: Any, cases: tuple[Case, ...]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for case in cases:
        subject = case.subject
        name = f"{subject.bundle}, {subject.backend}, {subject.precision}"
        lines.setdefault(name, []).append((subject.batch, case.summary.samples_per_second))
    for name, points in lines.items():
        sizes, speeds = zip(*sorted(points), strict=True)
        axes.plot(sizes, speeds, marker="o", label=name)
    batches = sorted({case.subject.batch for case in cases})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set(xlabel="batch size", ylabel="samples per second", title="throughput", ylim=(0, None))
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


def _label(case: Case) -> str:
    subject = case.subject
    return f"{subject.bundle}, {subject.backend}, {subject.precision}, batch {subject.batch}"
