"""Mu-law companding: amplitudes as a few levels, which lie close together where a sound is soft.

ITU-T G.711 (1988) compresses with ``f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)`` for x in [-1, 1]; WaveNet (van
den Oord et al., 2016, section 2.2) takes mu = levels - 1 and rounds f to `levels` codes. (G.711's own 8 bits are a
piecewise linear form of it with other bits: these codes are not the bytes of telephone files.)

The formulas stand here alone. Training in other libraries uses the tables: a code's amplitude is
``decoding_table(levels)[code]``, and an amplitude's code is how many of ``thresholds(levels)`` are not above it
(``torch.bucketize(x, thresholds, right=True)``), bit for bit as :func:`encode` has it.

No code of an even number of levels is silence: 0 becomes the code ``levels / 2``, whose amplitude is 8.6e-5 for
256 levels, 81 dB below full scale.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

LEVELS = 256
MAX_LEVELS = 65536


def compress(amplitudes: NDArray[Any], levels: int = LEVELS) -> NDArray[np.float64]:
    """``f(x)``: amplitudes in [-1, 1] to [-1, 1]."""
    mu = levels - 1
    x = np.asarray(amplitudes, np.float64)
    return np.asarray(np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu), np.float64)


def expand(compressed: NDArray[Any], levels: int = LEVELS) -> NDArray[np.float64]:
    """The inverse of :func:`compress`: ``sign(y) ((1 + mu)^|y| - 1) / mu``."""
    mu = levels - 1
    y = np.asarray(compressed, np.float64)
    return np.asarray(np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu, np.float64)


@lru_cache(maxsize=8)
def decoding_table(levels: int = LEVELS) -> NDArray[np.float32]:
    """The amplitude of each code, float32 [levels], rising from -1 to 1; not to be written to."""
    _check_levels(levels)
    table = expand(2 * np.arange(levels) / (levels - 1) - 1, levels).astype(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=8)
def thresholds(levels: int = LEVELS) -> NDArray[np.float32]:
    """The lowest amplitude of each code but the first, float32 [levels - 1]; not to be written to.

    Half way between two codes after compression, as rounding has it.
    """
    _check_levels(levels)
    bounds = expand((2 * np.arange(1, levels) - levels) / (levels - 1), levels).astype(np.float32)
    bounds.flags.writeable = False
    return bounds


def encode(amplitudes: NDArray[Any], levels: int = LEVELS) -> NDArray[np.int64]:
    """The codes of amplitudes, int64 from 0 to `levels` - 1, of any shape: ``round((f(x) + 1) / 2 * mu)``.

    What lies beyond [-1, 1] gets the code at the end. Raises :class:`InputError` for NaN, and for less than 2 or
    more than 65536 levels.
    """
    x = np.asarray(amplitudes, np.float32)
    if np.isnan(x).any():
        raise InputError("expected amplitudes to encode, got NaN among them; clean the sound")
    return np.searchsorted(thresholds(levels), x, side="right").astype(np.int64)


def decode(codes: NDArray[Any], levels: int = LEVELS) -> NDArray[np.float32]:
    """The amplitudes of codes, float32 in [-1, 1], of any shape.

    Raises :class:`InputError` for what is no whole number from 0 to `levels` - 1.
    """
    given = np.asarray(codes)
    table = decoding_table(levels)
    if given.dtype.kind not in "iu" or (given.size and not 0 <= int(given.min()) <= int(given.max()) < levels):
        raise InputError(f"expected codes as whole numbers from 0 to {levels - 1}, got {given.dtype} or others")
    return np.asarray(table[given], np.float32)


def _check_levels(levels: int) -> None:
    if not 2 <= levels <= MAX_LEVELS:
        raise InputError(f"expected 2 to {MAX_LEVELS} levels of mu-law, got {levels}")
