"""Notes of a MIDI file brought onto a grid of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from gensdk_runtime.media.music.midi_reading import MidiScore
from gensdk_runtime.media.music.notes import Bool
from gensdk_runtime.spec.pianoroll import PITCHES

MOVED = 0.125
"""Notes that lie further from the grid than this part of a step are counted as moved."""


def to_roll(
    score: MidiScore, tracks: Mapping[int, int], count: int, steps_per_beat: int, told: Counter[str]
) -> Bool:
    """The piano roll of `score`, bool [count, steps, 128], up to the end of its last note.

    `tracks`: for each part that is wanted, by its place in the score, the track that it becomes. Starts and ends
    go to the nearest step; a note has one step at least. A note that is struck again without a gap takes the
    last step of the former one, so that both stay notes; where that has one step alone, the two become one. What
    was moved, joined and left out is counted in `told`, in words.
    """
    scale = steps_per_beat / score.ticks_per_beat
    placed: dict[tuple[int, int], list[list[int]]] = {}
    for note in score.notes:
        if note.part not in tracks:
            told["notes of other tracks, left out"] += 1
            continue
        start = int(note.start * scale + 0.5)
        end = max(start + 1, int(note.end * scale + 0.5))
        told["notes moved to the grid"] += abs(note.start * scale - start) > MOVED
        placed.setdefault((tracks[note.part], note.pitch), []).append([start, end])
    steps = max((end for spans in placed.values() for _, end in spans), default=0)
    roll = np.zeros((count, steps, PITCHES), np.bool_)
    for (track, pitch), spans in placed.items():
        for (start, end), after in zip(spans, [*spans[1:], [steps + 1, 0]], strict=True):
            repeated = start < after[0] <= end
            if (repeated and after[0] - start == 1) or after[0] == start:
                told["notes joined with the same one before"] += 1
            roll[track, start : max(start + 1, after[0] - 1) if repeated else end, pitch] = True
    return roll
