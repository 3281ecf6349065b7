"""What a day has found: one JSON with all of it, one Markdown for people, and a summary for the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers import ON

from day_one.conduct import UNDONE
from day_one.double import WARNING
from day_one.parts import MACHINE, PARTS
from day_one.result import Row
from gensdk_runtime.bench.machine import Machine
from gensdk_runtime.host.atomic import write_file

SCHEMA = 1
"""Of the JSON: goes up when a reader has to know."""
KIND = "gensdk-gpu-day"
JSON, MARKDOWN = "gpu_day.json", "gpu_day.md"
NOTHING = "-"
NOTHING_FOUND = "NOTHING WAS CHECKED"
WORDS = {
    "failed": "FAILED",
    "stopped": "STOPPED for want of time (give a larger --limit or --total, or run it again)",
}
BUSY = 0.5
"""Of the cores: a load from which on a machine counts as busy."""


@dataclass(frozen=True)
class Outcome:
    """All rows of a run, and the `conditions` that they were found under."""

    created: str
    seconds: float
    machine: Machine
    conditions: Mapping[str, Any]
    rows: tuple[Row, ...]

    @property
    def counts(self) -> Counter[str]:
        """Rows by state."""
        return Counter(row.state for row in self.rows)

    @property
    def ok(self) -> bool:
        """True where something was found, no check failed and no piece was stopped. Figures fail nothing, nor does
        what could not be had."""
        return self.found and not any(self.counts[state] for state in UNDONE)

    @property
    def found(self) -> bool:
        """Whether a part found anything at all; what the machine is counts where nothing else was asked."""
        asked = set(self.conditions["parts"]) - {MACHINE} or {MACHINE}
        return any(row.state in ("passed", "measured") for row in self.rows if row.part in asked)

    @property
    def busy(self) -> str:
        """A word where others were at work, which every figure of time feels; else nothing."""
        load = self.machine.load_average
        if not load or load[0] <= BUSY * self.machine.cores:
            return ""
        return f"The machine was busy: a load of {load[0]:g} on {self.machine.cores} cores when it began."

    @property
    def double(self) -> bool:
        """Whether a part of it ran on a GPU that the CPU plays."""
        return bool(self.conditions.get("double"))


def write(outcome: Outcome, folder: Path) -> tuple[Path, Path]:
    """Both files in `folder`, each whole or as it was. Raises OSError."""
    files = folder / JSON, folder / MARKDOWN
    text = json.dumps(as_json(outcome), indent=1, allow_nan=False) + "\n"
    for path, content in zip(files, (text, as_markdown(outcome)), strict=True):
        write_file(path, content.encode(), durable=True)
    return files


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "created": outcome.created,
        "seconds": round(outcome.seconds, 1),
        "ok": outcome.ok,
        "counts": dict(outcome.counts),
        "conditions": dict(outcome.conditions),
        "machine": outcome.machine.model_dump(mode="json"),
        "rows": [asdict(row) for row in outcome.rows],
    }


def as_markdown(outcome: Outcome) -> str:
    """A section for each part."""
    return "\n".join(_lines(outcome)) + "\n"


def _lines(outcome: Outcome) -> Iterator[str]:
    yield from (f"# The first day on this machine, {outcome.created}", "", summary(outcome), "")
    if outcome.busy:
        yield from (f"**{outcome.busy}**", "")
    if outcome.double:
        yield from (f"**Rows that say `(double)` ran {WARNING}.**", "")
    yield from overview(outcome.rows)
    for part in PARTS.values():
        rows = [row for row in outcome.rows if row.part == part.name]
        if rows:
            yield from (f"## {part.title}", "")
            yield from _machine(rows) if part.name == MACHINE else _pivot(rows)
            yield from _notes(rows)


def overview(rows: Sequence[Row]) -> Iterator[str]:
    """One table of it all: a line for each backend that opens, a column for each part."""
    parts = [name for name in PARTS if name != MACHINE and any(row.part == name for row in rows)]
    cells: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        where = row.where.removeprefix(ON)
        by_a_peer = row.part == "latency" and where == row.where and row.state not in UNDONE
        if row.part in parts and not by_a_peer and (row.state != "skipped" or where in cells):
            cells.setdefault(where, {}).setdefault(row.part, Counter())[row.state] += 1
    lines = [(where, *(counted(found.get(part, Counter())) for part in parts)) for where, found in cells.items()]
    yield from table(("on", *parts), lines)


def counted(states: Counter[str]) -> str:
    """How the rows of one part went, in a cell."""
    words = {"passed": "ok", "failed": "FAILED", "stopped": "STOPPED", "measured": "figures"}
    return ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state]) or NOTHING


def _machine(rows: Sequence[Row]) -> Iterator[str]:
    facts = [(row.what, row.detail) for row in rows if not row.subject]
    packages = {row.what: row.detail for row in rows if row.subject == "package"}
    there = [f"{name} {found}" for name, found in packages.items() if found != "missing"]
    if there:
        facts.append(("packages", ", ".join(there)))
        facts.append(("missing", ", ".join(name for name in packages if packages[name] == "missing") or "none"))
    yield from table(("", "found"), facts)
    opening = [row for row in rows if row.subject not in ("", "package") and row.state != "failed"]
    shown = []
    for row in opening:
        name = f"{row.subject} (double)" if row.detail == WARNING else row.subject
        shown.append((name, "yes" if row.state == "passed" else "no", row.detail))
    yield from table(("backend", "opens", "from the GPU to the package"), shown)


def _pivot(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each subject and place, a column for each thing that was asked."""
    rows = [row for row in rows if row.what != "all"]
    columns = list(dict.fromkeys(row.what for row in rows))
    cells = {(row.subject, row.where, row.what): _cell(row) for row in rows}
    subjects = list(dict.fromkeys(row.subject for row in rows))
    lines = []
    for subject in subjects:
        for where in dict.fromkeys(row.where for row in rows if row.subject == subject):
            found = [cells.get((subject, where, column), "") for column in columns]
            if any(cell not in ("", NOTHING) for cell in found):
                lines.append((subject, where, *found))
    yield from table(("of", "on", *columns), lines)


