"""The result of a comparison on the terminal, as JSON, and as one picture."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from claims import title
from figures import Figure
from peers import PEERS
from rich import box
from rich.console import Console
from rich.table import Table
from sidebyside import Result

from gensdk_runtime.bench.machine import Machine
from gensdk_runtime.media.images import write_atomically


@dataclass(frozen=True)
class Outcome:
    """All that one run found. `peak`: multiply-adds a second; `work`: multiply-adds of each case by its title."""

    created: str
    seconds: float
    machine: Machine
    versions: Mapping[str, str]
    peak: Mapping[str, float]
    work: Mapping[str, int]
    results: Sequence[Result]
    figures: Sequence[Figure]
    notes: Sequence[str]

    def fraction(self, result: Result, name: str) -> float | None:
        """Which part of the machine's matrix-multiply peak this peer reaches; none where that was not measured,
        or where the peer computes less."""
        work = self.work.get(title(result))
        if not self.peak or work is None or not PEERS[name].exact or not result.timings[name].whole:
            return None
        return work / (result.timings[name].median / 1e3) / max(self.peak.values())


def print_outcome(outcome: Outcome) -> None:
    """Times of all peers, then the figures."""
    console = Console(width=None if Console().is_terminal else 170)
    for result in outcome.results:
        console.print(_times(outcome, result))
    console.print(_figures(outcome.figures))
    for note in outcome.notes:
        console.print(f"note: {note}", highlight=False)
    machine, peak = outcome.machine, outcome.peak
    best = max(peak, key=lambda name: peak[name]) if peak else ""
    peak_text = f"; at most {peak[best] / 1e9:.1f} G multiply-adds/s in float32 products ({best})" if best else ""
    versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    console.print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, load {machine.load_average}{peak_text}; "
        f"{machine.os}, Python {machine.python}, {versions}; took {outcome.seconds:.0f} s",
        highlight=False,
    )


_COLUMNS = ("median ms", "quartiles", "min", "calls", "images/s", "x gensdk", "of peak", "max |diff|", "load s")


def _times(outcome: Outcome, result: Result) -> Table:
    table = Table(title=title(result), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("peer")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what runs", overflow="fold")
    ours = result.timings["gensdk"].median if "gensdk" in result.timings else math.nan
    for name, timing in sorted(result.timings.items(), key=lambda item: item[1].median):
        calls = timing.calls
        low, high = np.percentile(calls, [25, 75])
        fraction, difference = outcome.fraction(result, name), result.differences.get(name)
        table.add_row(
            name,
            f"{timing.median:.4g}",
            f"{low:.4g} .. {high:.4g}",
            f"{calls.min():.4g}",
            str(len(calls)),
            f"{result.case.batch * 1e3 / timing.median:.4g}",
            f"{timing.median / ours:.3f}",
            "" if fraction is None else f"{fraction:.1%}",
            "" if difference is None else f"{difference:.1e}",
            f"{(timing.open_ms + timing.first_ms) / 1e3:.1f}",
            timing.detail if timing.scale == 1 else f"extrapolated, x {timing.scale:.4g}",
        )
    for name, why in result.failures.items():
        table.add_row(name, "failed", *[""] * 8, why)
    return table


def _figures(figures: Sequence[Figure]) -> Table:
    table = Table(title="figures, with 95 % intervals", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("figure", overflow="fold")
    for column in ("value", "interval", "bound"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("detail", overflow="fold")
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            table.add_row(f"[bold]{group}[/bold]")
        bound = "" if figure.bound is None else str(figure.bound)
        value = "-" if figure.value is None else f"{figure.value:.4g}"
        table.add_row(f"  {figure.what}", value, figure.interval, bound, figure.verdict, figure.detail)
    return table


def write_outcome(outcome: Outcome, root: Path) -> tuple[Path, Path | None]:
    """``compare.json`` and ``compare.png`` in `root`; no picture where there is nothing to draw."""
    file = root / "compare.json"
    write_atomically(file, (json.dumps(as_json(outcome), indent=1) + "\n").encode())
    drawn = [result for result in outcome.results if "gensdk" in result.timings]
    picture = root / "compare.png"
    if drawn:
        draw(outcome, drawn, picture)
    return file, picture if drawn else None


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything, with all times in ms."""
    return {
        "kind": "gensdk-compare",
        "created": outcome.created,
        "seconds": outcome.seconds,
        "machine": outcome.machine.model_dump(mode="json"),
        "versions": dict(outcome.versions),
        "peak_multiply_adds_per_second": dict(outcome.peak),
        "notes": list(outcome.notes),
        "figures": [_figure_json(figure) for figure in outcome.figures],
        "cases": [_case_json(outcome, result) for result in outcome.results],
    }


def _figure_json(figure: Figure) -> dict[str, Any]:
    return asdict(figure) | {"bound": str(figure.bound or ""), "verdict": figure.verdict}


def _case_json(outcome: Outcome, result: Result) -> dict[str, Any]:
    peers = {
        name: {
            "median_ms": timing.median,
            "scale": timing.scale,
            "detail": timing.detail,
            "open_ms": timing.open_ms,
            "first_ms": timing.first_ms,
            "fraction_of_peak": outcome.fraction(result, name),
            "difference": result.differences.get(name),
            "difference_rms": result.rms.get(name),
            "rounds_ms": [calls.tolist() for calls in timing.rounds],
        }
        for name, timing in result.timings.items()
    }
    return {
        "workload": result.workload,
        "batch": result.case.batch,
        "steps": result.case.steps,
        "multiply_adds": outcome.work.get(title(result)),
        "peers": peers,
        "pixels": {name: dict(pixels) for name, pixels in result.pixels.items()},
        "failures": result.failures,
    }


def draw(outcome: Outcome, results: Sequence[Result], path: Path) -> None:
    """One panel a case: the time of each peer over gensdk's; median, quartiles and all rounds."""
    from matplotlib.figure import Figure as Canvas

    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    canvas = Canvas(figsize=(5.2 * columns, 2.6 * rows + 0.4), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    for panel, result in zip(panels, results, strict=False):
        _draw_case(panel, result)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    machine = outcome.machine
    canvas.suptitle(f"time over gensdk's; interleaved rounds; {machine.cpu}, {machine.cores} cores", fontsize=10)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _draw_case(panel: Any, result: Result) -> None:
    ours = result.rounds("gensdk")
    names = sorted(result.timings, key=lambda name: result.timings[name].median, reverse=True)
    for place, name in enumerate(names):
        pairs = [(np.median(a), np.median(b)) for a, b in zip(result.rounds(name), ours, strict=True) if len(a)]
        ratios = np.array([theirs / mine for theirs, mine in pairs])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        colour = "tab:blue" if PEERS[name].ours else "0.45"
        panel.scatter(ratios, np.full(len(ratios), place), s=6, color=colour, alpha=0.35, linewidths=0)
        panel.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.5)
        panel.plot([middle], [place], marker="|", markersize=12, color=colour)
        panel.annotate(f"{middle:.2f}", (middle, place), xytext=(0, 6), textcoords="offset points", fontsize=6)
    panel.axvline(1.0, color="tab:blue", linewidth=0.8)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set_xscale("log")
    panel.set_ylim(-0.6, len(names) - 0.3)
    panel.set_title(f"{title(result)}: gensdk {result.timings['gensdk'].median:.4g} ms", fontsize=8)
    panel.tick_params(axis="x", labelsize=7, which="both")
    panel.grid(alpha=0.3, axis="x")
