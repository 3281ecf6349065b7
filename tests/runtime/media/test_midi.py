"""MIDI files: what is written comes back, another reader agrees, what is broken is refused, or mended and said."""

from __future__ import annotations

import io
import struct
from collections import Counter

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music.midi_reading import MAX_BYTES, MidiNote, MidiScore, read_midi
from gensdk_runtime.media.music.midi_writing import encode_midi
from gensdk_runtime.media.music.notes import Bool, Music, Note, joined
from gensdk_runtime.media.music.quantizing import to_roll
from gensdk_runtime.spec.pianoroll import PITCHES, RollFormat, TrackSpec

FORM = RollFormat(
    tracks=(TrackSpec(name="flute", program=73), TrackSpec(name="drums", is_drum=True), TrackSpec(name="Baß")),
    lowest_pitch=60,
    pitches=7,
    steps_per_beat=3,
    beats_per_bar=2,
    bars=2,
    tempo=93.0,
)
SHAPE = (len(FORM.tracks), FORM.steps, FORM.pitches)
rolls = arrays.arrays(np.bool_, SHAPE)


def whole(roll: Bool) -> Bool:
    """[tracks, steps, 128]."""
    padded = np.zeros((*roll.shape[:2], PITCHES), np.bool_)
    padded[:, :, FORM.lowest_pitch : FORM.lowest_pitch + FORM.pitches] = roll
    return padded


def read_back(data: bytes, steps: int) -> tuple[Bool, MidiScore]:
    score = read_midi(data, "x.mid")
    tracks = {place: [t.name for t in FORM.tracks].index(part.name) for place, part in enumerate(score.parts)}
    roll = to_roll(score, tracks, len(FORM.tracks), FORM.steps_per_beat, Counter())
    padded = np.zeros((len(roll), steps, PITCHES), np.bool_)
    padded[:, : roll.shape[1]] = roll
    return padded, score


@given(rolls.filter(lambda roll: bool(roll.any())))
@settings(max_examples=60, deadline=None)
def test_a_roll_comes_back_from_its_file(roll: Bool) -> None:
    music = Music.from_roll(roll, FORM)
    np.testing.assert_array_equal(music.roll, roll)
    back, score = read_back(music.midi(), FORM.steps)
    np.testing.assert_array_equal(back, whole(roll))
    assert not score.mended
    assert score.tempo == pytest.approx(93.0, rel=1e-5)
    assert score.beats_per_bar == 2
    for part in score.parts:
        (track,) = [track for track in FORM.tracks if track.name == part.name]
        assert (part.program, part.is_drum) == (track.program, track.is_drum)


