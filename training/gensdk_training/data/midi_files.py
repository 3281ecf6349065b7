"""MIDI files as pieces: one file, a folder of them, or a ``.tar.gz``, which is read and never unpacked."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import SUFFIXES as IMAGE_SUFFIXES
from gensdk_runtime.media.music.midi_reading import MAX_BYTES, MidiScore, read_midi
from gensdk_runtime.media.music.quantizing import to_roll
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.pianoroll import MAX_MELODIC, PITCHES, TrackSpec
from gensdk_training.data.dataset import LoadOptions, holdout_indices
from gensdk_training.data.findings import Findings, SkipLog
from gensdk_training.data.piano_rolls import STEPS_PER_BEAT, Piece, Pieces
from gensdk_training.data.split_folders import split_folder

SUFFIXES = (".mid", ".midi")
ARCHIVES = (".tar.gz", ".tgz")
MAX_FILES = 100_000
MAX_UNPACKED = 4 << 30
"""Of an archive, what is passed over among it."""
MAX_TOTAL = 2 << 30
"""Bytes of all piano rolls."""
LOOKED_AT = 10_000
"""Names by which a folder is known as one of music."""
MERGED = "music"
"""What the one track is called of files whose tracks have no names in common."""


@dataclass(frozen=True)
class _Song:
    name: str
    score: MidiScore


def holds_midi(root: Path) -> bool:
    """Whether there are MIDI files below `root` and no images, by the first names."""
    found, seen = False, 0
    for _, folders, names in os.walk(root):
        folders.sort()
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) or seen > LOOKED_AT:
                return found and seen > LOOKED_AT
            found, seen = found or name.lower().endswith(SUFFIXES), seen + 1
    return found


def read_midi_files(path: Path, options: LoadOptions, skipped: SkipLog, findings: Findings) -> Pieces:
    """The pieces of the part that `options` ask for: a share of the *files* is held out, or ``train/`` and
    ``test/`` are the folder's own.

    Files that can't be read are skipped, with the reason. Raises :class:`InputError` where none is left, and for
    more than fits.
    """
    if options.split == "valid":
        raise InputError(f"{path}: MIDI files have no validation part; use split train or test")
    root, told = split_folder(path, options) if path.is_dir() else (path, "")
    songs = []
    for name, data in _files(root, findings):
        try:
            songs.append(_Song(name, read_midi(data, name)))
        except InputError as failure:
            skipped.add(name, str(failure).removeprefix(f"{name}: "))
    if not songs:
        raise InputError(f"{path}: no MIDI file in it that can be read ({skipped.count} skipped); give .mid files")
    tracks, places, notes = _tracks(songs)
    counts: Counter[str] = Counter()
    pieces, total = [], 0
    for song, wanted in zip(songs, places, strict=True):
        counts.update({f"times: {text}": count for text, count in song.score.mended.items()})
        steps = song.score.notes[-1].end // song.score.ticks_per_beat * (options.steps_per_beat or STEPS_PER_BEAT)
        total += len(tracks) * steps * PITCHES
        if total > MAX_TOTAL:
            raise InputError(
                f"{path}: its pieces take over {MAX_TOTAL >> 30} GiB as piano rolls; give fewer files"
            )
        roll = to_roll(song.score, wanted, len(tracks), options.steps_per_beat or STEPS_PER_BEAT, counts)
        pieces.append(Piece(song.name, roll))
    longest = max(piece.roll.shape[1] for piece in pieces)
    used = np.any([piece.roll.any(axis=(0, 1)) for piece in pieces], axis=0).nonzero()[0]
    if not told and (options.holdout > 0 or options.split == "test"):
        chosen = holdout_indices(len(pieces), options.holdout, options.split)
        told = f"{options.split}: {len(chosen)} of {len(pieces)} pieces, {options.holdout:g} of them are the test"
        pieces = [pieces[i] for i in chosen]
    tempo = median(song.score.tempo for song in songs)
    changing = sum(song.score.tempos > 1 for song in songs)
    return Pieces(
        tracks=tracks,
        tempo=tempo,
        pieces=pieces,
        lowest=int(used[0]),
        highest=int(used[-1]),
        longest=longest,
        steps_per_beat=options.steps_per_beat or STEPS_PER_BEAT,
        split=told,
        values=f"notes of {len(songs)} MIDI files, pitches {int(used[0])} to {int(used[-1])}",
        notes=[
            *notes,
            f"one tempo of all, the median: {tempo:.4g} beats a minute; {changing} pieces change theirs",
            *_signatures(songs),
            *(f"{count:,} {text}" for text, count in counts.items() if count),
            *_struck_again(counts),
        ],
    )


def _struck_again(counts: Counter[str]) -> list[str]:
    return ["a note struck again without a gap takes the last step of the one before"] if counts else []


def _signatures(songs: Sequence[_Song]) -> list[str]:
    """Bars are of four beats here, whatever the files say."""
    others = sum(4.0 % song.score.beats_per_bar != 0 for song in songs)
    return (
        [f"{others} pieces are not in 4/4 or 2/4: they are cut into bars of four beats all the same"]
        if others
        else []
    )


def _tracks(songs: Sequence[_Song]) -> tuple[tuple[TrackSpec, ...], list[dict[int, int]], list[str]]:
    """The tracks of the data, for each song which of its parts become which, and what there is to say.

    Tracks are found by the names that at least half of the files have; where there are none, all that is no drum
    becomes one track.
    """
    named: Counter[str] = Counter()
    for song in songs:
        named.update({part.name.casefold() for part in song.score.parts if part.name})
    common = [name for name, count in named.items() if 2 * count >= len(songs)]
    if not common:
        places = [{i: 0 for i, part in enumerate(song.score.parts) if not part.is_drum} for song in songs]
        programs = Counter(part.program for song in songs for part in song.score.parts if not part.is_drum)
        if not programs:
            raise InputError("these MIDI files hold nothing but drums, and their tracks have no names in common")
        program = programs.most_common(1)[0][0]
        told = "tracks have no names that half of the files share: all but drums is one track"
        return (TrackSpec(name=MERGED, program=program),), places, [told]
    order = sorted(common, key=lambda name: (_mean_place(name, songs), name))[:MAX_MELODIC]
    number = {name: place for place, name in enumerate(order)}
    places = [
        {i: number[p.name.casefold()] for i, p in enumerate(song.score.parts) if p.name.casefold() in number}
        for song in songs
    ]
    tracks = tuple(_track(name, songs) for name in order)
    missing = sum(len(set(wanted.values())) < len(order) for wanted in places)
    notes = [f"tracks by their names: {', '.join(track.name for track in tracks)}"]
    if missing:
        notes.append(f"{missing} pieces lack one of them, which is silent there")
    return tracks, places, notes


def _mean_place(name: str, songs: Sequence[_Song]) -> float:
    places = [part.track for song in songs for part in song.score.parts if part.name.casefold() == name]
    return sum(places) / len(places)


def _track(name: str, songs: Sequence[_Song]) -> TrackSpec:
    parts = [part for song in songs for part in song.score.parts if part.name.casefold() == name]
    return TrackSpec(
        name=Counter(part.name for part in parts).most_common(1)[0][0][:64],
        program=Counter(part.program for part in parts).most_common(1)[0][0],
        is_drum=2 * sum(part.is_drum for part in parts) > len(parts),
    )


def _files(root: Path, findings: Findings) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each MIDI file, in the order of their names."""
    if root.is_dir():
        for name in _listed(root, findings):
            with (root / name).open("rb") as file:
                yield name, file.read(MAX_BYTES + 1)
    elif root.name.lower().endswith(ARCHIVES):
        yield from sorted(_unpacked(root, findings))
    else:
        with root.open("rb") as file:
            yield printable(root.name), file.read(MAX_BYTES + 1)


