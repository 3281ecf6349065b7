"""Music as an application takes it: notes with their times, and the piano roll that they are.

A roll says of each step, pitch and track whether a note sounds, and so can't tell a note that is held from one
that is struck again without a gap. One rule everywhere: steps in a row are *one* note, held. Music that is read
keeps its repeated notes by a step of silence before each (see :mod:`gensdk_runtime.media.music.quantizing`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.pianoroll import RollFormat

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, order=True, slots=True)
class Note:
    """One note: it begins at step `start` and sounds for `duration` steps. `pitch`: of MIDI, 0 .. 127, 69 is the A
    of 440 Hz. `track`: its place in the format's tracks."""

    start: int
    track: int
    pitch: int
    duration: int


@dataclass(frozen=True)
class Music:
    """One piece: its `notes`, in the order in which they begin, and the `format` that says what a step is.

    Pieces can be compared; two are equal where their notes and formats are.
    """

    notes: tuple[Note, ...]
    format: RollFormat

    @classmethod
    def from_roll(cls, roll: NDArray[Any], form: RollFormat) -> Self:
        """The notes of `roll` [tracks, steps, pitches], of which all that is above 1/2 sounds.

        Raises :class:`InputError` for another shape.
        """
        expected = (len(form.tracks), form.steps, form.pitches)
        if roll.shape != expected:
            raise InputError(
                f"expected a roll [tracks, steps, pitches] of {list(expected)}, got {list(roll.shape)}"
            )
        track, pitch, start, end = runs(roll > 0.5)
        return cls(
            tuple(
                sorted(
                    Note(int(s), int(t), int(p) + form.lowest_pitch, int(e - s))
                    for t, p, s, e in zip(track, pitch, start, end, strict=True)
                )
            ),
            form,
        )

    @classmethod
    def beginning(cls, roll: NDArray[Any], form: RollFormat, steps: int) -> Self:
        """As :meth:`from_roll`, of the first `steps` steps: as many bars as hold them, at least one, and silence
        in the last one behind them."""
        bars = min(form.bars, max(1, -(-steps // form.steps_per_bar)))
        held = roll[:, : bars * form.steps_per_bar].copy()
        held[:, steps:] = 0
        return cls.from_roll(held, form.model_copy(update={"bars": bars}))

    @property
    def roll(self) -> Bool:
        """bool [tracks, steps, pitches]: whether a note sounds."""
        form = self.format
        roll = np.zeros((len(form.tracks), form.steps, form.pitches), np.bool_)
        for note in self.notes:
            roll[note.track, note.start : note.start + note.duration, note.pitch - form.lowest_pitch] = True
        return roll

    @property
    def seconds(self) -> float:
        """How long it lasts, silence at its end among it."""
        return self.format.steps * self.format.seconds_per_step

    def times(self, note: Note) -> tuple[float, float]:
        """When `note` begins, and for how long it sounds, in seconds."""
        step = self.format.seconds_per_step
        return note.start * step, note.duration * step

    def midi(self) -> bytes:
        """The bytes of a MIDI file of it."""
        from gensdk_runtime.media.music.midi_writing import encode_midi

        return encode_midi([self])

    def sound(self, rate: int = 44100) -> NDArray[np.float32]:
        """What it sounds like: float32 [samples] within -1 .. 1, at `rate` samples a second, mono.

        See :mod:`gensdk_runtime.media.music.synthesizer`.
        """
        from gensdk_runtime.media.music.synthesizer import synthesize

        return synthesize([self], rate)


def runs(roll: Bool) -> tuple[Int64, Int64, Int64, Int64]:
    """The notes of `roll` [tracks, steps, pitches]: their tracks, pitches, first steps and the steps after their
    last; steps in a row are one note."""
    turned = np.zeros((roll.shape[0], roll.shape[2], roll.shape[1] + 2), np.int8)
    turned[:, :, 1:-1] = roll.transpose(0, 2, 1)
    change = np.diff(turned, axis=2)
    track, pitch, start = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[2]  # in the same order: runs of one row take turns
    return track, pitch, start, end


def joined(pieces: Iterable[Music]) -> Music:
    """All `pieces`, which share a format but for their bars, as one: one after the other, with a bar of silence
    between."""
    parts = list(pieces)
    form, first, notes = parts[0].format, 0, list[Note]()
    for piece in parts:
        begin = first * form.steps_per_bar
        notes += [Note(note.start + begin, note.track, note.pitch, note.duration) for note in piece.notes]
        first += piece.format.bars + 1
    return Music(tuple(notes), form.model_copy(update={"bars": first - 1}))
