"""How sounds are beside others as sounds: loudness, silence, clipping, and the long-term average spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.sounds import level_of
from gensdk_runtime.media.spectrogram import FLOOR, mel_spectrogram

Sounds = Sequence[NDArray[np.float32]]
BANDS = 32
WINDOW, HOP = 0.032, 0.016
"""Seconds."""
QUIETEST = -80.0
"""dB of full scale, below which bands are taken for alike."""


@dataclass(frozen=True)
class SoundLevels:
    """Of a set of sounds: `rms`, mean of their loudness in dB of full scale; `silent`, mean share of 10 ms pieces
    below -60 dB; `beyond`, share of all samples beyond full scale; `spectrum`, dB of the mean power in each of 32
    mel bands, over all pieces of all sounds."""

    rms: float
    silent: float
    beyond: float
    spectrum: NDArray[np.float64]

    def spectrum_off(self, other: SoundLevels) -> float:
        """Root mean square over the bands of the difference of two spectra, in dB, each at its own loudness: only
        the form is compared."""
        own, others = (np.maximum(each.spectrum, QUIETEST) for each in (self, other))
        difference = own - others
        return float(np.sqrt(((difference - difference.mean()) ** 2).mean()))


def sound_levels(sounds: Sounds, sample_rate: int) -> SoundLevels:
    """The levels of `sounds`, each float32 [samples, channels]; those without samples count as silent.

    Raises :class:`InputError` where there are none, and for NaN.
    """
    full = [sound for sound in sounds if len(sound)]
    if not full or not all(np.isfinite(sound).all() for sound in full):
        raise InputError("expected sounds with finite samples, got none or NaN; look at the model")
    levels = [level_of(sound, sample_rate) for sound in full]
    size, hop = max(2, round(WINDOW * sample_rate)), max(1, round(HOP * sample_rate))
    power, pieces = np.zeros(BANDS), 0
    for sound in full:
        found = mel_spectrogram(sound.mean(axis=1), sample_rate, size=size, hop=hop, bands=BANDS)
        power += (10 ** (found.astype(np.float64) / 10)).sum(axis=0)
        pieces += len(found)
    empty = len(sounds) - len(full)
    return SoundLevels(
        rms=float(np.mean([max(FLOOR, level.rms) for level in levels] + [FLOOR] * empty)),
        silent=float(np.mean([level.silent for level in levels] + [1.0] * empty)),
        beyond=sum(int((np.abs(sound) > 1).sum()) for sound in full) / sum(sound.size for sound in full),
        spectrum=10 * np.log10(power / pieces),
    )
