"""What a model of music makes: piano rolls, notes on a grid of time steps and pitches for each track."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.spec.fields import Range
from gensdk_runtime.spec.kinds import OUTPUTS, OutputSpec
from gensdk_runtime.spec.strict import StrictModel

PITCHES = 128
"""Of MIDI: 60 is the middle C (C4), 69 the A of 440 Hz."""
OCTAVE = 12
MAX_MELODIC = 15
"""MIDI has 16 channels, and one of them, the tenth, is for drums."""


class TrackSpec(StrictModel):
    """One track: its `name`; `program`, the instrument of General MIDI (0 .. 127, 0 a piano); `is_drum`: pitches
    name drums, and it sounds on channel 10 whatever its program."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    program: Annotated[int, Field(ge=0, le=127)] = 0
    is_drum: bool = False


class RollFormat(StrictModel):
    """Piano rolls of one size: [tracks, steps, pitches].

    `lowest_pitch`: the MIDI number of the first of `pitches`. A beat, a quarter note, is `steps_per_beat` steps, a
    bar `beats_per_bar` beats, and there are `bars` of them. `tempo`: beats a minute.
    """

    tracks: Annotated[tuple[TrackSpec, ...], Field(min_length=1, max_length=16)]
    lowest_pitch: Annotated[int, Field(ge=0, lt=PITCHES)]
    pitches: Annotated[int, Field(ge=1, le=PITCHES)]
    steps_per_beat: Annotated[int, Field(ge=1, le=96)] = 4
    beats_per_bar: Annotated[int, Field(ge=1, le=32)] = 4
    bars: Annotated[int, Field(ge=1, le=4096)]
    tempo: Annotated[float, Field(ge=10, le=500)] = 120.0

    @model_validator(mode="after")
    def _check_pitches(self) -> Self:
        if self.lowest_pitch + self.pitches > PITCHES:
            raise ValueError(f"{self.pitches} pitches from {self.lowest_pitch} on end above 127, the highest")
        if sum(not track.is_drum for track in self.tracks) > MAX_MELODIC:
            raise ValueError(f"MIDI has channels for {MAX_MELODIC} tracks beside drums")
        return self

    @property
    def steps_per_bar(self) -> int:
        """Steps of one bar."""
        return self.steps_per_beat * self.beats_per_bar

    @property
    def steps(self) -> int:
        """Steps of all bars."""
        return self.bars * self.steps_per_bar

    @property
    def seconds_per_step(self) -> float:
        """As the tempo has it."""
        return 60.0 / (self.tempo * self.steps_per_beat)


@OUTPUTS.register
class PianorollSpec(RollFormat, OutputSpec):
    """The piano rolls a model makes: float32 [n, tracks, steps, pitches], 1 where a note sounds and 0 elsewhere.

    Thresholds are in the model's graph: a value is one or zero, and nothing is left to be decided later.
    """

    discrete_step: ClassVar[float | None] = 1.0

    kind: Literal["pianoroll"] = "pianoroll"
    value_range: Range = (0.0, 1.0)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.value_range != (0.0, 1.0):
            raise ValueError(f"values of a piano roll are 0 and 1, not {list(self.value_range)}")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(tracks, steps, pitches)."""
        return (len(self.tracks), self.steps, self.pitches)
