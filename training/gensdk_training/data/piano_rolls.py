"""Music as phrases of piano rolls: pieces on a grid, cut at bars, and moved to other keys where that is asked
for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.spec.pianoroll import OCTAVE, PITCHES, PianorollSpec, TrackSpec
from gensdk_training.data.dataset import Dataset, ImageBatch, Labels, LoadOptions
from gensdk_training.family import DataInfo

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]
BARS, STEPS_PER_BEAT, BEATS_PER_BAR = 2, 4, 4
"""Where nothing else is asked for."""
MAX_TRANSPOSE, MAX_BARS = 11, 256


@dataclass(frozen=True)
class Piece:
    """One piece: `roll` bool [tracks, steps, 128]; `name` in messages."""

    name: str
    roll: Bool


@dataclass
class Pieces:
    """What a source holds: the `pieces` of the part that is asked for, and the `lowest` and `highest` pitch of all
    parts, so that each of them has the same format, as the steps of the `longest` have."""

    tracks: tuple[TrackSpec, ...]
    tempo: float
    pieces: list[Piece]
    lowest: int
    highest: int
    longest: int
    steps_per_beat: int = STEPS_PER_BEAT
    notes: list[str] = field(default_factory=list)
    split: str = ""
    values: str = ""


class PianorollDataset(Dataset):
    """Phrases in memory: `rolls`, whole pieces bool [tracks, steps, pitches]; `places` int64 [N, 3], of each
    phrase its piece, its first step, and by how many semitones it is transposed. Drums stay as they are.

    Where ``info.ends`` a phrase is a whole piece: what is shorter than the format ends in silence, and
    ``ImageBatch.lengths`` says where.
    """

    def __init__(self, info: DataInfo, rolls: Sequence[Bool], places: Int64, form: PianorollSpec) -> None:
        super().__init__(info, None)
        self.rolls = rolls
        self.places = places
        self.form = form
        self._melodic = np.array([not track.is_drum for track in form.tracks])

    def _digest(self) -> str:
        digest = hashlib.blake2b(self.form.to_json().encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.places).data)
        for roll in self.rolls:
            digest.update(np.packbits(roll).data)
        if self.info.ends:
            digest.update(b"whole")
        return digest.hexdigest()

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The phrases at `indices`: float32 [B, tracks, steps, pitches], ones and zeros."""
        phrases = np.zeros((len(indices), *self.form.shape), np.float32)
        lengths = np.zeros(len(indices), np.int64)
        for row, (piece, first, shift) in enumerate(self.places[indices].tolist()):
            phrase = self.rolls[piece][:, first : first + self.form.steps]
            lengths[row] = phrase.shape[1]
            out = phrases[row, :, : lengths[row]]
            out[:] = phrase
            if shift:  # no further than there is room: nothing comes back at the other end
                out[self._melodic] = np.roll(phrase[self._melodic], shift, axis=2)
        return ImageBatch(phrases, None, lengths=lengths if self.info.ends else None)

    @property
    def labels(self) -> Labels | None:
        """Music has none."""
        return None

    def take(self, indices: NDArray[np.int64]) -> PianorollDataset:
        """A data set of the phrases at `indices`."""
        kept = self.info.model_copy(update={"count": len(indices)})
        dataset = PianorollDataset(kept, self.rolls, self.places[indices], self.form)
        self._pass_on(dataset)
        return dataset

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> PianorollDataset:
        """:class:`InputError`: music has no classes here."""
        raise InputError(f"{self.info.name!r} is music, which has no classes; leave labels out")

    def as_they_are(self) -> PianorollDataset:
        """The phrases without their transpositions."""
        return self.take(np.flatnonzero(self.places[:, 2] == 0))

    def in_format(self, form: PianorollSpec) -> tuple[PianorollDataset, int]:
        """The same phrases in the pitches of `form`, and how many notes' steps lie outside of it and are lost.

        Raises :class:`InputError` for other tracks, steps, or beats.
        """
        own = self.form
        if (len(own.tracks), own.steps, own.steps_per_beat) != (len(form.tracks), form.steps, form.steps_per_beat):
            raise InputError(
                f"the model makes {output_of(form).of_shape} at {form.steps_per_beat} steps a beat, and "
                f"{self.info.name!r} are {output_of(own).of_shape} at {own.steps_per_beat}; give what it learned"
            )
        rolls, lost = [], 0
        for roll in self.rolls:
            whole = np.zeros((*roll.shape[:2], PITCHES), np.bool_)
            whole[:, :, own.lowest_pitch : own.lowest_pitch + own.pitches] = roll
            rolls.append(whole[:, :, form.lowest_pitch : form.lowest_pitch + form.pitches])
            lost += int(roll.sum()) - int(rolls[-1].sum())
        info = self.info.model_copy(update={"form": form, "width": form.pitches})
        dataset = PianorollDataset(info, rolls, self.places, form)
        self._pass_on(dataset)
        return dataset, lost


