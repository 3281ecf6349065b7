"""Voices on a grid as JSON: the chorales of J. S. Bach as Boulanger-Lewandowski et al. (2012) split them.

The file holds ``{"train": [...], "valid": [...], "test": [...]}``; each piece is a list of steps, and each step
has one pitch of MIDI for each voice, -1 (or null) where it is silent.
https://github.com/czhuang/JSB-Chorales-dataset has it, in steps of a quarter of a beat, as
``Jsb16thSeparated.json``.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.pianoroll import MAX_MELODIC, PITCHES, TrackSpec
from gensdk_training.data.dataset import LoadOptions, holdout_indices
from gensdk_training.data.piano_rolls import STEPS_PER_BEAT, Bool, Piece, Pieces

MAX_BYTES = 64 << 20
"""Of the file, unpacked."""
TEMPO = 90.0
"""Beats a minute, since the file has none; about as chorales are sung."""
CHOIR = 52
"""General MIDI's program of a choir."""
VOICES = {4: ("soprano", "alto", "tenor", "bass")}
SUFFIXES = (".json", ".json.gz")


def read_voices(path: Path, options: LoadOptions) -> Pieces:
    """The pieces of the part that `options` ask for.

    Raises :class:`InputError` for a file that is too large or not of this form, and for another grid.
    """
    if options.steps_per_beat not in (None, STEPS_PER_BEAT):
        raise InputError(f"{path}: its steps are a quarter of a beat; leave steps_per_beat out")
    parts = _parts(path)
    wanted, told = _part(path, parts, options)
    voices = {len(step) for pieces in parts.values() for piece in pieces for step in piece}
    if len(voices) != 1 or not 1 <= (count := min(voices)) <= MAX_MELODIC:
        raise InputError(
            f"{path}: expected 1 to {MAX_MELODIC} voices, the same in each step, got {sorted(voices)[:5]}"
        )
    rolls = {part: [_roll(path, part, i, piece) for i, piece in enumerate(all_)] for part, all_ in parts.items()}
    used = np.any([roll.any(axis=(0, 1)) for all_ in rolls.values() for roll in all_], axis=0).nonzero()[0]
    if not len(used):
        raise InputError(f"{path}: there is no note in it")
    pieces = [Piece(f"{part} {number}", rolls[part][number]) for part, number in wanted]
    names = VOICES.get(count, tuple(f"voice {number + 1}" for number in range(count)))
    return Pieces(
        tracks=tuple(TrackSpec(name=name, program=CHOIR) for name in names),
        tempo=TEMPO,
        pieces=pieces,
        lowest=int(used[0]),
        highest=int(used[-1]),
        longest=max(roll.shape[1] for all_ in rolls.values() for roll in all_),
        split=told,
        values=f"pitches {int(used[0])} to {int(used[-1])}, a note for each voice at a time",
        notes=[
            "a voice that keeps its pitch holds its note: the file does not say where one is struck again",
            "bars are counted from the first step: the file does not say which pieces begin with an upbeat",
            f"the file has no tempo: {TEMPO:g} beats a minute",
        ],
    )


def _parts(path: Path) -> dict[str, list[Any]]:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as failure:
        raise InputError(f"can't read {path} ({printable(str(failure))[:80]})") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES >> 20} MiB unpacked; expected voices of a few MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not readable as JSON; download it again") from None
    if isinstance(found, list):
        found = {"train": found}
    ok = isinstance(found, dict) and all(
        isinstance(all_, list)
        and all(isinstance(piece, list) and all(isinstance(step, list) for step in piece) for piece in all_)
        for all_ in found.values()
    )
    if not ok or not any(found.values()):
        raise InputError(f"{path}: expected pieces as lists of steps, each with a pitch for each voice")
    return {str(name): all_ for name, all_ in found.items()}


def _part(path: Path, parts: dict[str, list[Any]], options: LoadOptions) -> tuple[list[tuple[str, int]], str]:
    """Which pieces are wanted, by part and place, and that in words."""
    if "test" in parts:
        if options.holdout > 0:
            raise InputError(f"{path} has its own test part; leave holdout at 0")
        if options.split not in parts:
            raise InputError(f"{path} has no part {options.split!r}; it has {printable(', '.join(parts))[:80]}")
        others = ", ".join(f"{printable(n)[:20]} {len(all_)}" for n, all_ in parts.items() if n != options.split)
        chosen: list[tuple[str, int]] = [(options.split, number) for number in range(len(parts[options.split]))]
        return chosen, f"{options.split}: {len(chosen)} pieces of the file, beside {others}"
    if options.split == "valid":
        raise InputError(f"{path} has no part 'valid' beside a test part; use split train or test")
    whole = [(name, number) for name, all_ in parts.items() for number in range(len(all_))]
    if options.holdout == 0 and options.split == "train":
        return whole, ""
    kept = holdout_indices(len(whole), options.holdout, options.split)
    told = f"{options.split}: {len(kept)} of {len(whole)} pieces, {options.holdout:g} of them are the test"
    return [whole[i] for i in kept], told


def _roll(path: Path, part: str, number: int, piece: list[Any]) -> Bool:
    """bool [voices, steps, 128]."""
    where = f"{path}: piece {number} of {printable(part)[:20]!r}"
    flat = [-1 if pitch is None else pitch for step in piece for pitch in step]
    if any(isinstance(pitch, bool) or not isinstance(pitch, int | float) or pitch != pitch // 1 for pitch in flat):
        raise InputError(f"{where}: expected whole numbers as pitches, -1 for silence")
    if not piece or not all(-1 <= pitch < PITCHES for pitch in flat):
        raise InputError(f"{where}: expected pitches from 0 to 127, -1 for silence, in one step or more")
    pitches = np.array(flat, np.int64).reshape(len(piece), -1).T
    roll = np.zeros((*pitches.shape, PITCHES), np.bool_)
    track, step = np.nonzero(pitches >= 0)
    roll[track, step, pitches[track, step]] = True
    return roll
