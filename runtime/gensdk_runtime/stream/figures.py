"""What is measured of a stream, each second and as a whole, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, log
from typing import Any, Literal

from gensdk_runtime.stream.frame import TranslatedFrame

STAGES = ("decode", "translate", "show")
"""Read (and wait for the camera), convert and resize; run the model; compose, encode and write. They overlap."""

Ending = Literal["source", "cut", "limit", "sink", "interrupted"]

_STEP = 1.01
_SHORTEST = 1e-5  # seconds
_BUCKETS = 1 + ceil(log(1e9) / log(_STEP))  # up to 10,000 s


@dataclass(frozen=True)
class StreamFigures:
    """A second of a stream, or the whole of it.

    `seconds` measured; `frames` that reached the sink, and `fps` of them; `dropped` because newer ones came;
    `skipped`: not translated, being similar to an earlier one; `corrupt`: could not be decoded. `age_ms`: from
    capture until the sink was done, in ms by percentile ("p50", "p95", "p99"; up to 1 % too large), empty where no
    frame came. `stage_ms`: mean ms of a frame in each of :data:`STAGES`, which overlap.
    """

    seconds: float
    frames: int
    fps: float
    dropped: int
    skipped: int
    corrupt: int
    age_ms: Mapping[str, float]
    stage_ms: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def text(self) -> str:
        """One line."""
        parts = [f"{self.fps:.1f} frames/s"]
        parts += [f"{getattr(self, name)} {name}" for name in ("dropped", "skipped", "corrupt")]
        if self.age_ms:
            parts.append("age " + " / ".join(f"{value:.0f}" for value in self.age_ms.values()) + " ms")
            parts.append(", ".join(f"{stage} {value:.1f}" for stage, value in self.stage_ms.items()) + " ms")
        return "; ".join(parts)


@dataclass(frozen=True)
class StreamReport(StreamFigures):
    """The whole of a stream.

    `reconnects`: how often a live source was lost and came back. `ended`: by the source's end, by the end of a
    file that was cut before its own, by a limit of the options, by the sink, or interrupted with Ctrl-C. `live`:
    frames came in real time. `missing`: frames that a video file announces and does not hold; those that it holds
    are in `frames`, `dropped` or `corrupt`. `remarks`: what was guessed, left out or repaired, a line each.
    """

    reconnects: int
    ended: Ending
    live: bool
    missing: int = 0
    remarks: tuple[str, ...] = ()

    def text(self) -> str:
        """One line."""
        cut = f"; {self.missing} missing, the file ends early" if self.missing else ""
        return super().text() + cut


class Ages:
    """A histogram of seconds in steps of 1 %."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        """Counts one."""
        place = 0 if seconds <= _SHORTEST else ceil(log(seconds / _SHORTEST) / log(_STEP))
        self._counts[min(place, _BUCKETS - 1)] += 1
        self._total += 1

    def percentile(self, percent: float) -> float:
        """Seconds that so many percent do not exceed, rounded up to a step; there must be one."""
        wanted, seen = max(1, ceil(self._total * percent / 100)), 0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return float(_SHORTEST * _STEP**place)
        raise ValueError("no age was added")


class Tally:
    """Adds up frames. `begun`: the time of the first moment, in seconds of ``time.perf_counter``."""

    def __init__(self, begun: float, *, dropped: int = 0, corrupt: int = 0) -> None:
        self.begun = begun
        self.frames = 0
        self.skipped = 0
        self._dropped_before, self._corrupt_before = dropped, corrupt
        self._ages = Ages()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    def add(self, frame: TranslatedFrame, shown: float, now: float) -> None:
        """A frame that the sink was done with `now`, and that took it `shown` seconds."""
        self.frames += 1
        self.skipped += frame.reused
        self._ages.add(now - frame.captured)
        self._seconds["decode"] += frame.decode
        self._seconds["translate"] += frame.translate
        self._seconds["show"] += shown

    def figures(self, now: float, *, dropped: int, corrupt: int) -> StreamFigures:
        """What was added; `dropped` and `corrupt` are counted elsewhere, from the stream's beginning."""
        seconds = max(now - self.begun, 1e-9)
        ages = {f"p{p}": 1e3 * self._ages.percentile(p) for p in (50, 95, 99)} if self.frames else {}
        return StreamFigures(
            seconds=seconds,
            frames=self.frames,
            fps=self.frames / seconds,
            dropped=dropped - self._dropped_before,
            skipped=self.skipped,
            corrupt=corrupt - self._corrupt_before,
            age_ms=ages,
            stage_ms={s: 1e3 * total / self.frames for s, total in self._seconds.items()} if self.frames else {},
        )
