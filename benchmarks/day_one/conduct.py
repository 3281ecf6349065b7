"""Runs the parts one after another, each piece in a child process with a deadline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from peers.child import BENCHMARKS, child_environment

from day_one.backends import choosable, processors_first
from day_one.double import TESTS
from day_one.parts import MACHINE, PARTS, PREPARE, TOTAL_SECONDS, Part
from day_one.result import Order, Row, State
from gensdk_runtime.host.child_process import Limits, death, end, start_module

SETTLE = 0.2
"""Seconds between two looks at a child that is working."""
LEAST = 3.0
"""Seconds without which no piece is begun."""
CHILD = "day_one.child"
UNDONE = ("failed", "stopped")
CLOSED = "it does not open here"
UNSEEN = f"the part {MACHINE} did not come to it"
OPENS = "opens"
"""What the row about a backend is called, of which the other parts are made."""


@dataclass
class Day:
    """One run of the script. `limits`: seconds of a part where they are not its own; `wanted`: backends by name,
    none: all that open."""

    order: Order
    parts: tuple[str, ...]
    say: Callable[[str], None]
    limits: Mapping[str, float] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    total: float = TOTAL_SECONDS
    child: str = CHILD
    start: float = field(default_factory=time.monotonic)
    closed: dict[str, str] = field(default_factory=dict)
    """Backends that don't open here, with the reason."""
    looked: bool = False
    """Whether the machine was looked at."""

    def rows(self) -> Iterator[Row]:
        """All rows, as they come. What the machine is has to be known for every other part."""
        machine = list(self._part(PARTS[MACHINE]))
        self._note_backends(machine)
        yield from (row for row in machine if MACHINE in self.parts or row.what == "all" or row.state in UNDONE)
        for name in self.parts:
            if name != MACHINE:
                yield from self._part(PARTS[name])

    def _note_backends(self, rows: list[Row]) -> None:
        looked = [row for row in rows if row.what == OPENS]
        self.looked = bool(looked)
        opening = [row.subject for row in looked if row.state == "passed"]
        closed = {row.subject: row.detail for row in looked if row.subject not in opening}
        bases = choosable()
        wanted = {name: bases.get(name, name) for name in self.wanted} or {
            name: name for name in [*opening, *closed]
        }
        self.closed = {name: closed.get(base, UNSEEN) for name, base in wanted.items() if base not in opening}
        for name in self.closed if self.wanted else ():
            self.say(f"NOT OPEN: {name}: {self.closed[name]}")
        chosen = [name for name in wanted if name not in self.closed]
        self.order = replace(self.order, backends=tuple(processors_first(chosen)))

    def _part(self, part: Part) -> Iterator[Row]:
        deadline, end_of_all = time.monotonic() + self.limits.get(part.name, part.seconds), self.start + self.total
        larger = "--limit" if deadline <= end_of_all else "--total"
        deadline = min(deadline, end_of_all)
        self.say(f"== {part.name}: {part.title}, at most {max(0.0, deadline - time.monotonic()):.0f} s")
        pieces = part.pieces(self.order.backends)
        if not pieces:
            none = "none of the backends asked for opens here" if self.wanted else "no backend opens here"
            words = none if self.looked else UNSEEN
            yield self._told(replace(self.order, part=part.name, piece=""), "skipped", words)
        for place, piece in enumerate(pieces):
            left = deadline - time.monotonic()
            share = left / 2 if piece == PREPARE else left / (len(pieces) - place)
            order = replace(self.order, part=part.name, piece=piece, seconds=share)
            if order.seconds < LEAST:
                words = (
                    f"{max(0.0, left):.0f} s were left for {len(pieces) - place} pieces; give a larger {larger}"
                )
                yield self._told(order, "skipped", words)
                continue
            yield from self._piece(order)
        if part.by == "backend":
            for name in self.closed:
                yield Row(part.name, name, "", "all", "skipped", detail=f"{CLOSED}: {self.closed[name]}")

    def _piece(self, order: Order) -> Iterator[Row]:
        logs = order.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        name = f"{order.part}-{order.piece}".replace(":", "-")
        said, log = logs / f"{name}.jsonl", logs / f"{name}.log"
        with said.open("wb") as output, log.open("wb") as errors:
            paths = [BENCHMARKS, *([TESTS] if order.double else [])]
            process = start_module(
                self.child,
                order.to_json(),
                limits=Limits(memory=None),  # drivers of GPUs map more than there is
                stdout=output,
                stderr=errors,
                paths=paths,
                environment=child_environment(order.folder),
            )
        until, reader = time.monotonic() + order.seconds, Reader(said)
        try:
            while (code := process.poll()) is None and time.monotonic() < until:
                yield from self._heard(reader)
                time.sleep(min(SETTLE, order.seconds / 10))
        finally:
            end(process)
        yield from self._heard(reader)
        if code != 0:
            state: State = "failed" if code is not None else "stopped"
            yield self._told(order, state, self._problem(code, order, reader, log))

    def _problem(self, code: int | None, order: Order, reader: Reader, log: Path) -> str:
        """Why a piece has not come to its end; `code` None: it was working still."""
        while_doing = f" while it was at: {reader.doing}" if reader.doing else ""
        if code is None:
            return f"took over {order.seconds:.0f} s and was stopped{while_doing}"
        if reader.failure:
            return f"{reader.failure}{while_doing}"
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{death(code)}{while_doing}" + (f": {words[-1][:300]}" if words else "")

    def _heard(self, reader: Reader) -> Iterator[Row]:
        for row in reader.rows():
            self.say(in_a_line(row))
            yield row

    def _told(self, order: Order, state: State, detail: str) -> Row:
        row = order.row("", "all", state, detail=detail)
        self.say(in_a_line(row))
        return row


class Reader:
    """The rows in a file that a child writes them to; what it is `doing`, and its `failure` at its end."""

    def __init__(self, path: Path) -> None:
        self._path, self._place, self._rest = path, 0, b""
        self.doing = self.failure = ""

    def rows(self) -> Iterator[Row]:
        """Those that came since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._place)
            data = file.read()
        self._place += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            heard = json.loads(line)
            self.doing, self.failure = heard.get("doing", self.doing), heard.get("failure", self.failure)
            if "row" in heard:
                yield Row(**heard["row"])


def in_a_line(row: Row) -> str:
    """A row for the terminal."""
    marks = {"passed": "ok", "failed": "FAILED", "measured": "", "skipped": "skipped", "stopped": "STOPPED"}
    parts = [f"{row.where:<24}", row.subject, f"{row.what}:", row.figure, marks[row.state]]
    return "  " + " ".join(part for part in (*parts, f"[{row.detail[:160]}]" if row.detail else "") if part)
