"""Sounds in memory: their form, the limits of files that hold them, their level, and 16-bit samples of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.audio_resampling import resample
from gensdk_runtime.spec.audio import LEAST_RATE, MAX_CHANNELS, MOST_RATE

Float32 = NDArray[np.float32]
Int16 = NDArray[np.int16]

MAX_ELEMENTS = 1 << 26
"""Samples times channels of a file: 256 MiB in float32, over two hours of one channel at 8 kHz."""
MAX_PEAK = 8.0
"""Samples of a float file beyond this are of another scale, such as that of whole numbers."""
FULL_SCALE = 32768
"""Of 16 bits: 1.0 would be this number, and becomes the highest one that there is, 32767."""
SILENT = -60.0
"""dB of full scale, below which 10 ms count as silence."""


class CorruptAudioError(Exception):
    """What is wrong with a file of a sound; the caller names the file."""


@dataclass(frozen=True)
class AudioHeader:
    """What a file says before it is decoded: `samples` in time, of `channels` each, at `sample_rate` Hz; `bits` of
    each, `floats` or whole numbers. `kind`: "WAV" or "FLAC"."""

    kind: str
    sample_rate: int
    channels: int
    samples: int
    bits: int
    floats: bool = False

    def checked(self) -> AudioHeader:
        """The same; :class:`CorruptAudioError` where no sound can be that, or it takes more memory than
        allowed."""
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise CorruptAudioError(f"it says {self.channels} channels, expected 1 to {MAX_CHANNELS}")
        if not LEAST_RATE <= self.sample_rate <= MOST_RATE:
            raise CorruptAudioError(f"it says {self.sample_rate} Hz, expected {LEAST_RATE} to {MOST_RATE}")
        if self.samples < 1:
            raise CorruptAudioError("it is empty: it has no samples")
        if self.samples * self.channels > MAX_ELEMENTS:
            raise CorruptAudioError(
                f"it says {self.samples} samples of {self.channels} channels, over "
                f"{MAX_ELEMENTS}; cut it in pieces"
            )
        return self


@dataclass(frozen=True)
class Sound:
    """`samples`: float32 [samples, channels] in [-1, 1], full scale; `sample_rate` in Hz.

    `clipped`: how many of them lay beyond full scale in a file of floats, and were brought to it.
    """

    samples: Float32
    sample_rate: int
    clipped: int = 0

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.sample_rate

    def in_form(self, *, sample_rate: int | None = None, channels: int | None = None) -> tuple[Sound, list[str]]:
        """The sound at another rate or with other channels, and what was done to it, in words.

        Several channels become one by their mean, and one becomes several alike; :class:`InputError` for others.
        The rate changes by :func:`gensdk_runtime.media.audio_resampling.resample`, and what overshoots full scale
        then is clipped.
        """
        samples, told, have = self.samples, [], self.samples.shape[1]
        clipped = self.clipped
        if channels is not None and channels != have:
            if 1 not in (channels, have):
                raise InputError(f"expected a sound of {channels} channels or of one, got {have}")
            samples = samples.mean(axis=1, keepdims=True) if channels == 1 else samples.repeat(channels, axis=1)
            told.append(f"{have} channels to {channels}" + (", their mean" if channels == 1 else ", alike"))
        rate = sample_rate or self.sample_rate
        if rate != self.sample_rate:
            samples, beyond = full_scale(resample(samples, self.sample_rate, rate))
            clipped += beyond
            told.append(f"{self.sample_rate} Hz to {rate} Hz, resampled")
        return Sound(np.ascontiguousarray(samples, np.float32), rate, clipped), told


@dataclass(frozen=True)
class Level:
    """How loud a sound is, in dB of full scale (0 dB: an amplitude of 1), -inf for silence.

    `peak`: of the loudest sample; `rms`: the root of the mean square (a full sine has -3.0); `offset`: the mean,
    as an amplitude; `beyond`: the share of samples beyond full scale; `silent`: the share of 10 ms pieces whose
    RMS is below -60 dB.
    """

    peak: float
    rms: float
    offset: float
    beyond: float
    silent: float


def level_of(samples: Float32, sample_rate: int) -> Level:
    """The level of float32 [samples, channels], all channels together; :class:`InputError` for none."""
    if samples.ndim != 2 or not samples.size:
        raise InputError(f"expected a sound [samples, channels], got {list(samples.shape)}")
    values = samples.astype(np.float64)
    piece = max(1, sample_rate // 100)
    count = max(1, len(values) // piece)
    pieces = values[: count * piece].reshape(count, -1)
    quiet = np.sqrt((pieces**2).mean(axis=1)) < 10 ** (SILENT / 20)
    return Level(
        peak=decibels(float(np.abs(values).max())),
        rms=decibels(float(np.sqrt((values**2).mean()))),
        offset=float(values.mean()),
        beyond=float((np.abs(values) > 1).mean()),
        silent=float(quiet.mean()),
    )


def decibels(amplitude: float) -> float:
    """20 log10 of an amplitude; -inf for 0."""
    return float(20 * np.log10(amplitude)) if amplitude > 0 else float("-inf")


def full_scale(samples: Float32) -> tuple[Float32, int]:
    """The samples within [-1, 1], and how many lay beyond."""
    beyond = int((np.abs(samples) > 1).sum())
    return (np.clip(samples, -1, 1) if beyond else samples), beyond


def to_pcm16(samples: Float32) -> Int16:
    """Whole numbers of 16 bits: ``round(32768 x)``, from -32768 to 32767. What is beyond is clipped, never
    wrapped.

    :class:`InputError` for NaN and infinity. Samples that were read from 16 bits come back as they were.
    """
    if not np.isfinite(samples).all():
        raise InputError("the sound has NaN or infinite samples, which no file can play; look at the model")
    scaled = np.rint(samples.astype(np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
