"""Files of sounds: what is written comes back, and hostile ones are refused in one line before memory is taken."""

from __future__ import annotations

import builtins
import io
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.audio_files import SUFFIXES, decode_audio, encode_audio, read_audio, read_header
from gensdk_runtime.media.flac import flac_header
from gensdk_runtime.media.sounds import CorruptAudioError, Sound, level_of, to_pcm16
from gensdk_runtime.media.wav import MAX_CHUNKS, wav_comment
from support.sounds import chunk, needs_soundfile, tone, wav, wav_of

GUID = bytes.fromhex("000000001000800000aa00389b71")
int16s = arrays(np.int16, st.tuples(st.integers(1, 50), st.integers(1, 3)), elements=st.integers(-32768, 32767))


@pytest.mark.parametrize("suffix", SUFFIXES)
@needs_soundfile
@given(samples=int16s, rate=st.sampled_from([8000, 11025, 44100, 192000]))
def test_sixteen_bits_come_back_as_they_were(suffix: str, samples: np.ndarray, rate: int) -> None:
    data = encode_audio(samples, rate, suffix, "said")
    sound = decode_audio(data)
    assert (sound.sample_rate, sound.clipped) == (rate, 0)
    np.testing.assert_array_equal(to_pcm16(sound.samples), samples)
    header = read_header(data)
    assert (header.samples, header.channels, header.bits) == (*samples.shape, 16)


@given(samples=int16s)
def test_the_standard_library_reads_what_is_written(samples: np.ndarray) -> None:
    data = encode_audio(samples, 8000, ".wav", "a comment of odd length")
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (samples.shape[1], 8000, 2)
        np.testing.assert_array_equal(np.frombuffer(file.readframes(10**6), "<i2").reshape(samples.shape), samples)
    assert wav_comment(data) == "a comment of odd length"


@needs_soundfile
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_wav_files_of_others_are_read_as_soundfile_reads_them(subtype: str, kind: str, channels: int) -> None:
    import soundfile

    file, sound = (
        io.BytesIO(),
        tone(0.05, hz=500, channels=channels) * np.linspace(0.2, 1, channels, dtype=np.float32),
    )
    soundfile.write(file, sound, 22050, subtype, format=kind)
    expected, rate = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32", always_2d=True)
    found = decode_audio(file.getvalue())
    assert found.sample_rate == rate == 22050
    np.testing.assert_array_equal(found.samples, expected)


@needs_soundfile
@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_flac_files_of_others_are_read(subtype: str) -> None:
    import soundfile

    file, sound = io.BytesIO(), tone(0.5, rate=48000, channels=2)
    soundfile.write(file, sound, 48000, subtype, format="FLAC")
    found = decode_audio(file.getvalue())
    assert found.samples.shape == sound.shape
    assert np.abs(found.samples - sound).max() < 1 / 100


def flac() -> bytes:
    return encode_audio(to_pcm16(tone()), 8000, ".flac")


@needs_soundfile
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_cut_flac_is_refused(part: float) -> None:
    data = flac()
    with pytest.raises(CorruptAudioError, match=r"cut|decoded"):
        decode_audio(data[: int(len(data) * part)])


@needs_soundfile
def test_what_a_flac_header_claims_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(flac())
    monkeypatch.setattr("gensdk_runtime.media.flac.soundfile", lambda: pytest.fail("decoded"))
    header = flac_header(bytes(data))
    assert (header.samples, header.sample_rate, header.channels) == (800, 8000, 1)
    for claim, message in (
        (8000 << 44 | 15 << 36 | 2**36 - 1, "cut it in pieces"),
        (0 << 44 | 15 << 36 | 800, "it says 0 Hz"),
        (8000 << 44 | 15 << 36, "does not say how long"),
    ):
        data[18:26] = claim.to_bytes(8, "big")
        with pytest.raises(CorruptAudioError, match=message):
            decode_audio(bytes(data))
    with pytest.raises(CorruptAudioError, match="header is cut"):
        decode_audio(bytes(data[:20]))


