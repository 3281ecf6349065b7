"""FLAC files (RFC 9639) of unknown origin, by soundfile, once their own header says what may be decoded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.sounds import AudioHeader, CorruptAudioError, Int16, Sound

MAX_FLAC_CHANNELS, MAX_FLAC_RATE = 8, 655_350


def soundfile() -> Any:
    """The module; :class:`UnavailableError` where it, or the library that it calls, is not installed."""
    try:
        import soundfile as module
    except (ImportError, OSError) as failure:
        raise UnavailableError(f'FLAC files need soundfile ({failure}): pip install "gensdk[audio]"') from None
    return module


def is_flac(data: bytes) -> bool:
    """Whether the first bytes are a FLAC file's."""
    return data[:4] == b"fLaC"


def flac_header(data: bytes) -> AudioHeader:
    """What STREAMINFO says (RFC 9639, 8.2); :class:`CorruptAudioError` where it is cut, or no sound can be
    that."""
    info = data[8:42]
    if not is_flac(data) or data[4] & 0x7F or int.from_bytes(data[5:8], "big") != 34 or len(info) < 34:
        raise CorruptAudioError("its header is cut or damaged")
    packed = int.from_bytes(info[10:18], "big")
    samples = packed & (1 << 36) - 1
    if not samples:
        raise CorruptAudioError("it does not say how long it is; write it again, not as a stream")
    channels, bits = (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    return AudioHeader("FLAC", packed >> 44, channels, samples, bits).checked()


def decode_flac(data: bytes) -> Sound:
    """The sound of the whole file `data`; :class:`CorruptAudioError` unless all of it is there.

    Raises :class:`UnavailableError` without soundfile.
    """
    module, header = soundfile(), flac_header(data)
    try:
        with module.SoundFile(io.BytesIO(data)) as file:
            told = (file.format, file.samplerate, file.channels)
            if told != ("FLAC", header.sample_rate, header.channels):
                raise CorruptAudioError("its header contradicts itself")
            samples = file.read(header.samples, dtype="float32", always_2d=True)
    except (module.SoundFileError, RuntimeError, MemoryError) as failure:
        raise CorruptAudioError(f"it can't be decoded ({str(failure).splitlines()[0][:80]})") from None
    if len(samples) != header.samples:
        raise CorruptAudioError(f"it is cut: it says {header.samples} samples, and has {len(samples)}")
    return Sound(np.ascontiguousarray(samples, np.float32), header.sample_rate)


def encode_flac(samples: Int16, sample_rate: int, comment: str = "") -> bytes:
    """A FLAC file of int16 [samples, channels], 1 to 8 of them; `comment`: text that players show.

    Raises :class:`InputError` for more channels or a higher rate than FLAC holds, and :class:`UnavailableError`
    without soundfile.
    """
    if samples.shape[1] > MAX_FLAC_CHANNELS or sample_rate > MAX_FLAC_RATE:
        raise InputError(
            f"FLAC holds up to {MAX_FLAC_CHANNELS} channels at up to {MAX_FLAC_RATE} Hz, got "
            f"{samples.shape[1]} at {sample_rate}; save as .wav"
        )
    module, file = soundfile(), io.BytesIO()
    with module.SoundFile(file, "w", sample_rate, samples.shape[1], "PCM_16", format="FLAC") as writer:
        if comment:
            writer.comment = comment
        writer.write(samples)
    return file.getvalue()
