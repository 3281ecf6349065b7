"""Sounds that samples are made from: one for all samples or one for each, brought to the model's rate and length.

A bare array has the model's rate; another one is said beside it, ``(array, rate)``, and resampled. What is done to
a sound on its way is told: channels mixed, another rate, its end cut, samples clipped.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import as_array, check_count, check_path, check_whole, shown
from gensdk_runtime.conditions.base import Array, Condition, register_condition
from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.media.audio_files import read_audio
from gensdk_runtime.media.audio_resampling import resampled_length
from gensdk_runtime.media.sounds import FULL_SCALE, MAX_ELEMENTS, MAX_PEAK, SILENT, Float32, Sound, full_scale
from gensdk_runtime.spec.audio import LEAST_RATE, MAX_CHANNELS, MOST_RATE, AudioConditionSpec
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import ModelSpec

Samples = NDArray[np.floating] | NDArray[np.int16]
OneAudio = Samples | tuple[Samples, int] | Sound | str | Path
Audio = OneAudio | Sequence[OneAudio] | tuple[Sequence[Samples], int]

FEWEST = 8
"""Samples of a sound; an array [n, fewer] is one of several channels that lacks its first axis."""
_STREAM, _PARTS = 1, 8
_QUIETEST = 0.2


@register_condition
class AudioCondition(Condition[AudioConditionSpec]):
    """float32 [n, samples] in [-1, 1], of one channel, zeros behind shorter sounds."""

    Spec: ClassVar = AudioConditionSpec
    required = True
    kept = False
    recorded = True
    absent = "is made from no sound"

    @property
    def row_shape(self) -> tuple[int]:
        """(samples,)."""
        return (self.spec.samples,)

    @property
    def in_words(self) -> str:
        """How long a sound may be, and its rate."""
        return f"sounds of up to {self.spec.seconds:.3g} s at {self.spec.sample_rate} Hz"

    @property
    def example(self) -> str:
        """A file, as Python and a command line write it."""
        return '"sound.wav"'

    @property
    def notes(self) -> tuple[str, ...]:
        """Length and rate."""
        spec = self.spec
        if spec.window:
            return (
                f"audio: a window of {spec.seconds:.3g} s ({spec.samples} samples) at {spec.sample_rate} Hz, one "
                "channel, around the moment of a sample",
            )
        return (
            f"audio: up to {spec.seconds:.3g} s ({spec.samples} samples) at {spec.sample_rate} Hz, one channel",
        )

    def check(self, given: Any, n: int | None) -> Array:
        """The sound of all samples, or one for each; says what was done to them."""
        if given is None:
            raise InputError(
                f"model {self.model.name!r} is made from a sound: pass audio, one for all samples or one for each"
            )
        entries, rate = _entries(given, self.spec.sample_rate)
        several = isinstance(entries, list)
        found = entries if isinstance(entries, list) else [entries]
        if not found:
            raise InputError("expected at least one sound, got none")
        if several and n is not None and len(found) != check_count(n):
            raise InputError(f"expected one sound for each of the {n} samples, got {len(found)}")
        told: Counter[str] = Counter()
        rows = np.zeros((len(found), self.spec.samples), np.float32)
        for number, (row, entry) in enumerate(zip(rows, found, strict=True)):
            what = f"sound {number}" if several else "the sound"
            self._fill(row, _sound(entry, rate, what), what, told)
        for done, count in told.items():
            tell(f"{f'{count} of {len(found)} sounds' if several else 'the sound'}: {done}")
        if several:
            return rows
        return np.broadcast_to(rows, (1 if n is None else check_count(n), self.spec.samples))

    def _fill(self, row: Float32, sound: Sound, what: str, told: Counter[str]) -> None:
        """Writes a sound into its row; `told`: what is done to how many."""
        spec, before = self.spec, sound.sample_rate
        if sound.samples.shape[0] > resampled_length(spec.samples, spec.sample_rate, before):
            told[f"only the first {spec.seconds:.3g} s are listened to"] += 1
        near = resampled_length(spec.samples, spec.sample_rate, before) + before  # what resampling can see
        made, done = Sound(sound.samples[:near], before, sound.clipped).in_form(
            sample_rate=spec.sample_rate, channels=1
        )
        told.update(done)
        if made.clipped:
            told["samples beyond full scale, clipped"] += 1
        kept = made.samples[: spec.samples, 0]
        if not spec.window and np.abs(kept).max() < 10 ** (SILENT / 20):
            raise InputError(
                f"{what} is silent: nothing in its first {spec.seconds:.3g} s is over {SILENT:g} dB; pass another"
            )
        row[: len(kept)] = kept

    def examples(self, n: int, first: int = 0) -> Array:
        """Bursts of noise, some louder than others, of different lengths, the longest one first."""
        samples, places = self.spec.samples, np.arange(first, first + n)
        keys = noise.sample_keys(n, [(0, place) for place in places.tolist()])
        drawn = noise.uniform(keys, _STREAM, (samples + _PARTS,))
        loud = _QUIETEST + (1 - _QUIETEST) * drawn[:, samples:]
        bursts = (2 * drawn[:, :samples] - 1) * loud[:, np.arange(samples) * _PARTS // samples]
        lengths = samples - places * max(1, samples // 3) % samples
        return np.where(np.arange(samples) < lengths[:, None], bursts, 0).astype(np.float32)

    def told(self, values: Array) -> list[Any]:
        """The SHA-256 of each as graphs take it, and how many samples come before the zeros at its end: plain JSON
        holds no sound."""
        known: dict[bytes, dict[str, Any]] = {}
        told = []
        for row in values:
            digest = hashlib.sha256(np.ascontiguousarray(row, "<f4").tobytes())
            if digest.digest() not in known:
                sounding = np.flatnonzero(row)
                known[digest.digest()] = {
                    "sha256": digest.hexdigest(),
                    "samples": int(sounding[-1]) + 1 if len(sounding) else 0,
                }
            told.append(dict(known[digest.digest()]))
        return told


def talks(model: ModelSpec) -> bool:
    """True for a model that makes a still face say what is heard: from an image, and a window of sound."""
    found = model.condition("audio")
    return model.source is not None and isinstance(found, AudioConditionSpec) and found.window


def face_and_window(model: ModelSpec) -> tuple[SourceSpec, AudioConditionSpec]:
    """What such a model takes; :class:`InputError` for another one."""
    source, window = model.source, model.condition("audio")
    if source is None or not isinstance(window, AudioConditionSpec) or not talks(model):
        raise InputError(f"model {model.name!r} makes no face talk; leave audio out")
    return source, window


def _entries(given: Any, rate: int) -> tuple[Any | list[Any], int]:
    """One sound, or a list of several, not yet looked at; and the rate of those that say none."""
    if isinstance(given, tuple) and len(given) == 2 and _is_number(given[1]) and not _is_number(given[0]):
        given, rate = given[0], _rate(given[1])
    if isinstance(given, list | tuple) and not (given and _is_number(given[0])):
        return list(given), rate
    if isinstance(given, str | Path | Sound | bytes | bytearray | Mapping):
        return given, rate
    array = as_array(given, "audio")
    if array.ndim == 2 and array.shape[1] <= FEWEST < array.shape[0]:
        raise InputError(
            f"expected audio [samples], [n, samples] or [n, samples, channels], got {list(array.shape)}; of one "
            "sound with several channels pass [1, samples, channels]"
        )
    return (list(array) if array.ndim in (2, 3) else array), rate


def _sound(entry: Any, rate: int, what: str) -> Sound:
    """One sound in [-1, 1], whatever it is given as; :class:`InputError` for what is none."""
    if isinstance(entry, str | Path):
        return read_audio(check_path(entry, what))
    if isinstance(entry, Mapping) and "sha256" in entry:
        raise InputError(
            "these settings are of samples that were made from sounds, of which they tell the SHA-256 alone; pass "
            "audio too"
        )
    if isinstance(entry, Sound):
        entry, rate = entry.samples, entry.sample_rate
    elif isinstance(entry, tuple) and len(entry) == 2 and _is_number(entry[1]) and not _is_number(entry[0]):
        entry, rate = entry[0], _rate(entry[1])
    if isinstance(entry, bytes | bytearray | Mapping):
        raise InputError(
            f"expected {what} as an array, (array, rate) or the path of a file, got {type(entry).__name__}"
        )
    array = as_array(entry, what)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not 1 <= array.shape[1] <= MAX_CHANNELS:
        raise InputError(f"expected {what} as [samples] or [samples, channels], got {list(np.shape(entry))}")
    if not array.size:
        raise InputError(f"{what} is empty; expected one sample or more")
    if array.size > MAX_ELEMENTS:
        raise InputError(f"{what} has {array.size} samples, more than {MAX_ELEMENTS}; cut it")
    samples, beyond = full_scale(_floats(array, what))
    return Sound(samples, rate, beyond)


def _floats(array: NDArray[Any], what: str) -> Float32:
    """float32 of int16 or floats; nothing is guessed of others' scale."""
    if array.dtype == np.int16:
        return (array / np.float32(FULL_SCALE)).astype(np.float32)
    if array.dtype.kind != "f":
        raise InputError(f"expected {what} as int16, or as floats in [-1, 1], got {array.dtype}; scale it")
    if not np.isfinite(array).all():
        raise InputError(f"{what} has NaN or infinite samples; expected floats in [-1, 1]")
    if (peak := float(np.abs(array).max())) > MAX_PEAK:
        raise InputError(f"{what} reaches {peak:.4g}, and floats of a sound lie in [-1, 1]; scale it")
    return array.astype(np.float32)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _rate(value: Any) -> int:
    if isinstance(value, float | np.floating):
        raise InputError(f"expected the rate of a sound as whole Hz, got {shown(value)}")
    return check_whole(value, "the rate of a sound in Hz", least=LEAST_RATE, most=MOST_RATE)
