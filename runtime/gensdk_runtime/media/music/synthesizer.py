"""What notes sound like: a small synthesizer of band-limited tones, so that a result can be heard.

A tone is a sum of partials k f, all below half the sampling rate, so that nothing aliases; their levels fall as
``k^-slope``. Its envelope rises in a few milliseconds, falls to a level that it holds (or, as on a piano, goes
on falling), and fades out after the note, so that no note clicks. Drums are bursts of noise, low ones a falling
tone with it. The whole is brought to a peak of :data:`PEAK`: it can't clip, and silence stays silence. It draws
nothing: the same music sounds the same.

It does not: imitate an instrument beyond its family, or place tracks in a room.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music.notes import Music, joined
from gensdk_runtime.spec.pianoroll import TrackSpec

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
RATE = 44100
"""Samples a second."""
PEAK = 10 ** (-1 / 20)
"""The largest sample of what is made, -1 dB below full scale."""
MAX_SECONDS = 1800.0
MAX_PARTIALS = 24
DRUM_SECONDS = 0.18
BAND = 0.45
"""Of the sampling rate: no partial lies above."""


@dataclass(frozen=True)
class Timbre:
    """`slope`: how fast partials fall. Times in seconds: `attack` up to the full level, `decay` down to the share
    `sustain` of it, `release` after the note."""

    slope: float
    attack: float
    decay: float
    sustain: float
    release: float


STRUCK = Timbre(slope=1.6, attack=0.004, decay=0.7, sustain=0.0, release=0.12)
BLOWN = Timbre(slope=1.4, attack=0.03, decay=0.25, sustain=0.7, release=0.08)
BOWED = Timbre(slope=1.2, attack=0.06, decay=0.3, sustain=0.8, release=0.12)
ORGAN = Timbre(slope=1.0, attack=0.015, decay=0.1, sustain=0.9, release=0.06)
_FAMILIES = (STRUCK, STRUCK, ORGAN, STRUCK, STRUCK, BOWED, BOWED, BLOWN, BLOWN, BLOWN, ORGAN, BOWED, BOWED, STRUCK)
"""Of General MIDI's families of eight programs; of those behind, the last one."""


def timbre_of(track: TrackSpec) -> Timbre:
    """How a track sounds, by the family of its program."""
    return _FAMILIES[min(track.program // 8, len(_FAMILIES) - 1)]


def frequency(pitch: float) -> float:
    """In Hz, in equal temperament: 440 for pitch 69."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def synthesize(pieces: Sequence[Music], rate: int = RATE) -> Float32:
    """All `pieces`, at least one, one after the other with a bar of silence between: float32 [samples], mono.

    The largest sample is :data:`PEAK`, unless all is silence. Raises :class:`InputError` for a rate outside of
    8,000 to 192,000 and for what lasts longer than :data:`MAX_SECONDS`.
    """
    check_whole(rate, "rate", least=8000, most=192_000)
    music = joined(pieces)
    if music.seconds > MAX_SECONDS:
        raise InputError(
            f"{len(pieces)} pieces last {music.seconds:,.0f} s, over {MAX_SECONDS:,.0f} s; save fewer in one"
        )
    tail = max((timbre_of(track).release for track in music.format.tracks), default=0.0)
    mix = np.zeros(int((music.seconds + tail) * rate) + 1, np.float32)
    kept: dict[tuple[int, int, int], Float32] = {}
    for note in music.notes:
        key = (note.track, note.pitch, note.duration)
        if key not in kept:
            track, length = music.format.tracks[note.track], note.duration * music.format.seconds_per_step
            kept[key] = (
                drum(note.pitch, rate) if track.is_drum else tone(note.pitch, length, timbre_of(track), rate)
            )
        at = round(note.start * music.format.seconds_per_step * rate)
        sound = kept[key][: len(mix) - at]
        mix[at : at + len(sound)] += sound
    loudest = float(np.abs(mix).max())
    return mix if loudest == 0.0 else (mix * (PEAK / loudest)).astype(np.float32)


def tone(pitch: int, seconds: float, timbre: Timbre, rate: int) -> Float32:
    """One note and its fading: float32 [samples]; all of it lies below half of `rate`, or it is silent."""
    time = np.arange(int((seconds + timbre.release) * rate)) / rate
    base = frequency(pitch)
    count = min(MAX_PARTIALS, int(BAND * rate / base))
    return (_partials(2 * np.pi * base * time, count, timbre.slope) * _envelope(time, seconds, timbre)).astype(
        np.float32
    )


def _partials(angle: Float64, count: int, slope: float) -> Float64:
    """``sum_k k^-slope sin(k angle)`` for k = 1 .. `count`, by Clenshaw's recurrence: one sine and one cosine."""
    twice, last, before = 2 * np.cos(angle), np.zeros_like(angle), np.zeros_like(angle)
    for number in range(count, 0, -1):
        last, before = number**-slope + twice * last - before, last
    return np.asarray(last * np.sin(angle), np.float64)


def _envelope(time: Float64, seconds: float, timbre: Timbre) -> Float64:
    """From 0 to 1 and back to 0 at the end of `time`."""
    rise = np.minimum(1.0, time / timbre.attack)
    held = timbre.sustain + (1.0 - timbre.sustain) * np.exp(-np.maximum(0.0, time - timbre.attack) / timbre.decay)
    fade = np.clip((seconds + timbre.release - time) / timbre.release, 0.0, 1.0)
    return np.asarray(rise * held * np.minimum(1.0, fade) ** 2, np.float64)


def drum(pitch: int, rate: int) -> Float32:
    """One stroke: the same noise each time, brighter for higher drums; low ones with a falling tone."""
    time = np.arange(int(DRUM_SECONDS * rate)) / rate
    noise = np.random.Generator(np.random.Philox(pitch)).uniform(-1, 1, len(time))
    sharpness = min(1.0, max(0.0, (pitch - 35) / 20))
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(time), 1 / rate) < 200 + 5000 * sharpness] = 0
    sound = np.fft.irfft(spectrum, len(time)) * np.exp(-time / 0.05)
    if sharpness < 0.3:
        sound = 0.2 * sound + np.sin(2 * np.pi * (50 * time + 60 * 0.03 * (1 - np.exp(-time / 0.03))))
    return np.asarray(sound * np.minimum(1.0, time / 0.002) * (1 - time / DRUM_SECONDS), np.float32)


def encode_wav(sound: Float32, rate: int) -> bytes:
    """A WAV file of `sound` [samples] within -1 .. 1: mono, 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.rint(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
