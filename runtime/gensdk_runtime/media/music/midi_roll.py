"""One MIDI file in the format of a model: its tracks, its grid and its pitches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gensdk_runtime.arguments import check_path
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music.midi_reading import MAX_BYTES, MidiScore, read_midi
from gensdk_runtime.media.music.notes import Bool
from gensdk_runtime.media.music.quantizing import to_roll
from gensdk_runtime.spec.pianoroll import RollFormat


def read_roll(path: str | Path, form: RollFormat) -> tuple[Bool, list[str]]:
    """The file's notes as bool [tracks, steps, pitches] of `form`, up to the end of the last one, and in words
    what was moved, joined or left out.

    Parts of the file become the tracks of their names; where no name is one of the format's, the tracks that are
    drums or not, as they are, in their order. Raises :class:`InputError` for what is no MIDI file, and where no
    note of it is within the format.
    """
    file = check_path(path, "a MIDI file")
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as failure:
        raise InputError(f"can't read {file}: {failure.strerror or failure}") from None
    score = read_midi(data, str(file))
    counts: Counter[str] = Counter()
    whole = to_roll(score, _places(score, form), len(form.tracks), form.steps_per_beat, counts)
    roll = whole[:, :, form.lowest_pitch : form.lowest_pitch + form.pitches]
    if not roll.any():
        names = ", ".join(track.name for track in form.tracks)
        last = form.lowest_pitch + form.pitches - 1
        raise InputError(f"{file}: no note of tracks {names} with pitches {form.lowest_pitch} to {last}")
    lost = int(whole.sum()) - int(roll.sum())
    counts["steps of notes beyond the model's pitches, left out"] += lost
    counts.update(score.mended)
    return roll, [*(f"{count} {text}" for text, count in counts.items() if count), *_passed_over(score, form)]


def _passed_over(score: MidiScore, form: RollFormat) -> list[str]:
    """What the file says of time and the model's format says otherwise."""
    told = []
    own = form.steps_per_bar / form.steps_per_beat
    if score.beats_per_bar != own:
        told.append(f"bars of {score.beats_per_bar:g} quarters, taken as {own:g} as the model has them")
    if abs(score.tempo - form.tempo) > 0.5:
        told.append(f"{score.tempo:.0f} beats a minute, taken as {form.tempo:.0f} as the model has them")
    return told


def _places(score: MidiScore, form: RollFormat) -> dict[int, int]:
    """For each part of the file that is wanted the track that it becomes."""
    names = {track.name.casefold(): place for place, track in reversed(list(enumerate(form.tracks)))}
    found = {
        number: names[part.name.casefold()]
        for number, part in enumerate(score.parts)
        if part.name.casefold() in names
    }
    if found:
        return found
    places: dict[int, int] = {}
    for drums in (False, True):
        parts = [number for number, part in enumerate(score.parts) if part.is_drum == drums]
        tracks = [place for place, track in enumerate(form.tracks) if track.is_drum == drums]
        places |= dict(zip(parts, tracks, strict=False))
    return places
