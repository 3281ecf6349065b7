"""Spectrograms: decibels of full scale, in the right place."""

from __future__ import annotations

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.spectrogram import FLOOR, mel_spectrogram, spectrogram
from support.sounds import tone


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_a_sine_has_its_level_at_its_frequency(level: float) -> None:
    found = spectrogram(tone(0.5, hz=1000, level=level)[:, 0], 256, 64)
    assert found.shape == (1 + 4000 // 64, 129)
    assert found.dtype == np.float32
    loudest = found[10:-10].max(axis=1)
    np.testing.assert_allclose(loudest, 20 * np.log10(level), atol=0.01)
    assert (found[10:-10].argmax(axis=1) == 32).all()


def test_bands_on_the_mel_scale_rise_with_the_tone() -> None:
    places = [
        int(mel_spectrogram(tone(0.2, hz=hz)[:, 0], 8000, size=256, hop=64, bands=40).mean(axis=0).argmax())
        for hz in (200, 500, 1000, 2000, 3500)
    ]
    assert places == sorted(set(places))
    assert places[2] - places[1] > places[4] - places[3] - 5
    silence = mel_spectrogram(np.zeros(800, np.float32), 8000, size=256, hop=64, bands=40)
    assert (silence == FLOOR).all()


@pytest.mark.parametrize(
    ("samples", "size", "hop"), [(np.zeros((5, 1)), 4, 1), (np.zeros(5), 1, 1), (np.zeros(5), 4, 0)]
)
def test_what_has_no_spectrogram_is_refused(samples: np.ndarray, size: int, hop: int) -> None:
    with pytest.raises(InputError, match="expected a sound"):
        spectrogram(samples.astype(np.float32), size, hop)
