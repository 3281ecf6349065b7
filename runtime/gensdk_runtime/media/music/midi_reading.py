"""MIDI files as untrusted input: what can't be read right is refused in one line, what is mended is said.

A reader of its own, since it is short and must hold limits. mido 1.3 takes a time of any length, for which its own
time grows with the square (over five seconds for a file of 300 kB), and lets running status go on after a system
message, where it drops a byte and says no word; a tempo of 0 it gives back as it is.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music.midi_writing import DRUMS
from gensdk_runtime.printable import printable

MAX_BYTES = 2 << 20
"""Of a file; an hour of dense piano has less than one MiB."""
MAX_BEATS = 100_000
"""Fourteen hours at 120 beats a minute."""
MAX_TRACKS = 1024
SLOWEST, FASTEST = 4.0, 1000.0
"""Beats a minute; others are an error of the file, and are passed over."""
TEMPO = 120.0
"""Where the file has none, as the standard says."""
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
"""Of each channel message, by its upper four bits."""


@dataclass(frozen=True)
class MidiPart:
    """All notes of one track on one channel; `name` of the track, `program` as the first note begins."""

    name: str
    track: int
    channel: int
    program: int

    @property
    def is_drum(self) -> bool:
        """Whether it is on the channel of drums."""
        return self.channel == DRUMS


@dataclass(frozen=True, order=True, slots=True)
class MidiNote:
    """From tick `start` up to `end`; `part`: its place in the file's parts."""

    start: int
    part: int
    pitch: int
    end: int


@dataclass(frozen=True)
class MidiScore:
    """What a file holds. `tempo`: beats a minute at its beginning, of `tempos` in all. `beats_per_bar`: quarters
    in a bar by the first time signature. `mended`: what was not as it should be, and how it was taken, in
    words."""

    ticks_per_beat: int
    parts: tuple[MidiPart, ...]
    notes: tuple[MidiNote, ...]
    tempo: float
    tempos: int
    beats_per_bar: float
    mended: Mapping[str, int]