def pianoroll_dataset(name: str, found: Pieces, options: LoadOptions) -> PianorollDataset:
    """The phrases of `found` as `options` ask for them.

    A phrase has `options.bars` bars and begins at each bar, so that phrases overlap. Phrases that are silent, and
    steps that fill no bar at a piece's end, are dropped. With `options.whole` a phrase is a piece from its
    beginning to its end, and longer pieces are left out. With `options.transpose` each phrase stands there in all
    keys up to so many semitones away whose notes stay within the pitches. What was done is among the findings.
    Raises :class:`InputError` where nothing is left.
    """
    form = _format(found, options)
    low, high = form.lowest_pitch, form.lowest_pitch + form.pitches
    rolls = [piece.roll[:, :, low:high] for piece in found.pieces]
    counts: Counter[str] = Counter()
    cut = whole_pieces if options.whole else phrases
    places = cut(rolls, form, options.transpose or 0, counts)
    if not len(places):
        raise InputError(_nothing_left(name, form, options))
    info = DataInfo(
        name=name,
        channels=len(form.tracks),
        height=form.steps,
        width=form.pitches,
        count=len(places),
        form=form,
        ends=options.whole or None,
    )
    dataset = PianorollDataset(info, rolls, places, form)
    findings, plain = dataset.findings, int((places[:, 2] == 0).sum())
    findings.values = found.values or "ones and zeros"
    findings.split = found.split
    told = f"{plain} phrases of {form.bars} bars, one from each bar of {len(rolls)} pieces: they overlap"
    if options.whole:
        told = f"{plain} of {len(rolls)} pieces, whole, up to {form.bars} bars: behind their ends lies silence"
    findings.note(told if not options.transpose else f"{told}; {len(places)} with those moved to other keys")
    for text in found.notes:
        findings.note(text)
    for text, count in counts.items():
        if count:
            findings.note(f"{count} {text}")
    return dataset


def _format(found: Pieces, options: LoadOptions) -> PianorollSpec:
    lowest, bar = found.lowest // OCTAVE * OCTAVE, found.steps_per_beat * BEATS_PER_BAR
    return PianorollSpec(
        tracks=found.tracks,
        lowest_pitch=lowest,
        pitches=min(PITCHES, (found.highest // OCTAVE + 1) * OCTAVE) - lowest,
        steps_per_beat=found.steps_per_beat,
        beats_per_bar=BEATS_PER_BAR,
        bars=options.bars or (min(MAX_BARS, -(-found.longest // bar)) if options.whole else BARS),
        tempo=min(500.0, max(10.0, round(found.tempo, 2))),
    )


def phrases(rolls: Sequence[Bool], form: PianorollSpec, transpose: int, counts: Counter[str]) -> Int64:
    """Where the phrases lie: int64 [N, 3], piece, first step and semitones, the plain one of each phrase first."""
    melodic = np.array([not track.is_drum for track in form.tracks])
    places: list[tuple[int, int, int]] = []
    for number, roll in enumerate(rolls):
        steps = roll.shape[1]
        counts[f"pieces shorter than {form.bars} bars, left out"] += steps < form.steps
        counts["steps at the ends of pieces that fill no bar, cut off"] += steps % form.steps_per_bar
        for first in range(0, steps - form.steps + 1, form.steps_per_bar):
            phrase = roll[:, first : first + form.steps]
            if not phrase.any():
                counts["silent phrases, left out"] += 1
                continue
            places += [(number, first, shift) for shift in _shifts(phrase[melodic], transpose)]
    return np.array(places, np.int64).reshape(-1, 3)


def whole_pieces(rolls: Sequence[Bool], form: PianorollSpec, transpose: int, counts: Counter[str]) -> Int64:
    """As :func:`phrases`, of pieces that are no longer than the format and not silent."""
    melodic = np.array([not track.is_drum for track in form.tracks])
    places: list[tuple[int, int, int]] = []
    for number, roll in enumerate(rolls):
        if roll.shape[1] > form.steps:
            counts[f"pieces longer than {form.bars} bars, left out"] += 1
        elif not roll.any():
            counts["silent pieces, left out"] += 1
        else:
            places += [(number, 0, shift) for shift in _shifts(roll[melodic], transpose)]
    return np.array(places, np.int64).reshape(-1, 3)


def _shifts(melodic: Bool, transpose: int) -> list[int]:
    """By how many semitones the tracks [tracks, steps, pitches] may be moved, 0 first."""
    used = np.flatnonzero(melodic.any(axis=(0, 1)))
    down, up = (0, 0) if not len(used) else (int(used[0]), melodic.shape[2] - 1 - int(used[-1]))
    return sorted(range(-min(transpose, down), min(transpose, up) + 1), key=abs)


def _nothing_left(name: str, form: PianorollSpec, options: LoadOptions) -> str:
    if options.whole:
        return f"{name}: no piece in which something sounds has at most {form.bars} bars; set more --bars"
    return f"{name}: no piece has {form.bars} bars in which something sounds; set fewer --bars"


def check_options(options: LoadOptions) -> None:
    """Raises :class:`InputError` for options that music does not have, and for what can't be done with it."""
    for name in ("size", "channels", "value_range", "depth"):
        if getattr(options, name) is not None:
            raise InputError(f"{name} is for images, and these data are music; leave it out")
    if options.labels not in ("auto", "none"):
        raise InputError(f"music has no labels {options.labels[:40]!r}; leave labels out")
    for name, least, most in (("bars", 1, MAX_BARS), ("steps_per_beat", 1, 96), ("transpose", 0, MAX_TRANSPOSE)):
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"expected {name} from {least} to {most}, got {value}")
