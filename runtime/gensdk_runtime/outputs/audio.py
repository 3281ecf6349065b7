"""Sounds: files one by one or joined, a picture of waveforms and spectrograms, players in a notebook."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array, check_path, check_whole
from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.media.audio_files import SUFFIXES, encode_audio, read_audio
from gensdk_runtime.media.audio_picture import sound_picture
from gensdk_runtime.media.flac import soundfile
from gensdk_runtime.media.images import SUFFIXES as PICTURES
from gensdk_runtime.media.images import encode_image, write_atomically
from gensdk_runtime.media.sounds import MAX_ELEMENTS, Float32, decibels, to_pcm16
from gensdk_runtime.outputs.base import (
    AS_IT_IS,
    Arrangement,
    Array,
    Drawn,
    Output,
    Uint8,
    check_folder,
    register_output,
)
from gensdk_runtime.spec.audio import AudioSpec

PAUSE = 0.25
"""Seconds of silence between sounds that are joined in one file."""
PLAYED, PLAYED_BYTES = 8, 4 << 20
"""Sounds that a notebook plays, and the most bytes of WAV in its page."""
NUMBERED = re.compile(r"[0-9]{5,}\.wav")


@register_output
class AudioOutput(Output[AudioSpec]):
    """float32 [n, samples, channels] in [-1, 1], full scale; of sounds that end early, the rest is no part of
    them.

    Files hold 16 bits; what lies beyond full scale is clipped there, and said.
    """

    Spec: ClassVar = AudioSpec
    plural = "sounds"
    attribute = "audio"
    suffixes = (*SUFFIXES, ".npz", *PICTURES)

    @property
    def sample_rate(self) -> int:
        """Samples in a second, Hz."""
        return self.spec.sample_rate

    def in_words(self, data: Array) -> str:
        """As in "sounds of 1.0 s at 8000 Hz"."""
        channels = f", {data.shape[2]} channels" if data.shape[2] > 1 else ""
        return (
            f"sounds of {_seconds(data.shape[1] / self.spec.sample_rate)} at {self.spec.sample_rate} Hz{channels}"
        )

    @property
    def of_shape(self) -> str:
        """As in "sounds of 1.0 s at 8000 Hz"."""
        return self.in_words(np.empty((0, *self.spec.shape), np.float32))

    @property
    def facts(self) -> str:
        """Length, rate and channels."""
        spec = self.spec
        return (
            f"{_seconds(spec.seconds)} ({spec.samples} samples) at {spec.sample_rate} Hz, {spec.channels} "
            f"channel{'s' if spec.channels > 1 else ''}, full scale is [-1, 1]"
        )

    def given(self, values: Any, *, levels: int | None = None) -> Float32:
        """float32 [n, samples, channels] in [-1, 1], from that, from [n, samples] of one channel, or from
        one sound [samples]."""
        array, (samples, channels) = as_array(values, "sounds"), self.spec.shape
        if array.dtype.kind != "f":
            raise InputError(f"expected sounds as floats in [-1, 1], got {array.dtype}; scale them")
        if array.ndim == 1:
            array = array[None]
        if array.ndim == 2 and channels == 1:
            array = array[..., None]
        if array.ndim != 3 or not len(array) or array.shape[1:] != (samples, channels):
            got = list(np.shape(values))
            raise InputError(
                f"expected sounds [n, {samples}, {channels}] at {self.spec.sample_rate} Hz, got {got}"
            )
        if not (np.abs(array) <= 1).all():  # NaN fails, too
            raise InputError("expected sounds in [-1, 1], got samples beyond or NaN; scale them")
        if levels is not None:
            array = np.rint((array.astype(np.float64) + 1) / 2 * (levels - 1)) * 2 / (levels - 1) - 1
        return np.ascontiguousarray(array, np.float32)

    def beginning(self, values: Any) -> tuple[Float32, NDArray[np.int64]]:
        """The first part of sounds as (float32 [n, longest, channels], lengths int64 [n]), from that, from [n,
        longest] of one channel, or from one sound [longest]."""
        array, most = as_array(values, "prefix"), self.spec.samples - 1
        length = array.shape[min(array.ndim - 1, 1)] if array.ndim else 0
        if not 1 <= length <= most:
            raise InputError(
                f"expected a prefix of 1 to {most} samples at {self.spec.sample_rate} Hz, got {length}; shorten it"
            )
        begun = AudioOutput(self.spec.model_copy(update={"samples": length})).given(array)
        return begun, np.full(len(begun), length, np.int64)

    def prefix_of(self, path: str | Path, length: int | None = None) -> Float32:
        """The beginning of a sound file, by default all of it: float32 [1, samples, channels] at the model's
        rate."""
        sound, told = read_audio(path).in_form(sample_rate=self.spec.sample_rate, channels=self.spec.channels)
        for what in told:
            tell(f"{path}: {what}")
        if length is not None:
            check_whole(length, "the samples of a prefix", least=1, most=self.spec.samples - 1)
        return sound.samples[None, :length].astype(np.float32)

    def picture(self, samples: Drawn, arrangement: Arrangement = AS_IT_IS) -> Uint8:
        """Waveforms and spectrograms; `arrangement`, which is for images, is refused."""
        self._refuse(arrangement)
        return sound_picture(sounds_of(samples), self.spec.sample_rate)

    def shown(self, samples: Drawn) -> Uint8 | None:
        """The first ones."""
        return self.picture(samples) if len(samples) else None

    def page(self, samples: Drawn) -> str | None:
        """Players of the first sounds, as long as they are small enough, and their picture."""
        room, players = PLAYED_BYTES, []
        for sound in sounds_of(samples)[:PLAYED]:
            size = 2 * sound.size
            if size > room or not sound.size or not np.isfinite(sound).all():
                break
            room -= size
            wav = encode_audio(to_pcm16(sound), self.spec.sample_rate, ".wav")
            source = f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"
            players.append(f'<audio controls preload="none" src="{source}"></audio>')
        if not players:
            return None
        left = len(samples) - len(players)
        more = f"<div>and {left} more; save them to hear them</div>" if left else ""
        picture = base64.b64encode(encode_image(self.picture(samples), ".png", {})).decode()
        return f'<div>{"".join(players)}</div>{more}<img src="data:image/png;base64,{picture}"/>'

    def check_target(
        self, path: str | Path, arrangement: Arrangement = AS_IT_IS, *, others: Sequence[str] = ()
    ) -> None:
        """A path without a suffix is a folder, which must hold no sounds from before."""
        target = check_path(path, "a path")
        if target.suffix.lower() == ".flac" and not target.is_dir():
            soundfile()  # which may be missing
        if target.suffix and not target.is_dir():
            super().check_target(target, arrangement, others=others)
            return
        if arrangement not in (AS_IT_IS, Arrangement("folder")):
            raise InputError("layout, columns and scale are for images, and these are sounds; leave them out")
        check_folder(target)
        if target.is_dir() and any(NUMBERED.fullmatch(entry.name) for entry in target.iterdir()):
            raise InputError(f"{target} holds sounds from before; choose another folder, or remove them")

    def save(self, samples: Drawn, target: Path, arrangement: Arrangement = AS_IT_IS) -> None:
        """A folder of ``00000.wav``, ``00001.wav`` ..., or one file."""
        self.check_target(target, arrangement)
        if target.suffix and not target.is_dir():
            write_atomically(target, self.encoded(samples, target.suffix.lower()))
            return
        sounds = _playable(samples)
        for number, sound in enumerate(sounds):
            comment = json.dumps(samples.settings_of(number))
            data = encode_audio(to_pcm16(sound), self.spec.sample_rate, ".wav", comment)
            write_atomically(target / f"{number:05d}.wav", data)
        _tell_clipped(sounds)

    def encoded(self, samples: Drawn, suffix: str) -> bytes:
        """A file of one sound, or of several joined with pauses; the arrays; or a picture."""
        if suffix == ".npz":
            return self.npz(samples)
        if suffix in PICTURES:
            return encode_image(self.picture(samples), suffix, samples.settings)
        sounds, rate = _playable(samples), self.spec.sample_rate
        data = encode_audio(to_pcm16(_joined(sounds, rate)), rate, suffix, json.dumps(dict(samples.settings)))
        _tell_clipped(sounds)
        if len(sounds) > 1:
            tell(
                f"{len(sounds)} sounds are one file, {PAUSE} s of silence between them; a folder takes them apart"
            )
        return data

    def arrays(self, samples: Drawn) -> dict[str, Array]:
        """The samples, and their rate."""
        return {**super().arrays(samples), "sample_rate": np.array(self.spec.sample_rate)}


def sounds_of(samples: Drawn) -> list[Float32]:
    """Each sound as far as it goes, float32 [samples, channels]."""
    ends = [samples.data.shape[1]] * len(samples) if samples.lengths is None else samples.lengths.tolist()
    return [sound[:end] for sound, end in zip(samples.data, ends, strict=True)]


def _playable(samples: Drawn) -> list[Float32]:
    """The sounds for a file; InputError where there is nothing in one."""
    sounds = sounds_of(samples)
    if any(not len(sound) for sound in sounds):
        raise InputError(
            "a sound of these ended before it began, and no file holds that; leave it out, or save .npz"
        )
    return sounds


def _joined(sounds: Sequence[Float32], sample_rate: int) -> Float32:
    """One after the other, with silence between."""
    pause = np.zeros((round(PAUSE * sample_rate), sounds[0].shape[1]), np.float32)
    parts = [part for sound in sounds for part in (pause, sound)][1:]
    if sum(part.size for part in parts) > MAX_ELEMENTS:
        raise InputError(f"{len(sounds)} sounds are too long for one file; save them into a folder")
    return np.concatenate(parts)


def _tell_clipped(sounds: Sequence[Float32]) -> None:
    """Says how much was clipped in a file, if anything."""
    count = sum(int((np.abs(sound) > 1).sum()) for sound in sounds)
    if count:
        peak, total = max(float(np.abs(sound).max()) for sound in sounds), sum(sound.size for sound in sounds)
        tell(
            f"{count} of {total} samples lie beyond full scale, the loudest {decibels(peak):+.1f} dB: they are "
            "clipped in the file; an .npz keeps them"
        )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.3g} s"
