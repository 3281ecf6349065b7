"""Sounds as small pictures: neither loudness nor silence before them matters, and a classifier can learn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.metrics.classifier import ClassifierSettings, train_classifier
from gensdk_training.metrics.sound_pictures import BANDS, ROWS, SHIFTS, labelled_pictures, sound_pictures
from support.sounds import spoken, tone


def test_loudness_and_silence_before_do_not_matter() -> None:
    sound = tone(0.5, hz=700)
    quiet, late = 0.01 * sound, np.concatenate([np.zeros((1680, 1), np.float32), sound])
    whole, soft, behind = sound_pictures([sound, quiet, late], 8000)
    assert whole.shape == (ROWS, BANDS, 1)
    assert np.abs(whole.astype(int) - soft).max() <= 1
    assert np.abs(whole[2:20].astype(int) - behind[2:20]).max() <= 60
    assert whole[5].argmax() == behind[5].argmax()
    assert whole.max() == 255


def test_higher_tones_lie_in_higher_bands_at_any_rate() -> None:
    for rate in (8000, 16000):
        pictures = sound_pictures([tone(0.3, rate, hz) for hz in (200, 600, 1500, 3000)], rate)
        places = pictures[:, 5, :, 0].argmax(axis=1).tolist()
        assert places == sorted(set(places))


def test_silence_short_sounds_and_long_ones_have_pictures() -> None:
    sounds = [
        np.zeros(8000, np.float32),
        np.zeros(0, np.float32),
        tone(0.002)[:, 0],
        tone(3.0)[:, 0],
        tone(3.0, channels=2),
    ]
    pictures = sound_pictures(sounds, 8000)
    assert not pictures[:2].any()
    assert pictures[2].any()
    np.testing.assert_array_equal(pictures[3], pictures[4])
    moved = sound_pictures(sounds[3:4], 8000, shift=3)
    assert not moved[0, :3].any()
    np.testing.assert_array_equal(moved[0, 3:], pictures[3][:-3])
    with pytest.raises(InputError, match="sound 0 has NaN"):
        sound_pictures([np.full(100, np.nan, np.float32)], 8000)


def test_a_classifier_learns_them(tmp_path: Path) -> None:
    source = f"fsdd:{spoken(tmp_path)}"
    train, test = (load_data(source, split=split, labels="digit") for split in ("train", "test"))
    data = labelled_pictures(train, training=True)
    assert len(data) == len(SHIFTS) * len(train)
    judge = train_classifier(data, ClassifierSettings(steps=60))
    assert judge.accuracy(labelled_pictures(test)) > 0.8


def test_data_without_labels_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no labels"):
        labelled_pictures(load_data(str(spoken(tmp_path)), labels="none"))
    with pytest.raises(InputError, match="expected sounds"):
        labelled_pictures(load_data("digits"))
