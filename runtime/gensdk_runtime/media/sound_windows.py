"""The sound around each frame of a film: windows of one length, one for each frame."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array, check_number, check_whole
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.sounds import MAX_ELEMENTS
from gensdk_runtime.spec.audio import LEAST_RATE, MOST_RATE

Float32 = NDArray[np.float32]
LEAST_FPS, MOST_FPS = 0.001, 1000.0


def check_fps(fps: float) -> Fraction:
    """Frames per second as a fraction; :class:`InputError` unless of 0.001 to 1000."""
    number = float(check_number(fps, "fps", least=0, most=MOST_FPS))
    if number <= 0:
        raise InputError("expected fps above 0, got 0; films have 25 mostly")
    if number < LEAST_FPS:
        raise InputError(f"expected fps of at least {LEAST_FPS:g}, got {number:g}; films have 25 mostly")
    return Fraction(number).limit_denominator(1001)


def frame_count(samples: int, rate: int, fps: Fraction) -> int:
    """Frames that show all of a sound: the last one may outlast it."""
    return -(-samples * fps.numerator // (rate * fps.denominator))


def window_start(frame: int, rate: int, fps: Fraction, size: int) -> int:
    """Where the window of a frame begins, in samples, below 0 before the sound: it is `size` long, and its middle
    is that of the time in which the frame is shown, ``(frame + 1/2) / fps``."""
    middle = Fraction(2 * frame + 1) * rate / (2 * fps)
    return round(middle - Fraction(size, 2))


def window_of(sound: Float32, frame: int, *, rate: int, fps: Fraction, size: int) -> Float32:
    """The window of one frame, float32 [size], of `sound` [samples] at `rate` Hz; silence before and behind it."""
    start = window_start(frame, rate, fps, size)
    window = np.zeros(size, np.float32)
    first, last = max(0, start), min(len(sound), start + size)
    if first < last:
        window[first - start : last - start] = sound[first:last]
    return window


def sound_windows(sound: Float32, *, rate: int, fps: float, size: int) -> Float32:
    """The window of every frame of a film, float32 [frames, size]: what a talking face listens to.

    `sound`: float32 [samples] at `rate` Hz, the model's; it is not resampled here. `fps`: frames per second;
    `size`: samples of a window, the model's. A frame depends on its own window alone. Raises :class:`InputError`
    for another shape or type, an empty sound, one that is not finite, and windows that would be too many to hold.
    """
    sound = as_array(sound, "the sound")
    if sound.ndim != 1 or not len(sound):
        raise InputError(f"expected a sound [samples] of one sample or more, got {list(sound.shape)}")
    if sound.dtype.kind != "f":
        raise InputError(f"expected a sound of floats in [-1, 1], got {sound.dtype}; scale it")
    if not np.isfinite(sound).all():
        raise InputError("the sound has NaN or infinite samples; expected floats in [-1, 1]")
    check_whole(rate, "rate in Hz", least=LEAST_RATE, most=MOST_RATE)
    check_whole(size, "size, samples of a window,", least=1, most=MAX_ELEMENTS)
    each = check_fps(fps)
    count = frame_count(len(sound), rate, each)
    if count * size > MAX_ELEMENTS:
        raise InputError(
            f"{count} windows of {size} samples are over {MAX_ELEMENTS}; give a shorter sound, or lower fps"
        )
    return np.stack([window_of(sound, frame, rate=rate, fps=each, size=size) for frame in range(count)])
