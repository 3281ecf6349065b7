"""Files of sounds, told apart by content: WAV, and FLAC by soundfile. Other decoders are reached by nothing."""

from __future__ import annotations

from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.flac import decode_flac, encode_flac, flac_header, is_flac
from gensdk_runtime.media.sounds import AudioHeader, CorruptAudioError, Int16, Sound
from gensdk_runtime.media.wav import decode_wav, encode_wav, is_wav, wav_header

SUFFIXES = (".wav", ".flac")
READ_SUFFIXES = (".wav", ".wave", ".flac")
MAX_FILE_BYTES = 1 << 29


def read_header(data: bytes) -> AudioHeader:
    """What the whole file `data` says of itself; :class:`CorruptAudioError` for others than WAV and FLAC."""
    if is_wav(data):
        return wav_header(data)[0]
    if is_flac(data):
        return flac_header(data)
    raise CorruptAudioError("it is empty" if not data else "it is no WAV nor FLAC file")


def decode_audio(data: bytes) -> Sound:
    """The sound of the whole file `data`.

    Raises :class:`CorruptAudioError` for a file that is cut, damaged, empty, too long, or of another format, and
    :class:`gensdk_runtime.errors.UnavailableError` for FLAC without soundfile.
    """
    read_header(data)
    return decode_wav(data) if is_wav(data) else decode_flac(data)


def read_audio(path: str | Path) -> Sound:
    """The sound in a file; :class:`InputError`, in one line, where there is none."""
    file = Path(path)
    try:
        if not file.is_file():
            raise InputError(f"no file {file}; expected a .wav or .flac file")
        return decode_audio(read_file(file))
    except CorruptAudioError as problem:
        raise InputError(f"{file}: {problem}") from None
    except OSError as failure:
        raise InputError(f"{file}: can't be read ({failure.strerror or failure})") from None


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises :class:`CorruptAudioError` for more than 512 MiB, and `OSError`."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise CorruptAudioError(f"larger than {MAX_FILE_BYTES >> 20} MiB; cut it in pieces")
    return data


def encode_audio(samples: Int16, sample_rate: int, suffix: str, comment: str = "") -> bytes:
    """The bytes of a file of int16 [samples, channels]; `suffix`: one of :data:`SUFFIXES`."""
    if suffix not in SUFFIXES:
        raise InputError(f"can't write {suffix or 'a file without a suffix'}; use one of {', '.join(SUFFIXES)}")
    write = encode_wav if suffix == ".wav" else encode_flac
    return write(samples, sample_rate, comment)
