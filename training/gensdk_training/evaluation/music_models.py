"""Evaluating a model of music: each measure beside the data's own, and beside notes that know nothing of each
other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from math import inf
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.pianoroll import PianorollSpec
from gensdk_training.data.dataset import Dataset
from gensdk_training.data.piano_rolls import BARS, PianorollDataset, phrases
from gensdk_training.evaluation.evaluation_report import Measure
from gensdk_training.evaluation.labels import chosen_of
from gensdk_training.evaluation.measures import MUSIC_METRICS
from gensdk_training.evaluation.result import Asked, Evaluation, evaluation_of
from gensdk_training.evaluation.subject import MAX_SAMPLES
from gensdk_training.metrics.music import MEASURES, TITLES, independent_notes, measure_music
from gensdk_training.run_config import DataConfig

Bool = NDArray[np.bool_]
SHOWN = 16


def evaluate_music(bundle: Bundle, data: DataConfig, asked: Asked, *, named: bool) -> Evaluation:
    """The measures of :mod:`gensdk_training.metrics.music`, of samples against the test part of `data`; of pieces
    that end by themselves, cut into phrases as the data are.

    `named`: the metrics were named, and each must be possible. Raises :class:`InputError` for data that are no
    music of the model's tracks and steps, a count out of range, and metrics of other kinds.
    """
    if named and asked.wanted - set(MUSIC_METRICS):
        wrong = ", ".join(sorted(asked.wanted - set(MUSIC_METRICS)))
        raise InputError(f"can't measure {wrong} of music; it has {', '.join(MUSIC_METRICS)}")
    if not 2 <= asked.count <= MAX_SAMPLES:
        raise InputError(f"expected 2 to {MAX_SAMPLES} samples, got {asked.count}")
    model = bundle.manifest.model
    form = _of_phrases(model)
    settings = {"bars": form.bars, "steps_per_beat": form.steps_per_beat, "transpose": None, "whole": False}
    cut = data.model_copy(update=settings)
    with closing(cut.load(split="train")) as train, closing(cut.load(split="test")) as test:
        own, against = _music(train, form), _music(test, form)
        asked.say(f"drawing {asked.count} samples")
        with Generator.load(bundle, backend=asked.backend) as generator:
            samples = generator.sample(asked.count, seed=asked.seed, progress=asked.progress, **asked.options)
        made = _phrases(samples, form)
        floor = _rolls(own[0], chosen_of(own[0], len(made), asked.seed))
        real = _rolls(against[0], np.arange(len(against[0])))
        base = independent_notes(_rolls(own[0], np.arange(len(own[0]))), len(made), asked.seed)
        rows = music_measures(made, floor, real, base, form)
        lost = own[1] + against[1]
        return evaluation_of(
            asked,
            model,
            samples,
            train,
            test,
            shown=SHOWN,
            image=form.shape,
            measures=tuple(row for row in rows if row.name in asked.wanted or row.name == "nearer"),
            notes=(
                "baseline: notes drawn one by one, as many at a step and pitches as often as in the training part",
                "phrases overlap: neighbours in the data share bars",
                *([f"{len(made)} phrases of {len(samples)} samples"] if len(made) != len(samples) else []),
                *([f"{lost} steps of notes lie outside of the model's pitches and are left out"] if lost else []),
            ),
        )


def music_measures(made: Bool, floor: Bool, real: Bool, base: Bool, form: PianorollSpec) -> list[Measure]:
    """A row for each measure of the rolls `made`, and one that counts those that are nearer to `real` than
    `base` is.

    `floor`: training music in the samples' place. All are bool [n, tracks, steps, pitches].
    """
    own, train, test, plain = (measure_music(rolls, form) for rolls in (made, floor, real, base))
    rows, nearer = [], []
    for name in MEASURES:
        if name not in train or name not in test or name not in plain:
            continue
        value = own.get(name)
        away, beside = abs((inf if value is None else value) - test[name]), abs(plain[name] - test[name])
        better = away < beside
        nearer.append(better)
        if value is not None:
            told = f"test {test[name]:.4g}, baseline {plain[name]:.4g}: {'nearer' if better else 'no nearer'}"
            rows.append(_row(name, value, train[name], told, plain[name]))
    detail = f"of {len(nearer)} measures, nearer to the test part than the baseline of independent notes"
    return [*rows, _count(sum(nearer), len(nearer), detail)]


def _row(name: str, value: float, floor: float, detail: str, baseline: float) -> Measure:
    return Measure(
        name=name,
        title=TITLES[name],
        value=value,
        floor=floor,
        baseline=baseline,
        better="near floor",
        detail=detail,
    )


def _count(nearer: int, of: int, detail: str) -> Measure:
    return Measure(
        name="nearer",
        title="measures nearer than the baseline",
        value=nearer,
        floor=of,
        baseline=0,
        better="higher",
        detail=detail,
    )


def _music(data: Dataset, form: PianorollSpec) -> tuple[PianorollDataset, int]:
    """The phrases in the model's pitches, and how many steps of notes that loses."""
    if not isinstance(data, PianorollDataset):
        raise InputError(f"the model makes music, and {data.info.name!r} are {data.info.kind}; give such data")
    return data.as_they_are().in_format(form)


def _of_phrases(model: ModelSpec) -> PianorollSpec:
    """The format in which the model's music is measured: its own, or of pieces that end by themselves phrases of
    theirs."""
    form = cast(PianorollSpec, model.output)
    if getattr(model.program, "stop", None) is None:
        return form
    return form.model_copy(update={"bars": min(form.bars, BARS)})


def _phrases(samples: Samples, form: PianorollSpec) -> Bool:
    """The samples as phrases of `form`, bool [n, tracks, steps, pitches], one from each bar of pieces that are
    longer."""
    rolls = np.asarray(samples.array > 0.5)
    if samples.lengths is None or rolls.shape[2] == form.steps:
        return rolls
    pieces = [roll[:, :end] for roll, end in zip(rolls, samples.lengths.tolist(), strict=True)]
    places = phrases(pieces, form, 0, Counter())
    if not len(places):
        raise InputError(f"no sample has {form.bars} bars in which something sounds; train the model for longer")
    return np.stack([pieces[piece][:, first : first + form.steps] for piece, first, _ in places.tolist()])


def _rolls(data: PianorollDataset, indices: NDArray[np.int64] | Sequence[int]) -> Bool:
    return data.batch(np.asarray(indices, np.int64)).images > 0.5
