"""Music for tests: a few short pieces of two voices, as a file that data can be loaded from."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from gensdk_runtime.spec.pianoroll import PianorollSpec, TrackSpec
from gensdk_training.data.load import load_data
from gensdk_training.data.piano_rolls import PianorollDataset

PIECES, BARS = 220, 4
SCALE = (0, 2, 4, 5, 7, 9, 11)
FORM = PianorollSpec(
    tracks=(TrackSpec(name="melody", program=73), TrackSpec(name="bass", program=32)),
    lowest_pitch=48,
    pitches=24,
    bars=2,
)


def voices(piece: int) -> list[list[int]]:
    """[steps][2]: a melody that walks up and down a scale in quarters, over a bass in halves."""
    steps = []
    for step in range(BARS * 16):
        walk = (step // 4 * (piece + 1) + piece) % len(SCALE)
        steps.append(
            [60 + SCALE[walk], -1 if piece == 0 and step < 8 else 48 + SCALE[step // 8 * (piece + 2) % 7]]
        )
    return steps


@functools.cache
def voices_file() -> Path:
    """A file of them: training, and a test part."""
    path = Path(tempfile.mkdtemp(prefix="gensdk-music-")) / "voices.json"
    parts = {"train": [voices(piece) for piece in range(PIECES)], "test": [voices(PIECES + 1), voices(PIECES + 2)]}
    path.write_text(json.dumps(parts))
    return path


@functools.cache
def phrases() -> PianorollDataset:
    """The training part of them."""
    data = load_data(str(voices_file()))
    assert isinstance(data, PianorollDataset)
    return data