@given(rolls)
@settings(max_examples=30, deadline=None)
def test_mido_reads_the_same_notes(roll: Bool) -> None:
    music = Music.from_roll(roll, FORM)
    file = mido.MidiFile(file=io.BytesIO(music.midi()))
    step = file.ticks_per_beat // FORM.steps_per_beat
    assert len(file.tracks) == 1 + len(FORM.tracks)
    found = []
    for number, track in enumerate(file.tracks[1:]):
        at, begun = 0, {}
        for message in track:
            at += message.time
            if message.type == "note_on":
                begun[message.note] = at
            elif message.type == "note_off":
                start = begun.pop(message.note)
                found.append(Note(start // step, number, message.note, (at - start) // step))
    assert tuple(sorted(found)) == music.notes
    assert file.length == pytest.approx(music.seconds, rel=1e-4)


def test_several_pieces_follow_each_other_a_bar_apart() -> None:
    roll = np.zeros(SHAPE, np.bool_)
    roll[0, 0, 0] = True
    piece = Music.from_roll(roll, FORM)
    both = joined([piece, piece])
    assert both.format.bars == 5
    assert [note.start for note in both.notes] == [0, 18]
    assert len(read_midi(encode_midi([piece, piece]), "x").notes) == 2


def test_steps_in_a_row_are_one_note_and_times_are_in_seconds() -> None:
    roll = np.zeros(SHAPE, np.bool_)
    roll[2, 3:6, 1] = roll[2, 7, 1] = True
    held, again = Music.from_roll(roll, FORM).notes
    assert held == Note(start=3, track=2, pitch=61, duration=3)
    assert again.duration == 1
    assert Music.from_roll(roll, FORM).times(held) == pytest.approx((60 / 93, 60 / 93))
    with pytest.raises(
        InputError, match=r"expected a roll \[tracks, steps, pitches\] of \[3, 12, 7\], got \[3, 12, 8\]"
    ):
        Music.from_roll(np.zeros((3, 12, 8)), FORM)


def track(*events: bytes, end: bool = True) -> bytes:
    data = b"".join(events) + (b"\0\xff\x2f\0" if end else b"")
    return b"MTrk" + struct.pack(">I", len(data)) + data


def file(*tracks: bytes, form: int = 1, division: int = 480, told: int | None = None) -> bytes:
    count = len(tracks) if told is None else told
    return b"MThd" + struct.pack(">IHHH", 6, form, count, division) + b"".join(tracks)


ON, OFF = b"\0\x90\x40\x50", b"\x83\x60\x80\x40\0"
"""A note of one beat."""
HOSTILE = {
    "nothing": (b"", "no MIDI file"),
    "another file": (b"RIFF" + bytes(40), "no MIDI file"),
    "format 2": (file(track(ON, OFF), form=2), "format 2 holds pieces that don't belong together"),
    "format 9": (file(track(ON, OFF), form=9), "its header is broken"),
    "no ticks": (file(track(ON, OFF), division=0), "not in beats"),
    "frames a second": (file(track(ON, OFF), division=0xE728), "not in beats"),
    "no track": (file(), "there is no note in it"),
    "no note": (file(track()), "there is no note in it"),
    "a billion ticks": (file(track(*[b"\xff\xff\xff\x7f\x90\x40\x50"] * 4)), "it lasts more than"),
    "a time without end": (file(track(b"\xff" * 1000)), "a number of more than four bytes"),
    "cut off": (file(track(ON, OFF))[:-6], "goes beyond the end of the file"),
    "ends within a message": (file(track(b"\0\x90\x40", end=False)), "a track ends within a message"),
    "no status": (file(track(b"\0\x40\x50")), "running status"),
    "status after a system message": (file(track(ON, b"\0\xf0\x01\xf7", b"\0\x40\0")), "running status"),
    "data above 127": (file(track(b"\0\x90\x40\xc8")), "a byte 0xc8 where a message 0x90 has data"),
    "a system message": (file(track(b"\0\xf8")), "a message 0xf8"),
    "a text too long": (file(track(b"\0\xff\x01\xff\xff\xff\x7f")), "goes beyond the end of its track"),
    "too many tracks": (file(*[track()] * 1100, told=1100), "more than 1024 tracks"),
    "too large": (bytes(MAX_BYTES + 1), "more than a MIDI file may have"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_broken_is_refused_in_one_line(name: str) -> None:
    data, message = HOSTILE[name]
    with pytest.raises(InputError, match=message) as caught:
        read_midi(data, "tune.mid")
    assert str(caught.value).startswith("tune.mid: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


TEMPO_0 = b"\0\xff\x51\x03\0\0\0"
MENDED = {
    "tempo 0": (file(track(TEMPO_0, ON, OFF)), "tempos outside of 4 to 1000", [(0, 480)]),
    "no end of a note": (file(track(ON, b"\x83\x60\xb0\0\0")), "notes that never end", [(0, 480)]),
    "no begin of a note": (file(track(ON, OFF, OFF)), "ends of notes that did not begin", [(0, 480)]),
    "no length": (file(track(ON, b"\0\x80\x40\0", ON, OFF)), "notes of no length", [(0, 480)]),
    "no end of a track": (file(track(ON, OFF, end=False)), "tracks without an end", [(0, 480)]),
    "a tail": (file(track(ON, OFF, b"\0\xff\x2f\0", b"rest")), "bytes after the end of a track", [(0, 480)]),
    "told of more": (file(track(ON, OFF), told=3), "another number of tracks", [(0, 480)]),
    "a bar of 0": (
        file(track(b"\0\xff\x58\x04\0\2\x18\x08", ON, OFF)),
        "time signatures that can't be",
        [(0, 480)],
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_mended_is_said(name: str) -> None:
    data, message, notes = MENDED[name]
    score = read_midi(data, "tune.mid")
    assert [(note.start, note.end) for note in score.notes] == notes
    (said,) = [text for text in score.mended if message in text]
    assert score.mended[said] >= 1
    assert score.tempo == 120.0


def test_a_note_struck_as_the_former_one_ends_is_a_note_of_its_own() -> None:
    """Many programs write the new note before the end of the old one, at the same time."""
    again = track(ON, b"\x83\x60\x90\x40\x50", b"\0\x80\x40\0", OFF)
    score = read_midi(file(again), "x")
    assert [(note.start, note.end) for note in score.notes] == [(0, 480), (480, 960)]
    told: Counter[str] = Counter()
    roll = to_roll(score, {0: 0}, 1, 4, told)
    assert np.flatnonzero(roll[0, :, 64]).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert not told["notes joined with the same one before"]
    assert to_roll(score, {0: 0}, 1, 1, told).sum() == 2  # a beat each: no step is left between them
    assert told["notes joined with the same one before"] == 1
    assert to_roll(score, {}, 1, 4, told).size == 0
    assert told["notes of other tracks, left out"] == 2


def test_running_status_and_unknown_chunks_are_read() -> None:
    data = file(
        b"XFIH" + struct.pack(">I", 3) + b"abc", track(ON, b"\x83\x60\x40\0", b"\0\x43\x50", b"\x83\x60\x43\0")
    )
    score = read_midi(data, "x")
    assert [(note.pitch, note.start, note.end) for note in score.notes] == [(64, 0, 480), (67, 480, 960)]


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_noise_is_read_or_refused(noise: bytes, at: int) -> None:
    """Whatever lies in a track, or in place of some bytes of a real file: a score with notes, or one line."""
    real = bytearray(Music.from_roll(np.ones(SHAPE), FORM).midi())
    real[at : at + len(noise)] = noise
    assert len(real) < MAX_BYTES
    for data in (file(track(noise)), bytes(real)):
        notes = read_or_refused(data)
        assert all(0 <= note.pitch < PITCHES and note.start < note.end for note in notes)


def read_or_refused(data: bytes) -> tuple[MidiNote, ...]:
    """The notes, at least one; none of a file that was refused in one line."""
    try:
        notes = read_midi(data, "x").notes
    except InputError as refusal:
        if "\n" in str(refusal):
            raise
        return ()
    assert notes
    return notes
