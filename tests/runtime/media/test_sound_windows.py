"""Windows of sound around the frames of a film."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.sound_windows import check_fps, frame_count, sound_windows, window_of, window_start


@given(
    samples=st.integers(1, 900),
    rate=st.sampled_from([1000, 8000, 16_000, 44_100]),
    fps=st.sampled_from([10.0, 12.5, 24.0, 25.0, 29.97, 60.0]),
    size=st.integers(1, 300),
)
def test_each_frame_hears_what_lies_around_its_middle(samples: int, rate: int, fps: float, size: int) -> None:
    sound = np.arange(1, samples + 1, dtype=np.float32)
    windows = sound_windows(sound, rate=rate, fps=fps, size=size)
    rational = check_fps(fps)
    assert len(windows) == frame_count(samples, rate, rational)
    assert (len(windows) - 1) * rate / rational < samples <= len(windows) * rate / rational
    beyond = 2 * size + 2 * rate
    padded = np.concatenate([np.zeros(beyond), sound, np.zeros(beyond)]).astype(np.float32)
    for frame, window in enumerate(windows):
        middle = (frame + Fraction(1, 2)) * rate / rational
        start = window_start(frame, rate, rational, size)
        assert abs(start + Fraction(size, 2) - middle) <= Fraction(1, 2)
        np.testing.assert_array_equal(window, padded[beyond + start : beyond + start + size])


def test_a_window_is_the_same_whatever_comes_after_it() -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    whole = sound_windows(sound, rate=8000, fps=25, size=640)
    beginning = sound_windows(sound[:2000], rate=8000, fps=25, size=640)
    np.testing.assert_array_equal(whole[:4], beginning[:4])
    np.testing.assert_array_equal(window_of(sound, 3, rate=8000, fps=Fraction(25), size=640), whole[3])


@pytest.mark.parametrize(
    ("sound", "fps", "message"),
    [
        (np.zeros((3, 2), np.float32), 25, r"expected a sound \[samples\]"),
        (np.zeros(0, np.float32), 25, "one sample or more"),
        (np.zeros(9, np.float32), 0, "expected fps above 0"),
        (np.zeros(9, np.float32), 5000, "expected fps from 0 to 1,000"),
        (np.zeros(9, np.float32), "25", "expected fps as a number"),
        (np.zeros(9, np.float32), 1e-9, "expected fps of at least 0.001"),
        ([0.1, 0.2], -1, "expected fps from 0"),
        (np.full(9, 9000, np.int16), 25, "expected a sound of floats"),
        (np.full(9, np.nan, np.float32), 25, "NaN or infinite"),
        (np.zeros(900_000, np.float32), 1000, "give a shorter sound, or lower fps"),
    ],
)
def test_what_has_no_windows_is_refused(sound: Any, fps: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sound_windows(sound, rate=1000, fps=fps, size=640)


@pytest.mark.parametrize(("rate", "size"), [(0, 9), (2000.5, 9), (1000, 0), (1000, -1)])
def test_windows_have_a_rate_and_a_length(rate: Any, size: Any) -> None:
    with pytest.raises(InputError, match=r"expected (rate in Hz|size, samples of a window,)"):
        sound_windows(np.zeros(9, np.float32), rate=rate, fps=25, size=size)
