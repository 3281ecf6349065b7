"""Music from files, whatever they are: MIDI, or voices as JSON."""

from __future__ import annotations

from pathlib import Path

from gensdk_runtime.media.audio_files import READ_SUFFIXES
from gensdk_training.data.archives import first_of
from gensdk_training.data.dataset import LoadOptions, plain_name
from gensdk_training.data.findings import Findings, SkipLog
from gensdk_training.data.midi_files import ARCHIVES, SUFFIXES, holds_midi, read_midi_files
from gensdk_training.data.piano_rolls import PianorollDataset, check_options, pianoroll_dataset
from gensdk_training.data.voices_json import SUFFIXES as JSON_SUFFIXES
from gensdk_training.data.voices_json import read_voices


def is_music(path: Path) -> bool:
    """Whether `path`, which exists, is taken for music: by its suffix, or a folder by what is in it."""
    if path.is_dir():
        return holds_midi(path)
    name = path.name.lower()
    if name.endswith(ARCHIVES):  # which may hold sounds
        return first_of(path, (*SUFFIXES, *READ_SUFFIXES)) in SUFFIXES
    return name.endswith((*SUFFIXES, *JSON_SUFFIXES))


def load_music(path: Path, options: LoadOptions) -> PianorollDataset:
    """Phrases of the music in `path`; see :func:`gensdk_training.data.load_data`.

    Raises :class:`InputError` for options of images, and for music that can't be trained on.
    """
    check_options(options)
    skipped, findings = SkipLog(), Findings()
    if path.name.lower().endswith(JSON_SUFFIXES):
        found = read_voices(path, options)
    else:
        found = read_midi_files(path, options, skipped, findings)
    dataset = pianoroll_dataset(plain_name(path.name.partition(".")[0] or path.name), found, options)
    dataset.skipped = skipped
    dataset.findings.left_out = findings.left_out
    return dataset
