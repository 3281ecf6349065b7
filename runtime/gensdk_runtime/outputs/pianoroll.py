"""Music as piano rolls: MIDI files, pictures, and sound to hear it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array, check_path, check_whole
from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.media.images import SUFFIXES, encode_image, write_atomically
from gensdk_runtime.media.music.midi_roll import read_roll
from gensdk_runtime.media.music.midi_writing import encode_midi
from gensdk_runtime.media.music.notes import Music
from gensdk_runtime.media.music.roll_picture import roll_picture
from gensdk_runtime.media.music.synthesizer import RATE, encode_wav, synthesize
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
from gensdk_runtime.outputs.numbered import check_fresh
from gensdk_runtime.spec.pianoroll import PianorollSpec

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
SHOWN = 16
"""Pieces that a notebook shows."""


@register_output
class PianorollOutput(Output[PianorollSpec]):
    """float32 [n, tracks, steps, pitches], 1 where a note sounds; as music: notes.

    A piece that ends early is music of as many bars as it needs.
    """

    Spec: ClassVar = PianorollSpec
    plural = "piano rolls"
    suffixes = (".mid", *SUFFIXES, ".wav", ".npz")

    def form(self, samples: Drawn, name: str) -> Any:
        """Applications take them as ``music``."""
        if name != "music":
            raise InputError(f"these samples are {self.plural}, not {name}; take music, or array")
        return self.own_form(samples)

    def own_form(self, samples: Drawn) -> Any:
        """A :class:`Music` for each."""
        return self._pieces(samples, len(samples))

    def _pieces(self, samples: Drawn, most: int) -> tuple[Music, ...]:
        """The first ones, each up to its end."""
        rolls = samples.data[:most]
        if samples.lengths is None:
            return tuple(Music.from_roll(roll, self.spec) for roll in rolls)
        ends = samples.lengths[:most].tolist()
        return tuple(Music.beginning(roll, self.spec, end) for roll, end in zip(rolls, ends, strict=True))

    def given(self, values: Any, *, levels: int | None = None) -> Float32:
        """Whole piano rolls float32 [n, tracks, steps, pitches], from such an array, or one of bool or whole
        numbers; ones and zeros."""
        return self._rolls(values, "piano rolls", self.spec.steps, self.spec.steps)

    def beginning(self, values: Any) -> tuple[Float32, Int64]:
        """The first steps of piano rolls as (float32 [n, tracks, longest, pitches], steps int64 [n]), from such an
        array."""
        rolls = self._rolls(values, "prefix", 1, self.spec.steps - 1)
        return rolls, np.full(len(rolls), rolls.shape[2], np.int64)

    def _rolls(self, values: Any, what: str, least: int, most: int) -> Float32:
        array, (tracks, _, pitches) = as_array(values, what), self.spec.shape
        steps = array.shape[2] if array.ndim == 4 else 0
        fits = array.ndim == 4 and array.shape[1::2] == (tracks, pitches) and least <= steps <= most
        if not fits or not len(array):
            wanted = f"{least}" if least == most else f"{least} to {most}"
            got = list(array.shape)
            raise InputError(f"expected {what} as rolls [n, {tracks}, {wanted} steps, {pitches}], got {got}")
        if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():  # NaN is neither
            raise InputError(f"expected {what} as ones, where a note sounds, and zeros, got others; round them")
        return np.ascontiguousarray(array, np.float32)

    def prefix_of(self, path: str | Path, length: int | None = None) -> Array:
        """The beginning of a MIDI file, by default its first half in whole bars: float32 [1, tracks, steps,
        pitches]. Its tracks are the model's by their names, or by their order where none has such a name."""
        roll, told = read_roll(path, self.spec)
        for what in told:
            tell(f"{path}: {what}")
        if length is None:
            bar = self.spec.steps_per_bar
            most = self.spec.steps - 1
            length = min(max(bar, roll.shape[1] // 2 // bar * bar), most // bar * bar or most)
        check_whole(length, "the steps of a prefix", least=1, most=self.spec.steps - 1)
        if roll.shape[1] < length:
            raise InputError(f"{path} has {roll.shape[1]} steps, expected {length} or more; give a longer piece")
        return roll[None, :, :length].astype(np.float32)

    def in_words(self, data: Array) -> str:
        """As in "piano rolls of 2 bars, 4 tracks"."""
        return f"{self.plural} of {self._size}"

    @property
    def of_shape(self) -> str:
        """As above."""
        return f"{self.plural} of {self._size}"

    @property
    def _size(self) -> str:
        spec = self.spec
        bars, tracks = (
            f"{n} {name}{'' if n == 1 else 's'}" for n, name in ((spec.bars, "bar"), (len(spec.tracks), "track"))
        )
        return f"{bars}, {tracks}"

    @property
    def facts(self) -> str:
        """Bars, steps, pitches, tempo and tracks."""
        spec = self.spec
        last = spec.lowest_pitch + spec.pitches - 1
        names = ", ".join(
            f"{track.name} ({'drums' if track.is_drum else f'program {track.program}'})" for track in spec.tracks
        )
        return (
            f"{spec.bars} bars of {spec.beats_per_bar} beats, {spec.steps_per_beat} steps a beat, pitches "
            f"{spec.lowest_pitch} to {last}, {spec.tempo:g} beats a minute; tracks: {names}"
        )

    def picture(self, samples: Drawn, arrangement: Arrangement = AS_IT_IS) -> Uint8:
        """The rolls beside each other; `arrangement`, which is for images, is refused."""
        self._refuse(arrangement)
        return roll_picture(self.own_form(samples))

    def shown(self, samples: Drawn) -> Uint8 | None:
        """The first ones."""
        if not len(samples):
            return None
        return roll_picture(self._pieces(samples, SHOWN))

    def arrays(self, samples: Drawn) -> dict[str, Array]:
        """In bytes, which are eight times smaller in memory than they were, and much smaller in a file."""
        return {"array": self.array(samples.data).astype(np.uint8)}

    def check_target(
        self, path: str | Path, arrangement: Arrangement = AS_IT_IS, *, others: Sequence[str] = ()
    ) -> None:
        """A path without a suffix is a folder, which must hold no MIDI files from before."""
        target = check_path(path, "a path")
        if target.suffix and not target.is_dir():
            return super().check_target(target, arrangement, others=others)
        if arrangement not in (AS_IT_IS, Arrangement("folder")):
            raise InputError(f"columns and scale are for images, and these are {self.plural}; leave them out")
        check_folder(target)
        if target.is_dir():
            check_fresh(target, ".mid", "MIDI file")
        return None

    def save(self, samples: Drawn, target: Path, arrangement: Arrangement = AS_IT_IS) -> None:
        """One file of all, or a folder with a MIDI file for each."""
        if target.suffix and not target.is_dir():
            super().save(samples, target, arrangement)
            return
        self.check_target(target, arrangement)
        for number, piece in enumerate(self.own_form(samples)):
            write_atomically(target / f"{number:05d}.mid", encode_midi([piece]))

    def encoded(self, samples: Drawn, suffix: str) -> bytes:
        """MIDI and sound with all pieces one after the other, a picture of all, or the arrays."""
        if suffix == ".npz":
            return self.npz(samples)
        if suffix == ".mid":
            return encode_midi(self.own_form(samples))
        if suffix == ".wav":
            return encode_wav(synthesize(self.own_form(samples)), RATE)
        return encode_image(self.picture(samples), suffix, samples.settings)
