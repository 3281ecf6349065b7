"""Rows: what a part finds, one fact each. And orders: what a child process is to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gensdk_runtime.backends.onnxruntime.backend import TF32
from gensdk_runtime.printable import printable

State = Literal["passed", "failed", "measured", "skipped", "stopped"]
MOST_WORDS = 600
"""Characters of a row's detail."""


@dataclass(frozen=True)
class Row:
    """One fact. `where`: the backend or peer; `subject`: the bundle, frame or workload, with its conditions.

    `state`: of a check passed or failed, measured where nothing is asked for, skipped where `detail` says why it
    could not be had, stopped where a piece was not over in its time. `value` in `unit`, with the 95 % interval
    from `low` to `high` where there is one; `shown`: what tables say in its place.
    """

    part: str
    where: str
    subject: str
    what: str
    state: State
    value: float | None = None
    unit: str = ""
    detail: str = ""
    low: float | None = None
    high: float | None = None
    shown: str = ""

    def to_line(self) -> str:
        """As one line of JSON."""
        return json.dumps({"row": asdict(replace(self, detail=printable(self.detail)[:MOST_WORDS]))})

    @property
    def figure(self) -> str:
        """The value as text; empty where there is none."""
        if self.shown:
            return self.shown
        if self.value is None:
            return ""
        interval = "" if self.low is None or self.high is None else f" ({self.low:.4g} .. {self.high:.4g})"
        return f"{self.value:.4g}{' ' if self.unit else ''}{self.unit}{interval}"


@dataclass(frozen=True)
class Order:
    """What a child is to do: a `piece` of a `part`.

    `root`: an absolute folder for all that is made; `seconds`: the time that it has; `backends`: those that open
    here; `double`: TensorRT's run on a GPU that the CPU plays. `bundles`, `batches` and `frames` (height, width):
    what is tried.
    """

    part: str
    piece: str
    root: str
    seconds: float
    backends: tuple[str, ...] = ()
    double: bool = False
    bundles: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 8, 64)
    frames: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> str:
        """As text for :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What :meth:`to_json` wrote."""
        found = json.loads(text)
        for name in ("backends", "bundles", "batches"):
            found[name] = tuple(found[name])
        return cls(**{**found, "frames": tuple((height, width) for height, width in found["frames"])})

    @property
    def folder(self) -> Path:
        """The folder for all that is made."""
        return Path(self.root)

    @property
    def where(self) -> str:
        """The piece as rows name it: a double is always called one."""
        return f"{self.piece} (double)" if self.on_double else self.piece

    @property
    def on_double(self) -> bool:
        """Whether the piece is a backend on the double."""
        return self.double and self.piece.startswith("tensorrt")

    def row(self, subject: str, what: str, state: State, value: float | None = None, **more: Any) -> Row:
        """A row of this piece."""
        where = more.pop("where", self.where)
        return Row(self.part, where, subject, what, state, value, **more)

    def check(self, subject: str, what: str, ok: bool, value: float | None = None, **more: Any) -> Row:
        """The row of a check."""
        return self.row(subject, what, "passed" if ok else "failed", value, **more)

    def bounded(self, subject: str, what: str, ok: bool, value: float | None = None, **more: Any) -> Row:
        """The same of a bound that fp32 keeps; with TF32, which is asked for by name, it is a figure."""
        if not rounds(more.get("where", self.piece)):
            return self.check(subject, what, ok, value, **more)
        words = f"{more.pop('detail', '')}; TF32 was asked for and {'keeps' if ok else 'does not keep'} it"
        return self.row(subject, what, "measured", value, detail=words.removeprefix("; "), **more)


def rounds(backend: str) -> bool:
    """Whether the backend of this name is allowed TF32."""
    return TF32 in backend.split(":")


Found = Iterator[Row | str]
"""What a part gives: rows, and before what may take long a few words on what it is doing."""
Piece = Callable[[Order], Found]


def attempted(order: Order, subject: str, what: str, work: Callable[[], Row]) -> Row:
    """The row of `work`; where it raises, a failed one that says why."""
    try:
        return work()
    except Exception as failure:  # whatever a backend may raise on its first day; the rest goes on
        return order.row(subject, what, "failed", detail=told(failure))


def told(failure: BaseException) -> str:
    """A failure in one line."""
    return f"{type(failure).__name__}: {' '.join(str(failure).split())}"
