"""What a benchmark of quality finds: rows with a value, and often a gate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

Gate = Callable[[float], tuple[str, bool]]


@dataclass(frozen=True)
class Row:
    """One measured value. `gate` is the bound as text; empty for a value that is only reported."""

    model: str
    measure: str
    value: float
    gate: str = ""
    passed: bool | None = None
    detail: str = ""


def at_most(bound: float) -> Gate:
    return lambda value: (f"<= {bound:.4g}", value <= bound)


def at_least(bound: float) -> Gate:
    return lambda value: (f">= {bound:.4g}", value >= bound)


def above(bound: float) -> Gate:
    return lambda value: (f"> {bound:.4g}", value > bound)


def over_seeds(rows_of_seeds: Sequence[Sequence[Row]]) -> Iterator[Row]:
    """The mean of each row over the seeds, with the range; a gate holds where each seed keeps it."""
    if len(rows_of_seeds) == 1:
        yield from rows_of_seeds[0]
        return
    for rows in zip(*rows_of_seeds, strict=True):
        values = [row.value for row in rows]
        told = f"{min(values):.4g} .. {max(values):.4g} over {len(rows)} seeds"
        verdicts = [row.passed for row in rows if row.passed is not None]
        yield replace(
            rows[0],
            value=sum(values) / len(values),
            passed=all(verdicts) if verdicts else None,
            detail=f"{told}; {rows[0].detail}" if rows[0].detail else told,
        )


def print_table(rows: Iterable[Row]) -> None:
    table = Table("model", "measure", "value", "gate", "", "detail", title="quality")
    for row in rows:
        verdict = {True: "pass", False: "MISSED", None: ""}[row.passed]
        table.add_row(row.model, row.measure, f"{row.value:.4g}", row.gate, verdict, row.detail)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