def _cell(row: Row) -> str:
    if row.state == "skipped":
        return NOTHING
    return f"**FAILED** {row.figure}".strip() if row.state == "failed" else row.figure or "yes"


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """What failed and what was skipped, with the reasons; the same reason once."""
    for state, title in (("failed", "Failed"), ("stopped", "Stopped"), ("skipped", "Not measured")):
        by_reason: dict[str, list[str]] = {}
        for row in rows:
            if row.state == state and (row.part != MACHINE or state in UNDONE):
                what = "" if row.what == "all" else row.what
                name = " ".join(filter(None, (row.where, row.subject, what)))
                by_reason.setdefault(row.detail, []).append(name)
        if by_reason:
            yield f"{title}:"
            yield ""
            yield from (f"- {_many(names)}: {escaped(reason)}" for reason, names in by_reason.items())
            yield ""


def _many(names: Sequence[str], most: int = 4) -> str:
    shown = "; ".join(escaped(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """In Markdown; nothing where there are no lines."""
    lines = list(lines)
    if not lines:
        return
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(escaped(cell) for cell in line)} |" for line in lines)
    yield ""


def escaped(text: str) -> str:
    """For a cell: a bar ends none, and a line break no line."""
    return " ".join(text.replace("|", "\\|").split())


def summary(outcome: Outcome) -> str:
    """How it went, in a sentence."""
    counts, machine = outcome.counts, outcome.machine
    bad = [f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state]]
    verdict = " and ".join(bad) or ("every check passed" if counts["passed"] else "figures alone, and no checks")
    if not outcome.found:
        beyond = " but what the machine is" if counts["passed"] else ""
        verdict = " and ".join((NOTHING_FOUND + beyond, *bad))
    return (
        f"{verdict}: {counts['passed']} passed, {counts['measured']} figures, {counts['skipped']} not measured, "
        f"in {outcome.seconds:.0f} s; {', '.join(machine.gpus) or 'no NVIDIA GPU'}; "
        f"{machine.cpu}, {machine.cores} cores"
    )
