"""Sounds of a few samples, for families that learn sounds."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from gensdk_training.data.load import load_data
from gensdk_training.data.sound_set import SoundDataset
from support.sounds import tone, wav

RATE = 1000


@functools.cache
def short_sounds_folder() -> Path:
    """A folder of spoken digits that are none, of 3 classes and 12 to 24 samples, 240 in all."""
    folder = Path(tempfile.mkdtemp(prefix="gensdk-sounds-")) / "short"
    folder.mkdir()
    for digit in range(3):
        for take in range(80):
            sound = tone((12 + (5 * take + digit) % 13) / RATE, RATE, 60.0 * (digit + 1), 0.3)
            (folder / f"{digit}_ann_{take}.wav").write_bytes(wav(sound, RATE))
    return folder


@functools.cache
def short_sounds() -> SoundDataset:
    """All of them."""
    data = load_data(str(short_sounds_folder()))
    assert isinstance(data, SoundDataset)
    return data