def read_midi(data: bytes, what: str) -> MidiScore:
    """The music of the MIDI file whose bytes are `data`; `what` names it in messages.

    Raises :class:`InputError` for what is no MIDI file of format 0 or 1 with times in beats, breaks off, is longer
    than :data:`MAX_BYTES` or :data:`MAX_BEATS`, or holds no note.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{what}: {len(data):,} bytes are more than a MIDI file may have here ({MAX_BYTES:,})")
    if len(data) < 14 or data[:4] != b"MThd":
        raise InputError(f"{what}: this is no MIDI file (it does not begin with MThd)")
    size, form, tracks, division = struct.unpack(">IHHH", data[4:14])
    if size < 6 or form not in (0, 1):
        reason = "format 2 holds pieces that don't belong together" if form == 2 else "its header is broken"
        raise InputError(f"{what}: expected a MIDI file of format 0 or 1; {reason}; export it again as format 1")
    if not 0 < division < 0x8000:
        raise InputError(f"{what}: its times are not in beats (division {division}); export it with ticks a beat")
    file = _File(data, what, division)
    file.read_tracks(8 + size, tracks)
    return file.score()


@dataclass
class _Track:
    """A track while it is read."""

    number: int
    name: str = ""
    tick: int = 0
    programs: dict[int, int] = field(default_factory=dict)
    open: dict[tuple[int, int], deque[int]] = field(default_factory=dict)
    parts: dict[int, int] = field(default_factory=dict)


class _File:
    def __init__(self, data: bytes, what: str, ticks_per_beat: int) -> None:
        self.data, self.what, self.ticks = data, what, ticks_per_beat
        self.at, self.end = 0, 0
        self.parts: list[MidiPart] = []
        self.notes: list[MidiNote] = []
        self.tempos: list[tuple[int, float]] = []
        self.signatures: list[tuple[int, float]] = []
        self.mended: Counter[str] = Counter()

    def broken(self, why: str) -> InputError:
        return InputError(f"{self.what}: broken at byte {self.at:,}: {why}; export the file again")

    def read_tracks(self, first: int, told: int) -> None:
        self.at, found = first, 0
        while len(self.data) - self.at >= 8:
            name, size = (
                self.data[self.at : self.at + 4],
                int.from_bytes(self.data[self.at + 4 : self.at + 8], "big"),
            )
            if self.at + 8 + size > len(self.data):
                raise self.broken(f"a part of {size:,} bytes goes beyond the end of the file, which was cut off")
            self.at, self.end = self.at + 8, self.at + 8 + size
            if name == b"MTrk":  # others are to be passed over, says the standard
                found += 1
                if found > MAX_TRACKS:
                    raise self.broken(f"there are more than {MAX_TRACKS} tracks")
                self._read_track(_Track(found - 1))
            self.at = self.end
        if found != told:
            self.mended["headers that tell of another number of tracks, passed over"] = 1

    def _read_track(self, track: _Track) -> None:
        status, ended = 0, False
        while self.at < self.end and not ended:
            track.tick += self._variable()
            if track.tick > MAX_BEATS * self.ticks:
                raise self.broken(f"it lasts more than {MAX_BEATS:,} beats")
            first = self._byte()
            if first == 0xFF:
                ended = self._meta(track)
            elif first in (0xF0, 0xF7):
                self._bytes(self._variable())
                status = 0  # a system message ends running status
            elif first > 0xF0:
                raise self.broken(f"a message 0x{first:02x}, which files don't hold")
            else:
                if first >= 0x80:
                    status = first
                    first = self._byte()
                if not status:
                    raise self.broken("data without a message that they belong to (running status)")
                self._message(track, status, first)
        if not ended:
            self.mended["tracks without an end, taken as they are"] += 1
        elif self.at < self.end:
            self.mended["bytes after the end of a track, left out"] += self.end - self.at
        for (channel, pitch), starts in track.open.items():
            for start in starts:
                self.mended["notes that never end, ended with their track"] += 1
                self._note(track, channel, pitch, start)
        for channel, part in track.parts.items():
            program = track.programs.get(channel, 0)
            self.parts[part] = MidiPart(track.name, track.number, channel, program)

    def _message(self, track: _Track, status: int, first: int) -> None:
        values = [first, *([self._byte()] if _DATA_BYTES[status >> 4] == 2 else [])]
        if max(values) > 0x7F:
            raise self.broken(f"a byte 0x{max(values):02x} where a message 0x{status:02x} has data")
        kind, channel = status >> 4, status & 0xF
        if kind == 0xC and channel not in track.parts:
            track.programs[channel] = first
        elif kind == 0x9 and values[1]:
            track.open.setdefault((channel, first), deque()).append(track.tick)
            if channel not in track.parts:
                track.parts[channel] = len(self.parts)
                self.parts.append(MidiPart("", track.number, channel, 0))
        elif kind in (0x8, 0x9):
            starts = track.open.get((channel, first))
            if starts:
                self._note(track, channel, first, starts.popleft())  # of several, the one that began first
            else:
                self.mended["ends of notes that did not begin, left out"] += 1

    def _note(self, track: _Track, channel: int, pitch: int, start: int) -> None:
        if track.tick > start:
            self.notes.append(MidiNote(start, track.parts[channel], pitch, track.tick))
        else:
            self.mended["notes of no length, left out"] += 1

    def _meta(self, track: _Track) -> bool:
        """True at the end of the track."""
        kind = self._byte()
        data = self._bytes(self._variable())
        if kind == 0x03 and not track.name:
            track.name = printable(data[:64].decode("utf-8", "replace")).strip()
        elif kind == 0x51:
            tempo = 60_000_000 / (int.from_bytes(data[:3], "big") or 0.5)
            if len(data) >= 3 and SLOWEST <= tempo <= FASTEST:
                self.tempos.append((track.tick, tempo))
            else:
                self.mended[f"tempos outside of {SLOWEST:g} to {FASTEST:g} beats a minute, passed over"] += 1
        elif kind == 0x58:
            if len(data) >= 2 and 1 <= data[0] <= 32 and data[1] <= 5:
                self.signatures.append((track.tick, data[0] * 4 / 2 ** data[1]))
            else:
                self.mended["time signatures that can't be, passed over"] += 1
        return kind == 0x2F

    def _byte(self) -> int:
        if self.at >= self.end:
            raise self.broken("a track ends within a message")
        value = self.data[self.at]
        self.at += 1
        return value

    def _bytes(self, count: int) -> bytes:
        if self.at + count > self.end:
            raise self.broken(f"a message of {count:,} bytes goes beyond the end of its track")
        self.at += count
        return self.data[self.at - count : self.at]

    def _variable(self) -> int:
        value = 0
        for _ in range(4):
            byte = self._byte()
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise self.broken("a number of more than four bytes")

    def score(self) -> MidiScore:
        if not self.notes:
            raise InputError(f"{self.what}: there is no note in it")
        first_tempo = min(self.tempos, key=lambda each: each[0])[1] if self.tempos else TEMPO
        first_bar = min(self.signatures, key=lambda each: each[0])[1] if self.signatures else 4.0
        return MidiScore(
            ticks_per_beat=self.ticks,
            parts=tuple(self.parts),
            notes=tuple(sorted(self.notes)),
            tempo=first_tempo,
            tempos=len(self.tempos),
            beats_per_bar=first_bar,
            mended=self.mended,
        )
