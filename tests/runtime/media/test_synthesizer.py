"""The synthesizer: pitch, band, level, length, and the WAV file."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music import synthesizer
from gensdk_runtime.media.music.notes import Music, Note
from gensdk_runtime.media.music.synthesizer import (
    PEAK,
    RATE,
    Float32,
    drum,
    encode_wav,
    frequency,
    synthesize,
    tone,
)
from gensdk_runtime.spec.pianoroll import RollFormat, TrackSpec

PROGRAMS = (0, 16, 40, 52, 73, 127)


def form(program: int = 0, *, is_drum: bool = False, bars: int = 1) -> RollFormat:
    track = TrackSpec(name="x", program=program, is_drum=is_drum)
    return RollFormat(tracks=(track,), lowest_pitch=0, pitches=128, bars=bars, tempo=120.0)


def spectrum(sound: Float32, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and levels, of a window without side lobes that matter."""
    levels = np.abs(np.fft.rfft(sound * np.blackman(len(sound))))
    return np.fft.rfftfreq(len(sound), 1 / rate), levels


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("rate", [22050, RATE])
def test_the_a_of_440_hz_has_its_peak_there(program: int, rate: int) -> None:
    sound = Music((Note(0, 0, 69, 16),), form(program)).sound(rate)
    at, levels = spectrum(sound, rate)
    assert at[levels.argmax()] == pytest.approx(440, abs=2)
    octave = levels[np.abs(at - 880) < 5].max()
    assert levels.max() / 10 < octave < levels.max(), "partials are part of it, and weaker"


@pytest.mark.parametrize("pitch", [21, 60, 108, 127])
def test_no_partial_lies_above_half_the_rate(pitch: int) -> None:
    """What lies above would come back as a tone between the partials."""
    sound = tone(pitch, 0.5, synthesizer.ORGAN, 22050)
    at, levels = spectrum(sound, 22050)
    nearest = np.abs(at / frequency(pitch) - np.maximum(1, np.rint(at / frequency(pitch)))) * frequency(pitch)
    assert np.isfinite(sound).all()
    assert sound.any() == (frequency(pitch) < 0.45 * 22050), "a tone above the band is silent"
    assert levels[nearest > 15].max(initial=0.0) <= 2e-3 * levels.max()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_level_is_the_same_and_never_clips(program: int) -> None:
    one = synthesize([Music((Note(0, 0, 60, 4),), form(program))])
    many = synthesize([Music(tuple(Note(0, 0, pitch, 16) for pitch in range(128)), form(program))])
    for sound in (one, many):
        assert sound.dtype == np.float32
        assert np.abs(sound).max() == pytest.approx(PEAK, rel=1e-5)
    assert pytest.approx(0.891, abs=1e-3) == PEAK


def test_silence_stays_silence_and_has_its_length() -> None:
    sound = synthesize([Music((), form())])
    assert not sound.any()
    assert len(sound) / RATE == pytest.approx(2.0, abs=0.2)


def test_notes_begin_when_they_should_and_do_not_click() -> None:
    sound = synthesize([Music((Note(8, 0, 69, 4),), form(52))])
    assert not sound[: RATE - 1].any()
    assert np.abs(sound[RATE : RATE + RATE // 2]).max() == pytest.approx(PEAK, rel=1e-5)
    assert np.abs(sound[int(1.7 * RATE) :]).max() < 1e-3
    assert np.abs(sound[RATE : RATE + 20]).max() < 0.05, "it rises"


def test_drums_sound_by_their_pitch_and_each_time_alike() -> None:
    low, high = drum(36, RATE), drum(50, RATE)
    np.testing.assert_array_equal(low, drum(36, RATE))
    for sound, brighter in ((low, False), (high, True)):
        at, levels = spectrum(sound, RATE)
        assert ((at * levels**2).sum() / (levels**2).sum() > 1000) == brighter
    music = Music((Note(0, 0, 36, 1), Note(4, 0, 36, 9)), form(is_drum=True))
    first, second = synthesize([music])[:RATE].reshape(2, -1)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_what_is_too_long_or_too_fast_is_refused() -> None:
    with pytest.raises(InputError, match="pieces last 2,002 s, over 1,800 s"):
        synthesize([Music((), form(bars=1001))])
    with pytest.raises(InputError, match="expected rate from 8,000 to 192,000"):
        Music((), form()).sound(100)


def test_a_wav_file_holds_it() -> None:
    sound = synthesize([Music((Note(0, 0, 69, 4),), form())])
    with wave.open(io.BytesIO(encode_wav(sound, RATE))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_allclose(data / 32767, sound, atol=1 / 32767)
    assert np.abs(np.frombuffer(encode_wav(np.full(4, 9, np.float32), RATE)[-8:], "<i2")).max() == 32767
