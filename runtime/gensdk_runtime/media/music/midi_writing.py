"""MIDI files of music on a grid: format 1, a track for the tempo and one for each of the music's."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from gensdk_runtime.media.music.notes import Music, joined
from gensdk_runtime.spec.pianoroll import RollFormat, TrackSpec

TICKS_PER_BEAT = 480
"""As most programs have it; less where steps don't divide it."""
VELOCITY = 80
"""Of each note; a piano roll knows none."""
DRUMS = 9
"""The channel of drums, from 0."""


def encode_midi(pieces: Sequence[Music]) -> bytes:
    """The bytes of one MIDI file of `pieces`, at least one, of one format; several with a bar of silence between.

    A held note is one note. Tempo, time signature, names and programs of tracks stand in the file; silence at the
    end is kept by its length.
    """
    music = joined(pieces)
    form = music.format
    step = max(1, TICKS_PER_BEAT // form.steps_per_beat)
    chunks = [_chunk(_conductor(form, form.steps * step))]
    channels = _channels(form.tracks)
    for place, track in enumerate(form.tracks):
        events = []
        for note in music.notes:
            if note.track == place:
                on, off = note.start * step, (note.start + note.duration) * step
                events.append((on, 1, bytes((0x90 | channels[place], note.pitch, VELOCITY))))
                events.append((off, 0, bytes((0x80 | channels[place], note.pitch, 0))))
        chunks.append(_chunk(_track(track, channels[place], sorted(events), form.steps * step)))
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), step * form.steps_per_beat)
    return header + b"".join(chunks)


def _channels(tracks: Sequence[TrackSpec]) -> list[int]:
    """One of its own for each track, the tenth for all drums."""
    melodic = iter(channel for channel in range(16) if channel != DRUMS)
    return [DRUMS if track.is_drum else next(melodic) for track in tracks]


def _conductor(form: RollFormat, end: int) -> bytes:
    tempo = _meta(0x51, round(60_000_000 / form.tempo).to_bytes(3, "big"))
    signature = _meta(0x58, bytes((form.beats_per_bar, 2, 24, 8)))  # quarters; 24 clocks and 8 32nds to each
    return b"\0" + tempo + b"\0" + signature + _variable(end) + _meta(0x2F, b"")


def _track(track: TrackSpec, channel: int, events: Sequence[tuple[int, int, bytes]], end: int) -> bytes:
    """`events` are (tick, order, message), sorted: where a note ends and begins again, it ends first."""
    parts = [
        b"\0",
        _meta(0x03, track.name.encode("utf-8", "replace")),
        b"\0",
        bytes((0xC0 | channel, track.program)),
    ]
    at = 0
    for tick, _, message in events:
        parts += [_variable(tick - at), message]
        at = tick
    return b"".join([*parts, _variable(end - at), _meta(0x2F, b"")])


def _meta(kind: int, data: bytes) -> bytes:
    return bytes((0xFF, kind)) + _variable(len(data)) + data


def _variable(value: int) -> bytes:
    """A number in 7 bits a byte, the highest bit saying that more follow."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(0x80 | value & 0x7F)
    return bytes(reversed(parts))


def _chunk(data: bytes) -> bytes:
    return b"MTrk" + struct.pack(">I", len(data)) + data
