"""Five measures of piano rolls, those of MuseGAN (Dong et al. 2018, section "Objective metrics") but for drums.

None of them knows what is good: each is read beside what real music of the same kind has, and beside what notes
get that were drawn one by one (:func:`independent_notes`).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music.notes import runs
from gensdk_runtime.spec.pianoroll import OCTAVE, PITCHES, RollFormat

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
QUALIFIED = 3
"""Steps that a note lasts at least, to be no fragment."""
MAJOR = (0, 2, 4, 5, 7, 9, 11)
"""Semitones above the tonic; natural minor scales have the notes of a major one."""
RADII = (1.0, 1.0, 0.5)
"""Of the circles of fifths, minor thirds and major thirds (Harte et al. 2006, section 3)."""
_ANGLES = (7 / 6, 3 / 2, 2 / 3)
"""Of one semitone on each circle, in units of pi."""
MEASURES = ("empty_bars", "pitch_classes", "qualified_notes", "scale_consistency", "tonal_distance")
TITLES = {
    "empty_bars": "share of empty bars",
    "pitch_classes": "pitch classes of a bar",
    "qualified_notes": f"share of notes of {QUALIFIED} steps or more",
    "scale_consistency": "share of notes in the best scale",
    "tonal_distance": "tonal distance between tracks",
}


def measure_music(rolls: Bool, form: RollFormat) -> dict[str, float]:
    """All of :data:`MEASURES` of `rolls` [n, tracks, steps, pitches], by name.

    One of which there is nothing to measure, such as the tonal distance of a single track, is left out. Raises
    :class:`InputError` for another shape.
    """
    if rolls.ndim != 4 or rolls.shape[1:] != (len(form.tracks), form.steps, form.pitches) or not len(rolls):
        want = [len(form.tracks), form.steps, form.pitches]
        raise InputError(f"expected rolls [n, tracks, steps, pitches], {want} each, got {list(rolls.shape)}")
    melodic = rolls[:, [not track.is_drum for track in form.tracks]]
    found = {
        "empty_bars": empty_bars(rolls, form),
        "pitch_classes": pitch_classes(melodic, form),
        "qualified_notes": qualified_notes(rolls),
        "scale_consistency": scale_consistency(melodic, form),
        "tonal_distance": tonal_distance(melodic, form),
    }
    return {name: value for name, value in found.items() if value is not None}


def empty_bars(rolls: Bool, form: RollFormat) -> float:
    """The share of bars of single tracks in which nothing sounds, 0 to 1."""
    return float(1 - _bars(rolls, form).any(axis=(3, 4)).mean())


def pitch_classes(rolls: Bool, form: RollFormat) -> float | None:
    """How many of the twelve pitch classes a track uses in a bar in which it sounds, in the mean; 1 to 12."""
    used = (_chroma(np.asarray(_bars(rolls, form).any(axis=3)), form) > 0).sum(axis=-1)
    return float(used[used > 0].mean()) if (used > 0).any() else None


def qualified_notes(rolls: Bool) -> float | None:
    """The share of notes that last :data:`QUALIFIED` steps or more, 0 to 1; low where notes fall into
    fragments."""
    _, _, start, end = runs(rolls.reshape(-1, *rolls.shape[2:]))
    return float((end - start >= QUALIFIED).mean()) if len(start) else None


def scale_consistency(rolls: Bool, form: RollFormat) -> float | None:
    """The share of a phrase's notes that belong to the diatonic scale that has most of them (Mogren 2016), in
    the mean over phrases; 7/12 where all twelve are as frequent, 1 within a scale. A note counts once, however
    long."""
    _, count, steps, pitches = rolls.shape
    place, pitch, _, _ = runs(rolls.reshape(-1, steps, pitches))
    notes = np.zeros((len(rolls), OCTAVE))
    np.add.at(notes, (place // count, (pitch + form.lowest_pitch) % OCTAVE), 1)
    notes = notes[notes.sum(axis=1) > 0]
    if not len(notes):
        return None
    scales = np.zeros((OCTAVE, OCTAVE))
    for tonic in range(OCTAVE):
        scales[tonic, [(tonic + step) % OCTAVE for step in MAJOR]] = 1
    return float(((notes @ scales.T).max(axis=1) / notes.sum(axis=1)).mean())


def tonal_distance(rolls: Bool, form: RollFormat) -> float | None:
    """The distance of two tracks' tonal centroids (Harte et al. 2006, eq. 2), in the mean over pairs of tracks and
    over beats in which both sound. 0: the same pitch classes; a fifth is 1.74, a tritone 2.83."""
    if rolls.shape[1] < 2:
        return None
    beats = rolls.reshape(*rolls.shape[:2], -1, form.steps_per_beat, rolls.shape[3])
    chroma = _chroma(beats.sum(axis=3), form)
    centroids, sounds = tonal_centroid(chroma), chroma.sum(axis=-1) > 0
    distances = [
        np.linalg.norm(centroids[:, one] - centroids[:, two], axis=-1)[sounds[:, one] & sounds[:, two]]
        for one, two in combinations(range(rolls.shape[1]), 2)
    ]
    every = np.concatenate(distances)
    return float(every.mean()) if len(every) else None


def tonal_centroid(chroma: Float64) -> Float64:
    """Chroma [..., 12] to its place in the six dimensions of Harte et al. 2006, [..., 6]; 0 for silence."""
    places = np.arange(OCTAVE) * np.pi
    rows = [
        radius * turn(angle * places)
        for radius, angle in zip(RADII, _ANGLES, strict=True)
        for turn in (np.sin, np.cos)
    ]
    total = chroma.sum(axis=-1, keepdims=True)
    return np.asarray(chroma @ np.stack(rows, axis=1) / np.maximum(total, 1e-12), np.float64)


def independent_notes(rolls: Bool, count: int, seed: int) -> Bool:
    """The baseline: `count` rolls whose notes know nothing of each other.

    At each step of each track as many notes as at some step of `rolls` [n, tracks, steps, pitches], drawn anew
    each time, at pitches drawn as often as they are in that track (without repetition at one step).
    """
    random = np.random.Generator(np.random.Philox(seed))
    made = np.zeros((count, *rolls.shape[1:]), np.bool_)
    for track in range(rolls.shape[1]):
        sounding = rolls[:, track].sum(axis=2)
        densities = sounding.reshape(-1)[random.integers(0, sounding.size, count * rolls.shape[2])]
        often = rolls[:, track].sum(axis=(0, 1)).astype(np.float64)
        if not often.any():
            continue
        with np.errstate(divide="ignore"):
            keys = np.log(often / often.sum()) + random.gumbel(size=(len(densities), rolls.shape[3]))
        ranks = np.argsort(np.argsort(-keys, axis=1), axis=1)  # the largest keys are draws without repetition
        chosen = (ranks < densities[:, None]) & (often > 0)
        made[:, track] = chosen.reshape(count, rolls.shape[2], rolls.shape[3])
    return made


def _bars(rolls: Bool, form: RollFormat) -> Bool:
    """[n, tracks, bars, steps of a bar, pitches]."""
    return rolls.reshape(*rolls.shape[:2], form.bars, form.steps_per_bar, form.pitches)


def _chroma(notes: NDArray[Any], form: RollFormat) -> Float64:
    """Counts of pitches [..., pitches] by pitch class: [..., 12]."""
    whole = np.zeros((*notes.shape[:-1], PITCHES + 4), np.float64)
    whole[..., form.lowest_pitch : form.lowest_pitch + form.pitches] = notes
    return np.asarray(whole.reshape(*notes.shape[:-1], -1, OCTAVE).sum(axis=-2), np.float64)
