"""Sounds for tests: tones, WAV files chunk by chunk, and folders of spoken digits that are none."""

from __future__ import annotations

import io
import struct
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.media.sounds import to_pcm16
from gensdk_runtime.media.wav import encode_wav

needs_soundfile = pytest.mark.skipif(find_spec("soundfile") is None, reason="the extra audio is not installed")


def tone(
    seconds: float = 0.1, rate: int = 8000, hz: float = 440.0, level: float = 0.5, channels: int = 1
) -> np.ndarray:
    """float32 [samples, channels]."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    """A WAV file of 16 bits."""
    return encode_wav(to_pcm16(samples), rate)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk; `size`: what it says in place of its true one."""
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def wav_of(
    body: bytes,
    *,
    kind: int = 1,
    channels: int = 1,
    rate: int = 8000,
    bits: int = 16,
    frame: int | None = None,
    size: int | None = None,
    extension: bytes = b"",
) -> bytes:
    """A WAV file that says what it is told to say."""
    frame = channels * bits // 8 if frame is None else frame
    form = struct.pack("<HHIIHH", kind, channels & 0xFFFF, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    chunks = chunk(b"fmt ", form + extension) + chunk(b"data", body, size)
    return chunk(b"RIFF", b"WAVE" + chunks)


def spoken(folder: Path, *, speakers: tuple[str, ...] = ("ann", "bo"), digits: int = 3, takes: int = 7) -> Path:
    """Files DIGIT_SPEAKER_TAKE.wav, a tone for each digit and speaker, of several lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    for digit in range(digits):
        for at, speaker in enumerate(speakers):
            for take in range(takes):
                sound = tone(0.03 + 0.01 * take, hz=200 * (1 + 3 * digit + at), level=0.2 + 0.05 * take)
                (folder / f"{digit}_{speaker}_{take}.wav").write_bytes(wav(sound))
    return folder


def packed(folder: Path, target: Path) -> Path:
    """A .tar.gz of a folder, under its name."""
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)
    return target


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], target: Path) -> Path:
    """A .tar.gz of members as they are given."""
    with tarfile.open(target, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return target
