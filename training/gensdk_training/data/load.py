"""Data sets by name, by folder, or by file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.media.image_pixels import Fit
from gensdk_runtime.media.pixel_values import ValueRange, check_value_range
from gensdk_runtime.spec.audio import LEAST_RATE, MOST_RATE
from gensdk_training.data.caption_set import encode_captions
from gensdk_training.data.classes import of_classes, seen_classes
from gensdk_training.data.csv_file import load_csv
from gensdk_training.data.dataset import SPLITS, Dataset, Layout, LoadOptions, Split
from gensdk_training.data.digits import load_digits
from gensdk_training.data.domains import domains_of, join_domains
from gensdk_training.data.folder_dataset import load_folder
from gensdk_training.data.idx import load_mnist
from gensdk_training.data.load_sounds import load_sound_archive, load_sound_folder, load_spoken_digits
from gensdk_training.data.mixtures import MIXTURES, load_mixture
from gensdk_training.data.music import is_music, load_music
from gensdk_training.data.npz import load_npy, load_npz
from gensdk_training.data.pairs import with_sources
from gensdk_training.data.piano_rolls import PianorollDataset
from gensdk_training.data.sound_pairs import with_sounds
from gensdk_training.data.sound_sources import ARCHIVES, holds_sounds, is_archive
from gensdk_training.data.text_file import TEXT_SUFFIXES, is_text
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_oracle import load_oracle
from gensdk_training.data.text_set import TextDataset, load_text

DATA_DIR_VARIABLE = "GENSDK_DATA_DIR"
MAX_SECONDS = 600
"""Of sounds in a batch."""

DATASET_NAMES = ("digits", "mnist", "fsdd", "oracle", *MIXTURES)


def load_data(
    spec: str,
    *,
    split: Split = "train",
    labels: str = "auto",
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    holdout: float = 0.0,
    data_dir: Path | str | None = None,
    memory_limit: int = 2 << 30,
    inputs: str | None = None,
    input_channels: int | None = None,
    paired: bool = True,
    only: Sequence[str] = (),
    value_range: ValueRange | None = None,
    input_value_range: ValueRange | None = None,
    layout: Layout = "auto",
    depth: int | None = None,
    sample_rate: int | None = None,
    seconds: float | None = None,
    text: TextOptions | None = None,
    bars: int | None = None,
    steps_per_beat: int | None = None,
    transpose: int | None = None,
    whole: bool = False,
    captions: str | None = None,
    unheard: str | None = None,
    sounds: str | None = None,
) -> Dataset:
    """Opens the data that `spec` names, and checks it before anything is trained on it.

    `spec`: ``digits``; ``mnist`` (idx files in `data_dir`, in its folder ``mnist``, or in ``$GENSDK_DATA_DIR``) or
    ``mnist:FOLDER``; a folder of images, whose sub-folders are classes, or its splits ``train/`` and ``test/`` or
    ``val/``; ``FILE.npz``, ``FILE.npz:KEY`` or ``FILE.npy`` (NHWC, NCHW or NHW); points in place of images:
    ``25gaussians``, ``8gaussians``, ``FILE.csv``, or floats [N, D] in an ``.npz``; or several of these as the
    domains of one data set, ``NAME=DATA,NAME=DATA``, whose names are its labels; of sounds a folder or a
    ``.tar.gz`` of WAV and FLAC files, or ``fsdd`` (in `data_dir`, its folder ``fsdd``, or in
    ``$GENSDK_DATA_DIR``) or ``fsdd:PATH``, the Free Spoken Digit Dataset with its official test part; of texts
    ``oracle`` (SeqGAN's benchmark), a ``.txt`` (a text a line), ``.tsv`` or ``.jsonl``, also with ``.gz`` behind
    it. `layout`: what a folder's sub-folders are, "splits", "classes", or "auto" where their names tell.
    `value_range`: of arrays, the values that are black and white; by default as
    :func:`gensdk_runtime.media.pixel_values.to_pixels` finds them. `depth`: how many bits image files of 16 bits
    use, 8 to 16, where they don't say so themselves. `text`: how texts become tokens. `split`: the data's own
    where it has one; otherwise a share of `holdout` (0 .. 1) is kept for the test. `labels`: "auto", "none", or
    the key of an .npz file, or the column of a .csv file. `size`: (height, width) to `fit` images into, by cutting
    from the centre ("crop") or stretching. `channels`: 1 grey, 3 RGB, 4 RGBA; by default as the data. `inputs`:
    for translation, the data that the images of `spec` are made from, named in the same way and brought to the
    same size; `paired`: files are pairs by their names, arrays by their places; otherwise the inputs are just
    another collection. `input_channels`, `input_value_range`: as those without ``input``. `memory_limit`: bytes up
    to which a folder is decoded at once; a larger one is read along the way. `sample_rate`: Hz that sounds are
    resampled to, by default that of most files; `seconds`: what a batch holds of each, by default the longest.
    Several channels become one, their mean. `labels` of ``fsdd``: "auto" for classes as "7-theo", "digit" or
    "speaker". `only`: the classes to keep, by name or number, such as the normal ones for anogan; none: all. The
    classes of the data set are those that it holds.

    Music becomes piano rolls: a folder or a ``.tar.gz`` of MIDI files, ``FILE.mid``, or voices as ``FILE.json`` or
    ``.json.gz`` (:mod:`gensdk_training.data.voices_json`). `bars`: of a phrase, 2 by default; `steps_per_beat`:
    the grid, 4 by default; `transpose`: how many semitones up and down phrases are moved too, none by default;
    `captions`: texts beside images: the key of an .npz file, or "names" for the names of a folder's files; `text`
    says how they become tokens. `sounds`: the key of the sound around each image of an .npz file, [N, samples],
    whose rate in Hz is its array ``sample_rate``. `whole`: pieces from their beginning to their end in place of
    phrases, those of at most `bars`, by default all.

    Raises :class:`InputError` for data that can't be trained on. Corrupt files of a folder are named in the log
    ``gensdk.data``, counted in ``dataset.skipped.count``, and left out.
    """
    options = LoadOptions(
        *(split, labels, _size(size), channels, fit, holdout, memory_limit, value_range, layout, depth),
        *(sample_rate, seconds, text, bars, steps_per_beat, transpose, whole, captions, sounds),
    )
    _check(options)
    heard = inputs is not None and names_sounds(inputs, data_dir)
    if unheard is not None and not heard:
        raise InputError("unheard is for sounds that images are made from; give such as inputs, or leave it out")
    pairs = inputs is not None and paired and not heard
    taken = replace(options, holdout=0.0, split="train") if pairs and holdout > 0 else options  # cut as pairs
    parts = domains_of(spec)
    dataset = (
        join_domains(parts, partial(_load, data_dir=data_dir), taken) if parts else _load(spec, taken, data_dir)
    )
    if (sample_rate is not None or seconds is not None) and not heard:
        dataset.info.require_audio()
    if captions is not None and dataset.captions is None:
        raise InputError(
            f"no captions are read from {spec!r}; give an .npz file with a key, or a folder and 'names'"
        )
    if sounds is not None and dataset.windows is None:
        raise InputError(f"no sounds around images are read from {spec!r}; give an .npz file with such a key")
    if not isinstance(dataset, TextDataset):
        _refuse_text_options(options, dataset)
    _check_kind(dataset, options)
    if only:
        if inputs is not None:
            raise InputError(
                "only chooses classes, which would break the pairs with inputs; leave one of them out"
            )
        return encode_captions(of_classes(dataset, only), options)
    if holdout > 0 and not dataset.findings.split:
        dataset.findings.split = f"{split}: a share of {holdout:g} is the test"
    if inputs is None:
        return encode_captions(seen_classes(dataset), options)
    if captions is not None:
        raise InputError("captions and inputs are two things to make an image from; leave one of them out")
    if heard:
        others = _load(inputs, _of_sounds(inputs, options), data_dir)
        return with_sounds(seen_classes(dataset), others, test=split == "test", unheard=unheard)
    same = dataset.info.height, dataset.info.width
    how = replace(
        taken,
        labels="none",
        captions=None,
        sounds=None,
        channels=input_channels,
        size=same,
        value_range=input_value_range,
    )
    _check(how)
    part = (holdout, split) if taken is not options else None
    return with_sources(seen_classes(dataset), _load(inputs, how, data_dir), paired=paired, part=part)


def names_sounds(spec: str, data_dir: Path | str | None) -> bool:
    """True for data that are sounds, as far as their name, or where they lie, tells."""
    if spec.partition(":")[0] == "fsdd":
        return True
    for base in _bases(data_dir):
        path = base / Path(spec).expanduser()
        if path.exists() and not is_music(path):
            return holds_sounds(path) if path.is_dir() else is_archive(path)
    return False


def _of_sounds(spec: str, options: LoadOptions) -> LoadOptions:
    """How the sounds are opened that images go with: all that is said of images left out, and their own split
    taken where they have one."""
    official = spec.partition(":")[0] == "fsdd"
    return LoadOptions(
        split=options.split,
        holdout=0.0 if official else options.holdout,
        memory_limit=options.memory_limit,
        sample_rate=options.sample_rate,
        seconds=options.seconds,
    )


def _bases(data_dir: Path | str | None) -> tuple[Path, Path]:
    return Path(), Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or ".")


def _refuse_text_options(options: LoadOptions, dataset: Dataset) -> None:
    """Raises :class:`InputError` for what is said of texts where the data are others."""
    told = options.text is not None and dataset.captions is None
    if told or (options.split == "valid" and not isinstance(dataset, PianorollDataset)):
        what = "text options are" if told else "a validation part is"
        raise InputError(f"{what} for texts, and {dataset.info.name!r} are {dataset.info.kind}; leave it out")


def _load(spec: str, options: LoadOptions, data_dir: Path | str | None) -> Dataset:
    name, _, rest = spec.partition(":")
    if spec == "digits":
        return load_digits(options)
    if name == "mnist":
        return load_mnist(_mnist_folder(rest, data_dir), options)
    if name == "fsdd":
        return load_spoken_digits(_spoken_digits(rest, data_dir), options)
    if spec == "oracle":
        return load_oracle(options)
    if spec in MIXTURES:
        return load_mixture(spec, options)
    return _load_path(spec, data_dir)(options)


def _load_path(spec: str, data_dir: Path | str | None) -> Callable[[LoadOptions], Dataset]:
    file, dot, key = spec.partition(".npz:")
    text = file + ".npz" if dot else spec
    for base in _bases(data_dir):
        path = base / Path(text).expanduser()
        if path.exists() and is_music(path):
            return lambda options: load_music(path, options)
        if path.is_dir():
            return lambda options: (load_sound_folder if holds_sounds(path) else load_folder)(path, options)
        if path.is_file():
            if is_archive(path):
                return lambda options: load_sound_archive(path, options)
            if is_text(path):
                return lambda options: load_text(path, options)
            if path.suffix == ".csv":
                return lambda options: load_csv(path, options)
            if path.suffix == ".npy":
                return lambda options: load_npy(path, options)
            if path.suffix != ".npz":
                raise InputError(
                    f"data {spec!r}: expected a folder, an .npz, .npy, .csv, .mid, .json or .tar.gz file, or "
                    f"texts ({', '.join(TEXT_SUFFIXES)})"
                )
            return lambda options: load_npz(path, key or None, options)
    hint = f"; no such file or folder, and the names are {', '.join(DATASET_NAMES)}"
    near = did_you_mean(spec, DATASET_NAMES)
    raise InputError(f"no data {spec!r}{near if near.startswith('; did') else hint}")


def _mnist_folder(rest: str, data_dir: Path | str | None) -> Path:
    if rest:
        return Path(rest).expanduser()
    base = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not base:
        raise InputError(
            f"mnist: where are its idx files? Write mnist:FOLDER, or set --data-dir or {DATA_DIR_VARIABLE}"
        )
    inside = Path(base).expanduser() / "mnist"
    return inside if inside.is_dir() else Path(base).expanduser()


def _spoken_digits(rest: str, data_dir: Path | str | None) -> Path:
    named = rest or data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not named:
        raise InputError(f"fsdd: where is it? Write fsdd:PATH, or set --data-dir or {DATA_DIR_VARIABLE}")
    given = Path(named).expanduser()
    for place in (given / "fsdd", given):
        for path in (*(place / f"fsdd{suffix}" for suffix in ARCHIVES), place / "recordings"):
            if path.exists():
                return path
    if not (given.is_dir() or (given.is_file() and is_archive(given))):
        raise InputError(f"fsdd: no folder or {ARCHIVES[0]} at {given}; write fsdd:PATH")
    return given


def _check_kind(dataset: Dataset, options: LoadOptions) -> None:
    """Raises :class:`InputError` for options of music with data of another kind."""
    names = ("bars", "steps_per_beat", "transpose", "whole")
    given = [name for name in names if getattr(options, name) != getattr(LoadOptions, name)]
    if given and not isinstance(dataset, PianorollDataset):
        kind = dataset.info.kind
        dataset.close()
        raise InputError(f"these data are {kind}, and {given[0]} is for music; give music, or leave it out")


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _check(options: LoadOptions) -> None:
    if options.split not in SPLITS:
        raise InputError(f"expected split {' or '.join(map(repr, SPLITS))}, got {options.split!r}")
    if options.fit not in ("crop", "stretch"):
        raise InputError(f"expected fit 'crop' or 'stretch', got {options.fit!r}")
    if options.channels not in (None, 1, 3, 4):
        raise InputError(f"expected channels 1, 3 or 4, got {options.channels}")
    if options.size is not None and not all(1 <= side <= 16384 for side in options.size):
        raise InputError(f"expected a size of 1 .. 16384 pixels, got {options.size}")
    check_value_range(options.value_range)
    if options.depth is not None and not 8 <= options.depth <= 16:
        raise InputError(f"expected a depth of 8 to 16 bits, got {options.depth}")
    if options.sample_rate is not None and not LEAST_RATE <= options.sample_rate <= MOST_RATE:
        raise InputError(f"expected a sample rate of {LEAST_RATE} to {MOST_RATE} Hz, got {options.sample_rate}")
    if options.seconds is not None and not 0 < options.seconds <= MAX_SECONDS:
        raise InputError(f"expected seconds over 0, up to {MAX_SECONDS}, got {options.seconds}")
    if not 0 <= options.holdout < 1:
        raise InputError(f"expected holdout from 0 up to 1, got {options.holdout}")
