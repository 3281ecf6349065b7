"""The report of an export: for each graph and precision the size, the difference, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gensdk_runtime.proof.drift import Drift
from gensdk_runtime.proof.verify import Check, VerifyReport
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import EngineSpec, Precision16Report


@dataclass(frozen=True)
class GraphRow:
    """One graph in one precision, judged by one executor.

    `judge`: ``onnxruntime`` (the exported file) or ``torch half`` (the honest reference for fp16). `size`: bytes
    of the file, None for whole samples. `verdict`: ``ok``, ``reported`` where there is no bound, or the problem.
    `allowed`: the largest `drift.scaled` that it was held to; `least_psnr` in dB, where there is such a bound too.
    """

    what: str
    precision: Precision
    judge: str
    size: int | None
    drift: Drift
    verdict: str
    allowed: float | None = None
    least_psnr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        drift = self.drift
        return {
            "what": self.what,
            "precision": self.precision,
            "judge": self.judge,
            "size": self.size,
            "calls": drift.calls,
            "max_abs": drift.max_abs,
            "scaled": drift.scaled,
            "psnr": drift.psnr,
            "flipped": drift.flipped,
            "discrete": drift.discrete,
            "allowed": self.allowed,
            "least_psnr": self.least_psnr,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class ExportReport:
    """The bundle that was written and everything that was measured on the way."""

    bundle: Path
    model: str
    rows: tuple[GraphRow, ...]
    engines: tuple[tuple[EngineSpec, int], ...]
    fp16: Precision16Report | None
    warnings: tuple[str, ...]
    bundle_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "bundle": str(self.bundle),
            "model": self.model,
            "graphs": [row.to_dict() for row in self.rows],
            "engines": [{**spec.model_dump(), "size": size} for spec, size in self.engines],
            "fp16": None if self.fp16 is None else self.fp16.model_dump(mode="json"),
            "warnings": list(self.warnings),
            "bundle_bytes": self.bundle_bytes,
            "seconds": self.seconds,
        }

    def table(self) -> list[tuple[str, ...]]:
        """The rows as text, the heading first."""
        return [HEADING, *(row_text(row) for row in self.rows), *engine_rows(self.engines)]

    def text(self) -> str:
        """The report as plain text: the table in columns, then islands and warnings."""
        table = self.table()
        widths = [max(len(row[column]) for row in table) for column in range(len(HEADING))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        for graph, islands in (self.fp16.islands if self.fp16 else {}).items():
            lines += [f"fp32 islands in {graph}: {', '.join(islands)}"] if islands else []
        lines += [MEASURED, *(f"warning: {warning}" for warning in self.warnings)]
        return "\n".join(lines)


HEADING = ("graph", "precision", "judged by", "size", "differs by", "allowed", "PSNR", "verdict")
MEASURED = "differs by: the largest difference from the original in float32; 1 is half of an image's value range"
"""What the table compares, in which unit: that of the bounds beside it."""


def rows_of(report: VerifyReport, sizes: dict[str, int]) -> Iterator[GraphRow]:
    """The rows of a replay of exported files; `sizes` in bytes by graph."""
    for check in report.graphs:
        yield check_row(check, sizes[check.what], judge=check.backend)
    for check in report.samples:
        yield check_row(check, None, judge=check.backend)


def check_row(check: Check, size: int | None, *, judge: str) -> GraphRow:
    """The row of one check; whole samples in fp16 are reported without a verdict of their own."""
    reported = size is None and check.precision == "fp16"
    verdict = check.problem or ("reported" if reported else "ok")
    allowed = (None, None) if reported else (check.allowed, check.least_psnr)
    return GraphRow(check.what, check.precision, judge, size, check.drift, verdict, *allowed)


def row_text(row: GraphRow) -> tuple[str, ...]:
    """One row as text: the difference in the unit of its bound, and in that of the output where it differs."""
    drift = row.drift
    size = "" if row.size is None else size_text(row.size)
    flips = f", {drift.flipped}/{drift.discrete} flips" if drift.discrete else ""
    own = f" ({drift.max_abs:.1e} unscaled)" if drift.scaled < drift.max_abs / 2 else ""
    difference, psnr = f"{drift.scaled:.1e}{own}{flips}", f"{drift.psnr:.1f} dB"
    return (row.what, row.precision, row.judge, size, difference, _allowed(row), psnr, row.verdict)


def _allowed(row: GraphRow) -> str:
    if row.least_psnr is not None:
        return f"PSNR {row.least_psnr:g} dB"
    return "" if row.allowed is None else f"{row.allowed:.2g}"


def engine_rows(engines: tuple[tuple[EngineSpec, int], ...]) -> Iterator[tuple[str, ...]]:
    """The engines as rows; they are built, not run, so there is no difference to show."""
    for spec, size in engines:
        batch = f"batch {spec.min_batch}-{spec.max_batch}"
        yield (
            spec.graph,
            spec.precision,
            f"{spec.runtime} {spec.version}",
            size_text(size),
            "",
            "",
            "",
            f"built, {batch}",
        )


def size_text(size: int) -> str:
    """A size in KB or MB (powers of ten)."""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} KB"
