"""Another rate: tones below half of the lower one stay, those above are gone, and what is constant stays so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.audio_resampling import ATTENUATION, PASS, resample, resampled_length
from support.sounds import tone

RATES = [(44100, 8000), (48000, 8000), (8000, 16000), (8000, 11025), (22050, 8000), (8000, 7999), (16000, 8000)]


def middle(sound: np.ndarray) -> np.ndarray:
    return sound[len(sound) // 4 : -len(sound) // 4, 0].astype(np.float64)


@pytest.mark.parametrize(("old", "new"), RATES)
@pytest.mark.parametrize("share", [0.02, 0.5, PASS])
def test_a_tone_that_both_rates_hold_stays_as_it_is(old: int, new: int, share: float) -> None:
    hz = share * min(old, new) / 2
    made = resample(tone(0.4, old, hz, 1.0), old, new)
    expected = tone(0.4, new, hz, 1.0)[: len(made)]
    off = middle(made) - middle(expected)
    assert 20 * np.log10(np.abs(off).max()) < -70


@pytest.mark.parametrize(("old", "new"), [pair for pair in RATES if pair[0] > pair[1] * 1.01])
@pytest.mark.parametrize("share", [1.0, 1.05, 1.3, 1.9])
def test_what_would_be_folded_back_is_gone(old: int, new: int, share: float) -> None:
    hz = min(share * new / 2, old / 2.02)
    made = middle(resample(tone(0.4, old, hz, 1.0), old, new))
    assert 20 * np.log10(np.sqrt(2 * (made**2).mean())) < -ATTENUATION


@given(st.integers(1, 400), st.sampled_from(RATES), st.integers(1, 2))
@settings(max_examples=25, deadline=None)
def test_the_length_is_the_same_time_and_channels_are_apart(
    count: int, rates: tuple[int, int], channels: int
) -> None:
    old, new = rates
    sound = np.random.default_rng(count).uniform(-1, 1, (count, channels)).astype(np.float32)
    made = resample(sound, old, new)
    assert made.shape == (resampled_length(count, old, new), channels)
    assert len(made) / new == pytest.approx(count / old, abs=1 / new)
    np.testing.assert_allclose(made[:, :1], resample(sound[:, :1], old, new), atol=1e-6)
    np.testing.assert_allclose(resample(-2 * sound, old, new), -2 * made, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), RATES)
def test_what_is_constant_stays_so(old: int, new: int) -> None:
    made = resample(np.full((old // 4, 1), 0.5, np.float32), old, new)
    np.testing.assert_allclose(middle(made), 0.5, atol=1e-6)


def test_long_sounds_are_made_in_pieces_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = tone(0.2, 16000, 1000)
    whole = resample(sound, 16000, 8000)
    monkeypatch.setattr("gensdk_runtime.media.audio_resampling._BLOCK", 7)
    np.testing.assert_allclose(resample(sound, 16000, 8000), whole, atol=1e-7)


def test_edges() -> None:
    sound = tone()
    assert resample(sound, 8000, 8000) is sound
    assert resample(sound[:0], 8000, 16000).shape == (0, 1)
    for bad, rate in ((sound[:, 0], 8000), (sound, 0)):
        with pytest.raises(InputError, match="expected a sound"):
            resample(bad, rate, 16000)
