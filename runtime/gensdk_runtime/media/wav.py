"""WAV files of unknown origin: RIFF chunks (Microsoft & IBM 1991) of whole numbers or floats.

Read here and not by a library, since those fill up a file that is cut, or play what a wrong header claims: what
the chunks say is compared with what there is before memory is taken. Written as 16 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from gensdk_runtime.media.sounds import MAX_PEAK, AudioHeader, CorruptAudioError, Float32, Int16, Sound, full_scale

MAX_CHUNKS = 1000
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_FORMAT_BYTES = 16
_GUID = bytes.fromhex("000000001000800000aa00389b71")
"""Of the formats in an extensible header, behind their number."""
_KNOWN = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


def is_wav(data: bytes) -> bool:
    """Whether the first bytes are a WAV file's."""
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


def wav_header(data: bytes) -> tuple[AudioHeader, int]:
    """What the whole file `data` says of itself, and where its samples begin.

    Raises :class:`CorruptAudioError` for a file that is cut, contradicts itself, or holds another format.
    """
    found: AudioHeader | None = None
    for name, start, size in _chunks(data):
        if name == b"fmt " and found is None:
            found = _format(data[start : start + min(size, 64)])
        elif name == b"data":
            if found is None:
                raise CorruptAudioError("its samples come before their format; write it again")
            left = len(data) - start
            if size > left:
                raise CorruptAudioError(f"it is cut: it says {size} bytes of samples, and {left} follow")
            frame = found.channels * found.bits // 8
            if size % frame:
                raise CorruptAudioError(
                    f"its {size} bytes of samples are no multiple of {frame}, one of each channel"
                )
            whole = AudioHeader("WAV", found.sample_rate, found.channels, size // frame, found.bits, found.floats)
            return whole.checked(), start
    raise CorruptAudioError("it is cut or damaged: it has no " + ("format" if found is None else "samples"))


def decode_wav(data: bytes) -> Sound:
    """The sound of the whole file `data`; :class:`CorruptAudioError` as above, and for NaN among floats."""
    header, start = wav_header(data)
    count, bits = header.samples * header.channels, header.bits
    raw = memoryview(data)[start : start + count * bits // 8]
    clipped = 0
    if header.floats:
        floats = np.frombuffer(raw, f"<f{bits // 8}")
        if not np.isfinite(floats).all():
            raise CorruptAudioError("it has NaN or infinite samples")
        if (peak := float(np.abs(floats).max())) > MAX_PEAK:
            raise CorruptAudioError(
                f"its samples reach {peak:.4g}, and floats of a sound lie in [-1, 1]; scale it"
            )
        values, clipped = full_scale(floats.astype(np.float32))
    else:
        values = _whole_numbers(raw, bits)
    return Sound(values.reshape(header.samples, header.channels), header.sample_rate, clipped)


def encode_wav(samples: Int16, sample_rate: int, comment: str = "") -> bytes:
    """A WAV file of int16 [samples, channels]; `comment`: text that players show, as ICMT in the INFO chunk."""
    channels = samples.shape[1]
    body = np.ascontiguousarray(samples, "<i2").tobytes()
    form = struct.pack("<HHIIHH", _PCM, channels, sample_rate, sample_rate * channels * 2, channels * 2, 16)
    chunks = _chunk(b"fmt ", form) + _chunk(b"data", body)
    if comment:
        chunks += _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", comment.encode() + b"\0"))
    return _chunk(b"RIFF", b"WAVE" + chunks)


def wav_comment(data: bytes) -> str:
    """The text that :func:`encode_wav` was given; empty where there is none."""
    for name, start, size in _chunks(data):
        if name == b"LIST" and data[start : start + 8] == b"INFOICMT":
            return data[start + 12 : start + size].rstrip(b"\0").decode("utf-8", "replace")
    return ""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its content starts, bytes that it says it has) of each chunk, in order."""
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, size
        at += 8 + size + size % 2
    raise CorruptAudioError(f"it has more than {MAX_CHUNKS} chunks")


def _format(text: bytes) -> AudioHeader:
    """What the format chunk says, without a count of samples."""
    if len(text) < _FORMAT_BYTES:
        raise CorruptAudioError("its format is cut")
    kind, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", text)
    if kind == _EXTENSIBLE:
        if len(text) < 40:
            raise CorruptAudioError("its extensible format is cut")
        valid = int.from_bytes(text[18:20], "little")
        kind = int.from_bytes(text[24:26], "little")
        if text[26:40] != _GUID or valid > bits:
            raise CorruptAudioError("its extensible format is unknown; write it as plain WAV of 16 bits")
    if (kind, bits) not in _KNOWN:
        raise CorruptAudioError(
            f"its format is {kind} with {bits} bits, expected whole numbers of 8, 16, 24 or 32 bits, or floats; "
            "write it as plain WAV of 16 bits"
        )
    header = AudioHeader("WAV", rate, channels, 1, bits, kind == _FLOAT).checked()
    if frame != channels * bits // 8:
        raise CorruptAudioError(
            f"its header contradicts itself: {channels} x {bits} bits, but blocks of {frame} bytes"
        )
    return header


def _whole_numbers(raw: memoryview, bits: int) -> Float32:
    """Whole numbers to [-1, 1)."""
    if bits == 8:  # without a sign
        return ((np.frombuffer(raw, np.uint8) - 128.0) / 128).astype(np.float32)
    if bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2**31).astype(np.float32)
    return (np.frombuffer(raw, f"<i{bits // 8}") / 2.0 ** (bits - 1)).astype(np.float32)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)