def test_flac_without_soundfile_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "soundfile":
            raise ImportError("No module named 'soundfile'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnavailableError, match=r'pip install "gensdk\[audio\]"'):
        encode_audio(np.zeros((5, 1), np.int16), 8000, ".flac")
    assert decode_audio(wav(tone())).seconds == pytest.approx(0.1)


BODY = to_pcm16(tone()).tobytes()
EXTENSION = struct.pack("<HHI", 22, 16, 4)
HOSTILE = {
    "nothing": (b"", "it is empty"),
    "a text": (b"RIFFRAFF and more", "no WAV nor FLAC"),
    "an mp3": (b"ID3\x04" + bytes(100), "no WAV nor FLAC"),
    "a big-endian one": (b"RIFX" + wav_of(BODY)[4:], "no WAV nor FLAC"),
    "cut in its header": (wav_of(BODY)[:30], "no format|format is cut"),
    "cut before its samples": (wav_of(BODY)[:36], "no samples"),
    "cut in its samples": (wav_of(BODY)[:-100], "it is cut: it says 1600 bytes of samples, and 1500 follow"),
    "huge by its header": (wav_of(BODY, size=2**32 - 2), "it is cut"),
    "of no length": (wav_of(b""), "it has no samples"),
    "of half a sample": (wav_of(BODY[:-1], size=len(BODY) - 1), "no multiple of 2"),
    "0 Hz": (wav_of(BODY, rate=0), "it says 0 Hz"),
    "2^32 Hz": (wav_of(BODY, rate=2**32 - 1), "it says 4294967295 Hz"),
    "0 channels": (wav_of(BODY, channels=0), "it says 0 channels"),
    "65535 channels": (wav_of(BODY, channels=65535), "it says 65535 channels"),
    "2^31 channels": (wav_of(BODY, channels=2**31 - 1), "it says 65535 channels"),
    "0 bits": (wav_of(BODY, bits=0), "with 0 bits"),
    "12 bits": (wav_of(BODY, bits=12), "with 12 bits"),
    "mp3 inside": (wav_of(BODY, kind=0x55), "its format is 85"),
    "blocks of 0": (wav_of(BODY, frame=0), "contradicts itself"),
    "blocks of 7": (wav_of(BODY, frame=7), "contradicts itself"),
    "extensible and cut": (wav_of(BODY, kind=0xFFFE), "extensible format is cut"),
    "extensible and unknown": (
        wav_of(BODY, kind=0xFFFE, extension=EXTENSION + b"\1" * 16),
        "extensible format is",
    ),
    "extensible in itself": (
        wav_of(BODY, kind=0xFFFE, extension=EXTENSION + b"\xfe\xff" + GUID),
        "its format is 65534",
    ),
    "NaN": (wav_of(struct.pack("<2f", 0.0, np.nan), kind=3, bits=32), "NaN or infinite"),
    "infinity": (wav_of(struct.pack("<2d", 0.0, -np.inf), kind=3, bits=64), "NaN or infinite"),
    "floats of another scale": (wav_of(struct.pack("<2f", 0.0, 20000.0), kind=3, bits=32), "reach 2e"),
    "samples first": (chunk(b"RIFF", b"WAVE" + chunk(b"data", BODY)), "before their format"),
    "chunks without end": (
        chunk(b"RIFF", b"WAVE" + chunk(b"junk", b"") * (MAX_CHUNKS + 1)),
        f"more than {MAX_CHUNKS} chunks",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    file = tmp_path / "some.wav"
    file.write_bytes(data)
    with pytest.raises(InputError, match=message) as refusal:
        read_audio(file)
    assert str(file) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_more_samples_than_allowed_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensdk_runtime.media.sounds.MAX_ELEMENTS", 799)
    monkeypatch.setattr("gensdk_runtime.media.wav._whole_numbers", lambda *_: pytest.fail("decoded"))
    with pytest.raises(CorruptAudioError, match="over 799; cut it in pieces"):
        decode_audio(wav(tone()))


def ends_well(data: bytes) -> bool:
    """Whether a file is a sound, or refused in printable words."""
    try:
        return bool(np.abs(decode_audio(data).samples).max() <= 1)
    except CorruptAudioError as problem:
        return str(problem).isprintable()


@given(st.binary(max_size=200), st.integers(0, 300))
def test_damage_is_refused_or_read_and_nothing_else(noise: bytes, at: int) -> None:
    whole = bytearray(wav_of(BODY[:200]))
    whole[at : at + len(noise)] = noise
    assert ends_well(bytes(whole))


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.wav"):
        with pytest.raises(InputError, match="no file"):
            read_audio(path)
    with pytest.raises(InputError, match=r"can't write \.mp3; use one of \.wav, \.flac"):
        encode_audio(np.zeros((5, 1), np.int16), 8000, ".mp3")
    with pytest.raises(InputError, match=r"save as \.wav"):
        encode_audio(np.zeros((5, 9), np.int16), 8000, ".flac")


def test_floats_beyond_full_scale_are_counted() -> None:
    sound = decode_audio(wav_of(struct.pack("<4f", 0.0, 1.5, -2.0, 1.0), kind=3, bits=32))
    assert sound.samples[:, 0].tolist() == [0, 1, -1, 1]
    assert sound.clipped == 2


@given(arrays(np.float32, 20, elements=st.floats(-3, 3, width=32)))
def test_no_sample_wraps(samples: np.ndarray) -> None:
    written = to_pcm16(samples[:, None])[:, 0] / 32768
    assert np.abs(written - np.clip(samples, -1, 1)).max() <= 1 / 32768
    with pytest.raises(InputError, match="NaN or infinite"):
        to_pcm16(np.array([[np.inf]], np.float32))


def test_channels_and_rates_are_brought_to_a_form_and_said() -> None:
    left, right = tone(hz=300), tone(hz=900)
    stereo = Sound(np.concatenate([left, right], axis=1), 8000)
    mono, told = stereo.in_form(channels=1, sample_rate=16000)
    assert told == ["2 channels to 1, their mean", "8000 Hz to 16000 Hz, resampled"]
    assert mono.samples.shape == (1600, 1)
    np.testing.assert_allclose(mono.samples[200:-200:2], (left + right)[100:-100] / 2, atol=2e-4)
    both, told = mono.in_form(channels=2)
    assert told == ["1 channels to 2, alike"]
    np.testing.assert_array_equal(both.samples[:, 0], both.samples[:, 1])
    assert stereo.in_form(channels=2, sample_rate=8000)[1] == stereo.in_form()[1] == []
    with pytest.raises(InputError, match="expected a sound of 3 channels or of one, got 2"):
        stereo.in_form(channels=3)


def test_levels_are_in_decibels_of_full_scale() -> None:
    level = level_of(np.concatenate([tone(1.0, hz=100, level=1.0), np.zeros((8000, 1), np.float32)]), 8000)
    assert level.peak == pytest.approx(0, abs=0.01)
    assert level.rms == pytest.approx(-6.02, abs=0.01)
    assert level.silent == pytest.approx(0.5)
    assert level.beyond == 0
    assert level.offset == pytest.approx(0, abs=1e-6)
    assert level_of(np.zeros((5, 1), np.float32), 8000).peak == -np.inf
    with pytest.raises(InputError, match="expected a sound"):
        level_of(np.zeros((0, 1), np.float32), 8000)
