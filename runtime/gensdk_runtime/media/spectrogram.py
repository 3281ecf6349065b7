"""Spectrograms: how loud each frequency is, piece by piece of a sound; linear, or on the mel scale."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

Float32 = NDArray[np.float32]
FLOOR = -100.0
"""dB, the least that a spectrogram shows."""


def spectrogram(samples: Float32, size: int, hop: int) -> Float32:
    """dB of full scale, float32 [1 + samples // hop, 1 + size // 2], of float32 [samples].

    Piece t is centred on sample ``t * hop``, `size` samples under a Hann window, beyond the ends silence. A sine
    of amplitude 1 on a bin has 0 dB; nothing is below -100. Raises :class:`InputError` for another shape, and for
    `size` or `hop` below 2 or 1.
    """
    return _decibels(_power(samples, size, hop))


def mel_spectrogram(samples: Float32, sample_rate: int, *, size: int, hop: int, bands: int) -> Float32:
    """dB, float32 [1 + samples // hop, bands]: as :func:`spectrogram`, in triangles that overlap by half and lie
    evenly on the mel scale ``2595 log10(1 + f / 700)`` from 0 Hz to half of the rate (O'Shaughnessy 1987)."""
    power = _power(samples, size, hop)
    return _decibels(power @ mel_triangles(sample_rate, size, bands).T)


def _power(samples: Float32, size: int, hop: int) -> NDArray[np.float64]:
    if samples.ndim != 1 or size < 2 or hop < 1:
        raise InputError(
            f"expected a sound [samples] in pieces of 2 or more, got {list(samples.shape)} in pieces of {size}"
        )
    window = np.hanning(size + 1)[:-1]
    padded = np.pad(samples.astype(np.float64), (size // 2, size - size // 2))
    pieces = sliding_window_view(padded, size)[: len(samples) + 1 : hop]
    spectrum = np.fft.rfft(pieces * window, axis=1) / (window.sum() / 2)
    return np.asarray(np.abs(spectrum) ** 2, np.float64)


def _decibels(power: NDArray[np.float64]) -> Float32:
    return (10 * np.log10(np.maximum(power, 10 ** (FLOOR / 10)))).astype(np.float32)


@lru_cache(maxsize=8)
def mel_triangles(sample_rate: int, size: int, bands: int) -> NDArray[np.float64]:
    """Weights [bands, 1 + size // 2] of the frequencies of :func:`spectrogram` in each band of
    :func:`mel_spectrogram`."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.arange(1 + size // 2) * sample_rate / size
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None), np.float64)
