"""How the mouth of a drawn face follows a sound: by loudness, and by where the energy of the first two formants
lies. Not how people move; a rule that a model can be asked to find. It is rough: a second formant below 1 kHz, as
in a dark "oo", counts for a high first one, and opens the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PIECE, HOP = 0.032, 0.005
"""Seconds of a piece of sound, and from one to the next."""
FIRST, SECOND = (250.0, 1000.0), (1000.0, 2600.0)
"""Hz between which the first and the second formant are looked for."""
JAW = 0.035
"""Seconds: the standard deviation of the Gaussian by which the mouth is smoothed in time, a jaw being heavy."""
FLOOR = -60.0


@dataclass(frozen=True)
class Mouth:
    """`opening` and `width` in [0, 1] and `loudness` in dB below the loudest piece, float32, at `times` in
    seconds."""

    times: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    loudness: np.ndarray

    def at(self, times: np.ndarray) -> Mouth:
        """At other times, by linear interpolation."""
        found = (np.interp(times, self.times, values) for values in (self.opening, self.width, self.loudness))
        return Mouth(times, *(values.astype(np.float32) for values in found))


def mouth_of(sound: np.ndarray, rate: int) -> Mouth:
    """The mouth that says `sound`, float32 [samples] at `rate` Hz.

    Of each piece: how loud it is against the loudest one (nothing below -35 dB, all above -8 dB), how much of its
    power is voiced, below 1 kHz, and the centroids of power between the bounds of both formants. A high first one
    (an open vowel: 370 to 620 Hz) opens the mouth, fricatives and silence close it; a high second one (1350 to
    2000 Hz) spreads it. Then all is smoothed.
    """
    size, hop = round(PIECE * rate), round(HOP * rate)
    padded = np.pad(sound.astype(np.float64), size // 2)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(pieces, 4 * size, axis=1)) ** 2
    hertz = np.fft.rfftfreq(4 * size, 1 / rate)
    total = power.sum(axis=1) + 1e-12
    decibels = np.maximum(FLOOR, 10 * np.log10(total / total.max()))
    loud = _ramp(decibels, -35, -8)
    voiced = power[:, hertz < FIRST[1]].sum(axis=1) / total
    opened = _ramp(_centroid(power, hertz, FIRST), 370, 620)
    spread = _ramp(_centroid(power, hertz, SECOND), 1350, 2000)
    opening = _smooth(loud * _ramp(voiced, 0.2, 0.7) * (0.12 + 0.88 * opened), HOP)
    width = 0.5 + _smooth(loud * (spread - 0.5), HOP)
    times = np.arange(len(pieces)) * hop / rate
    return Mouth(times, opening, width, _smooth(decibels, HOP))


def _centroid(power: np.ndarray, hertz: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    inside = (hertz >= bounds[0]) & (hertz < bounds[1])
    amplitude = np.sqrt(power[:, inside])  # of powers, one harmonic would decide alone
    return (amplitude * hertz[inside]).sum(axis=1) / (amplitude.sum(axis=1) + 1e-9)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / (high - low), 0, 1)


def _smooth(values: np.ndarray, step: float) -> np.ndarray:
    reach = int(4 * JAW / step)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / JAW) ** 2)
    smooth: np.ndarray = np.convolve(np.pad(values, reach, mode="edge"), weights / weights.sum(), mode="valid")
    return smooth