def _listed(root: Path, findings: Findings) -> list[str]:
    found: list[str] = []
    for folder, folders, names in os.walk(root):  # links to folders are not followed
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in names:
            path = Path(folder, name)
            if name.lower().endswith(SUFFIXES) and path.is_file():
                found.append(path.relative_to(root).as_posix())
            elif not name.startswith("."):
                findings.left_out[path.suffix.lower()[:16]] += 1
        if len(found) > MAX_FILES:
            raise InputError(f"{root}: more than {MAX_FILES:,} MIDI files; make several data sets of it")
    return sorted(found)


class _Limited(io.RawIOBase):
    """What a packed file holds, up to a limit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file, self._left = gzip.GzipFile(path), MAX_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._file.read(min(len(view), 1 << 20))
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError(f"it has over {MAX_UNPACKED >> 30} GiB unpacked")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _unpacked(path: Path, findings: Findings) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    try:
        with io.BufferedReader(_Limited(path)) as raw, tarfile.open(fileobj=raw, mode="r|") as archive:
            for member in archive:
                name = printable(member.name)[:200]
                if not member.isfile() or name.rpartition("/")[2].startswith("."):
                    continue
                if not name.lower().endswith(SUFFIXES):
                    findings.left_out[Path(name).suffix.lower()[:16]] += 1
                    continue
                file = archive.extractfile(member)
                found.append((name, b"" if file is None else file.read(MAX_BYTES + 1)))
                if len(found) > MAX_FILES:
                    raise tarfile.ReadError(f"it has more than {MAX_FILES:,} MIDI files")
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as failure:
        raise InputError(f"can't read {path} ({printable(str(failure))[:100]}); pack it again") from None
    return found
