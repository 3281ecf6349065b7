"""Sounds at another rate: a windowed sinc, evaluated at the phases that the two rates need (polyphase).

Up by L and down by M, the smallest whole numbers with ``L / M = new / old`` (Crochiere & Rabiner 1983, chapter 2):
output n lies at the input's time ``n M / L``, and is the sum of the input around it, weighted with
``sinc`` times a Kaiser window (Kaiser 1974) that was designed for what follows.

Up to :data:`PASS` of the lower rate's half nothing changes by more than 0.01 dB; what would be folded back, from
that half upwards, is at least :data:`ATTENUATION` dB down. Outside of the sound there is silence.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

Float32 = NDArray[np.float32]

ATTENUATION = 80.0
"""dB, of all above half of the lower rate."""
PASS = 0.9
"""Share of half the lower rate that passes as it is."""
_BETA = 0.1102 * (ATTENUATION + 4 - 8.7)
"""Kaiser's form of the window; 4 dB are kept for rounding and the normalization of each phase."""
_HALF_WIDTH = (ATTENUATION + 4 - 7.95) / (2.285 * np.pi * (1 - PASS)) / 2
"""Samples of the lower rate on each side of a tap's centre."""
_BLOCK = 16384
"""Outputs that are made at once, which bounds the memory for their windows."""


def resampled_length(samples: int, rate: int, new_rate: int) -> int:
    """How many samples :func:`resample` makes of `samples`: the same time, rounded up."""
    return -(-samples * new_rate // rate)


def resample(sound: Float32, rate: int, new_rate: int) -> Float32:
    """`sound` float32 [samples, channels] at `rate` Hz as float32 at `new_rate`; see the module for what is kept.

    Near the ends, and at steps, a sinc overshoots: loud sounds may come out a little beyond [-1, 1]. Raises
    :class:`InputError` for another shape and for rates below 1.
    """
    if sound.ndim != 2 or min(rate, new_rate) < 1:
        raise InputError(
            f"expected a sound [samples, channels] and rates from 1 Hz, got {list(sound.shape)}, "
            f"{rate} and {new_rate}"
        )
    if rate == new_rate or not len(sound):
        return sound
    up, down = new_rate // gcd(rate, new_rate), rate // gcd(rate, new_rate)
    count = resampled_length(len(sound), rate, new_rate)
    width = ceil(_HALF_WIDTH * max(1.0, down / up))
    padded = np.pad(sound.astype(np.float64), ((width, width + down), (0, 0)))
    made = np.empty((count, sound.shape[1]), np.float32)
    for first in range(min(up, count)):  # outputs first, first + up, ... lie alike between samples of the input
        start, between = divmod(first * down, up)
        taps = _taps(between / up, width, min(1.0, up / down))
        number = -(-(count - first) // up)
        windows = sliding_window_view(padded[start:], 2 * width + 1, axis=0)[::down][:number]
        for block in range(0, number, _BLOCK):
            made[first + block * up : first + (block + _BLOCK) * up : up] = windows[block : block + _BLOCK] @ taps
    return made


def _taps(between: float, width: int, scale: float) -> NDArray[np.float64]:
    """Weights of the input's samples -width to width around a place that lies `between` of the way to the next
    one; `scale`: the lower rate by the input's. Their sum is 1, so that what is constant stays so."""
    times = (np.arange(-width, width + 1) - between) * scale
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (times / _HALF_WIDTH) ** 2, 0, None))) * (abs(times) <= _HALF_WIDTH)
    weights = np.sinc(times * (1 + PASS) / 2) * window
    return np.asarray(weights / weights.sum(), np.float64)
