"""Short sounds as small pictures, so that :mod:`gensdk_training.metrics.classifier` can tell what they say.

A picture is a mel spectrogram: 32 ms under each window, one row every 30 ms, 24 bands, from 60 dB below the
loudest one (black) up to it (white). So how loud a sound is does not matter, nor when it begins: what comes before
the first row within 35 dB of the loudest is left out, and 0.96 s are shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.spectrogram import mel_spectrogram
from gensdk_training.data.dataset import Dataset, Images
from gensdk_training.metrics.classifier import LabelledImages

ROWS, BANDS = 32, 24
WINDOW, HOP = 0.032, 0.030
"""Seconds."""
RANGE = 60.0
"""dB below the loudest band that are shown."""
BEGINS = 35.0
"""dB below the loudest row from which on a sound has begun."""
SHIFTS = (0, 1, 2)
"""Rows by which training pictures are moved later, each a picture of its own."""
QUIET = 10 ** (-80 / 20)
"""Highest amplitude of what is silence; mu-law's silence is 8.6e-5."""


def sound_pictures(sounds: Sequence[NDArray[np.float32]], sample_rate: int, *, shift: int = 0) -> Images:
    """uint8 [n, 32, 24, 1] of sounds float32 [samples] or [samples, channels], whose channels are averaged.

    `shift`: rows of the lowest value before each. Silence, and a sound without samples, is all black. Raises
    :class:`InputError` for NaN.
    """
    pictures = np.zeros((len(sounds), ROWS, BANDS, 1), np.uint8)
    for at, sound in enumerate(sounds):
        mono = sound.mean(axis=1) if sound.ndim == 2 else sound
        if not np.isfinite(mono).all():
            raise InputError(f"sound {at} has NaN or infinite samples; look at the model")
        if mono.size:
            rows = _rows(mono, sample_rate)[: ROWS - shift]
            pictures[at, shift : shift + len(rows), :, 0] = rows
    return pictures


def labelled_pictures(dataset: Dataset, *, training: bool = False) -> LabelledImages:
    """All sounds of `dataset`, as far as they go, with their classes; for `training` moved by each of the
    :data:`SHIFTS`. :class:`InputError` for data without labels, or of another kind."""
    audio = dataset.info.require_audio()
    batch = dataset.batch(np.arange(len(dataset)))
    if batch.labels is None or batch.lengths is None:
        raise InputError(f"{dataset.info.name!r} has no labels, which a classifier needs")
    sounds = [sound[:length] for sound, length in zip(batch.images, batch.lengths.tolist(), strict=True)]
    shifts = SHIFTS if training else (0,)
    pictures = [sound_pictures(sounds, audio.sample_rate, shift=shift) for shift in shifts]
    return LabelledImages(np.concatenate(pictures), np.tile(batch.labels, len(shifts)))


def _rows(mono: NDArray[np.float32], sample_rate: int) -> NDArray[np.uint8]:
    """[n, BANDS] from where the sound begins."""
    size, hop = max(2, round(WINDOW * sample_rate)), max(1, round(HOP * sample_rate))
    peak = float(np.abs(mono).max())
    if peak < QUIET:
        return np.zeros((0, BANDS), np.uint8)
    scaled = (mono / peak).astype(np.float32)  # first, since a spectrogram ends at a fixed level
    found = mel_spectrogram(scaled, sample_rate, size=size, hop=hop, bands=BANDS)
    top = float(found.max())
    first = int((found.max(axis=1) >= top - BEGINS).argmax())
    shown = np.clip(1 + (found[first:] - top) / RANGE, 0, 1)
    return np.asarray(np.rint(shown * 255), np.uint8)
