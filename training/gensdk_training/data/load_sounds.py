"""Sounds of a folder or an archive as one data set: one rate, one channel, one length of batches; all else is
told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.audio_files import decode_audio
from gensdk_runtime.media.sounds import SILENT, CorruptAudioError, Sound
from gensdk_training.data.classes import plain_names
from gensdk_training.data.dataset import Labels, LoadOptions, holdout_indices, plain_name
from gensdk_training.data.findings import Findings, SkipLog
from gensdk_training.data.sound_set import SoundDataset
from gensdk_training.data.sound_sources import ARCHIVES, SoundFiles, files_of_archive, files_of_folder
from gensdk_training.data.split_folders import split_folder
from gensdk_training.data.spoken_digits import PARTS, TEST_TAKES, are_spoken_digits, classes_of, official_part
from gensdk_training.family import AudioInfo, DataInfo, LabelPart

LONGEST = 30.0
"""Seconds of the longest sound up to which a batch holds all of it, where nothing else is said."""

Files = Callable[[SoundFiles], Iterator[tuple[str, bytes]]]


@dataclass
class _Read:
    """Sounds as they were read: `names` without suffix, and what was `skipped`; `changes`: what was done to how
    many."""

    names: list[str] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    skipped: SkipLog = field(default_factory=SkipLog)
    files: SoundFiles = field(default_factory=SoundFiles)
    changes: Counter[str] = field(default_factory=Counter)


def load_sound_folder(root: Path, options: LoadOptions) -> SoundDataset:
    """All WAV and FLAC files below `root`; see :func:`gensdk_training.data.load_data`."""
    name = plain_name(root.resolve().name)
    part, told = split_folder(root, options)
    return _load(name, str(root), partial(files_of_folder, part), told, options)


def load_sound_archive(path: Path, options: LoadOptions) -> SoundDataset:
    """All WAV and FLAC files of a tar archive; see :func:`gensdk_training.data.load_data`."""
    suffix = next(each for each in ARCHIVES if path.name.lower().endswith(each))
    name = plain_name(path.name[: -len(suffix)])
    return _load(name, str(path), partial(files_of_archive, path), "", options)


def load_spoken_digits(path: Path, options: LoadOptions) -> SoundDataset:
    """The Free Spoken Digit Dataset from its archive or its folder, split as it is officially."""
    if options.holdout > 0:
        raise InputError("fsdd has its own test split; leave holdout at 0")
    files = partial(files_of_folder if path.is_dir() else files_of_archive, path)
    return _load("fsdd", str(path), files, "", options, official=True)


def _load(
    name: str, source: str, files: Files, split: str, options: LoadOptions, *, official: bool = False
) -> SoundDataset:
    """`split`: what to tell of that which folders make, "" where there is none; `official`: the one by the names
    of spoken digits."""
    _check_options(options)
    read = _read(source, files, options.memory_limit)
    labels, names, parts, told = _classes(source, read.names, options)
    kept, split = _official(read.names, options, source) if official else _part(read.names, split, options)
    rate = options.sample_rate or Counter(sound.sample_rate for sound in read.sounds).most_common(1)[0][0]
    sounds = [_fitted(read.sounds[at], rate, read.changes) for at in kept]
    longest = max(sound.seconds for sound in read.sounds)  # of all parts: a model is of one length
    if options.seconds is None and longest > LONGEST:
        raise InputError(
            f"{source}: its longest sound has {longest:.1f} s; say how much a batch holds with --seconds"
        )
    size = max(1, round((options.seconds or longest) * rate))
    info = DataInfo(
        name=name,
        channels=1,
        height=size,
        width=1,
        count=len(sounds),
        num_classes=None if names is None else len(names),
        class_names=names,
        audio=AudioInfo(sample_rate=rate, parts=parts),
    )
    dataset = SoundDataset(info, sounds, None if labels is None else labels[kept])
    dataset.keys = tuple(read.names[at] for at in kept)
    dataset.skipped = read.skipped
    dataset.findings = _findings(dataset, read, split)
    for text in told:
        dataset.findings.note(text)
    return dataset


def _check_options(options: LoadOptions) -> None:
    if options.size is not None or options.value_range is not None or options.depth is not None:
        raise InputError("size, value range and depth are for images, and these data are sounds; use seconds")
    if options.channels not in (None, 1):
        raise InputError(f"sounds are trained on as one channel, got channels={options.channels}; leave it out")


def _read(source: str, files: Files, memory_limit: int) -> _Read:
    """All that can be decoded, as one channel."""
    read, used = _Read(), 0
    for path, data in files(read.files):
        name = PurePosixPath(path)
        try:
            sound, told = decode_audio(data).in_form(channels=1)
        except CorruptAudioError as problem:
            read.skipped.add(path, str(problem))
            continue
        read.changes.update(told)
        used += sound.samples.nbytes
        if used > memory_limit:
            raise InputError(f"{source}: over {memory_limit >> 20} MiB of samples; take fewer or shorter files")
        read.names.append(name.with_suffix("").as_posix())
        read.sounds.append(sound)
    for path, why_not in read.files.broken:
        read.skipped.add(path, why_not)
    if not read.sounds:
        why = read.skipped.reasons.most_common(1)
        none = f"none of its {read.skipped.count} can be read ({why[0][0]})" if why else "there is none in it"
        raise InputError(f"{source}: expected WAV or FLAC files, and {none}")
    order = sorted(range(len(read.names)), key=lambda at: read.names[at])
    read.names = _without_top([read.names[at] for at in order])
    read.sounds = [read.sounds[at] for at in order]
    return read


def _without_top(names: list[str]) -> list[str]:
    """Without the folder that all lie in, as in an archive of one folder."""
    top, slash, _ = names[0].partition("/")
    alike = bool(slash) and all(name.startswith(f"{top}/") for name in names)
    return _without_top([name[len(top) + 1 :] for name in names]) if alike else names


def _classes(
    source: str, names: Sequence[str], options: LoadOptions
) -> tuple[Labels | None, tuple[str, ...] | None, tuple[LabelPart, ...], list[str]]:
    """Labels, their names, what these are made of, and what is said of it."""
    digits = are_spoken_digits(names)
    parts: tuple[LabelPart, ...] = ()
    if options.labels not in ("auto", "none", *(PARTS if digits else ())):
        known = "auto, none, digit or speaker" if digits else "auto or none"
        raise InputError(f"{source}: expected labels {known}, got {options.labels[:60]!r}")
    if options.labels == "none":
        return None, None, (), []
    tops = [name.partition("/")[0] for name in names]
    if digits:
        of, parts = classes_of(names, options.labels)
        told = ["classes by the names of the files, DIGIT_SPEAKER_TAKE"]
    elif all("/" in name for name in names):
        of, told = tops, []
    elif any("/" in name for name in names):
        beside = next(name for name in names if "/" not in name)
        raise InputError(f"{source}: {beside!r} lies beside the class folders; move it, or use labels='none'")
    else:
        return None, None, (), []
    values, numbers = np.unique(np.array(of), return_inverse=True)
    shown, changed = plain_names([str(value) for value in values.tolist()])
    if changed:
        told.append(f"names of {len(changed)} classes hold what can't be printed, and were changed")
    return numbers.reshape(-1).astype(np.int64), shown, parts, told


def _official(names: Sequence[str], options: LoadOptions, source: str) -> tuple[list[int], str]:
    """As :func:`_part`, by the names of spoken digits."""
    if not are_spoken_digits(names):
        raise InputError(
            f"{source}: expected files DIGIT_SPEAKER_TAKE.wav, as fsdd has them; name it without fsdd:"
        )
    kept, last = official_part(names, options.split), TEST_TAKES - 1
    if not kept:
        raise InputError(f"{source}: nothing is of the {options.split} part, takes 0 to {last} being the test")
    return kept, f"{options.split}: takes 0 to {last} are the official test, {len(kept)} files are this part"


def _part(names: Sequence[str], split: str, options: LoadOptions) -> tuple[list[int], str]:
    """The places of the sounds that are asked for, and what the split is."""
    if not split and (options.holdout > 0 or options.split == "test"):
        chosen = holdout_indices(len(names), options.holdout, options.split)
        return chosen.tolist(), f"{options.split}: {len(names)} files, {options.holdout:g} of them for the test"
    return list(range(len(names))), split


def _fitted(sound: Sound, rate: int, changes: Counter[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    made, told = sound.in_form(sample_rate=rate)
    changes.update(told)
    changes["samples beyond full scale, clipped"] += made.clipped
    return made.samples


def _findings(dataset: SoundDataset, read: _Read, split: str) -> Findings:
    rate, size = dataset.info.require_audio().sample_rate, dataset.info.height
    seconds = dataset.lengths / rate
    found = Findings(
        values=f"float32, {seconds.min():.2f} to {seconds.max():.2f} s, median {np.median(seconds):.2f} s, "
        f"{seconds.sum() / 60:.1f} min in all",
        split=split,
        left_out=read.files.left_out,
        links=read.files.links,
        outside=read.files.outside,
    )
    longer, shorter = int((dataset.lengths > size).sum()), int((dataset.lengths < size).sum())
    if longer:
        found.note(f"{longer} sounds are longer than {size / rate:.2f} s: parts of them, anywhere, are trained on")
    if shorter:
        found.note(f"{shorter} sounds are shorter than {size / rate:.2f} s: silence follows, which lengths tell")
    quiet = sum(float(np.abs(sound).max()) < 10 ** (SILENT / 20) for sound in dataset.sounds)
    if quiet:
        found.note(f"{quiet} sounds are silent (nothing over {SILENT:g} dB): they are kept")
    for told, count in read.changes.most_common():
        if count:
            found.note(f"{count} {told}" if told.startswith("samples") else f"{count} sounds: {told}")
    if not split and are_spoken_digits(dataset.keys or ()):
        found.note("files are named as in fsdd: write fsdd:PATH for its official test part")
    return found
