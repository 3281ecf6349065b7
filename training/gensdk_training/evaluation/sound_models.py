"""Evaluating a model of sounds: a classifier of the data's own sounds gives features and answers, and levels and
spectra are measured beside the test part's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host.user_cache import cache_folder
from gensdk_runtime.outputs.audio import sounds_of
from gensdk_runtime.outputs.base import output_of
from gensdk_training.data.dataset import Labels
from gensdk_training.data.sound_set import SoundDataset
from gensdk_training.evaluation.evaluation_report import ExtractorInfo, Measure
from gensdk_training.evaluation.labels import LabelDraw, chosen_of, label_draw
from gensdk_training.evaluation.measures import (
    FEATURE_METRICS,
    LOGIT_METRICS,
    Readings,
    answer_measures,
    class_counts,
    feature_measures,
)
from gensdk_training.evaluation.result import Asked, Evaluation, evaluation_of
from gensdk_training.evaluation.subject import MAX_SAMPLES
from gensdk_training.metrics.classifier import ClassifierSettings, cached_classifier
from gensdk_training.metrics.extractor import ClassifierExtractor
from gensdk_training.metrics.sound_levels import SoundLevels, sound_levels
from gensdk_training.metrics.sound_pictures import labelled_pictures, sound_pictures
from gensdk_training.run_config import DataConfig

SETTINGS = ClassifierSettings(steps=500)


def evaluate_sounds(bundle: Bundle, data: DataConfig, asked: Asked, *, named: bool) -> Evaluation:
    """Distances of features, label accuracy, also of each part of the classes' names, and levels.

    The data are brought to the model's rate. `named`: the metrics were named, and each must be possible; levels
    are measured where none was named. Raises :class:`InputError` for data that are no sounds, a count out of
    range, and metrics that are for images or need labels that the data lack.
    """
    if not 2 <= asked.count <= MAX_SAMPLES:
        raise InputError(f"expected 2 to {MAX_SAMPLES} samples, got {asked.count}")
    config = data.model_copy(update={"sample_rate": output_of(bundle.manifest.model.output).sample_rate})
    with closing(config.load(split="train")) as own, closing(config.load(split="test")) as against:
        train, test = _sounds(own), _sounds(against)
        judged = train.labels is not None and (train.info.num_classes or 0) > 1
        if named:
            _check_possible(asked, judged=judged)
        return _measure(
            bundle, _Parts(train, test, label_draw(bundle.manifest.model, train), judged), asked, named
        )


@dataclass(frozen=True)
class _Parts:
    """The data, how classes of samples are drawn, and whether a classifier can be trained."""

    train: SoundDataset
    test: SoundDataset
    classes: LabelDraw
    judged: bool

    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        told = "features are of mel spectrograms of the first 0.96 s of each sound"
        why_not = "no measure of features: the data have no labels to train a classifier on"
        return (told if self.judged else why_not, *self.classes.notes)


def _measure(bundle: Bundle, parts: _Parts, asked: Asked, named: bool) -> Evaluation:
    model, train, test = bundle.manifest.model, parts.train, parts.test
    asked.say(f"drawing {asked.count} samples")
    with Generator.load(bundle, backend=asked.backend) as generator:
        label = parts.classes.for_model(asked.count, asked.seed)
        samples = generator.sample(
            asked.count, seed=asked.seed, label=label, progress=asked.progress, **asked.options
        )
    drawn, chosen = sounds_of(samples), chosen_of(train, asked.count, asked.seed)
    rows, readings, info = _judgement(parts, drawn, chosen, samples.sample_rate, asked)
    if not named:
        some = [train.sounds[at] for at in chosen.tolist()]
        rows += _levels(*(sound_levels(each, samples.sample_rate) for each in (drawn, some, test.sounds)))
    return evaluation_of(
        asked,
        model,
        samples,
        train,
        test,
        labels=parts.classes.told,
        extractor=info,
        measures=tuple(rows),
        classes=class_counts(readings, test.info.class_names) if readings and "modes" in asked.wanted else (),
        notes=parts.notes(),
    )


def _judgement(
    parts: _Parts, drawn: Sequence[NDArray[np.float32]], chosen: Labels, rate: int, asked: Asked
) -> tuple[list[Measure], Readings | None, ExtractorInfo | None]:
    """What a classifier of the data says of the samples, the `chosen` training sounds and the test part."""
    if not parts.judged:
        return [], None, None
    asked.say("training a classifier of the data, or taking the one that was kept")
    judge, train, test = _judge(parts.train), parts.train, parts.test
    seen = [sound_pictures(drawn, rate), *(labelled_pictures(each).images for each in (train.take(chosen), test))]
    readings = Readings(*(judge.read(pictures) for pictures in seen))
    labels, truth = parts.classes.of_data(asked.count, asked.seed), test.labels
    rows = feature_measures(asked.wanted, readings) + answer_measures(asked.wanted, readings, labels, truth)
    if "labels" in asked.wanted and labels is not None and truth is not None:
        rows += _label_parts(train, readings, labels, truth)
    accuracy = _right(readings.test.logits, truth)
    info = ExtractorInfo(
        name=judge.name, resizing=judge.resizing, feature_count=judge.feature_count, accuracy=accuracy
    )
    return rows, readings, info


def _check_possible(asked: Asked, *, judged: bool) -> None:
    impossible = asked.wanted - {*FEATURE_METRICS, *LOGIT_METRICS} if judged else asked.wanted
    if impossible:
        why = "" if judged else ", which have no labels to train a classifier on"
        raise InputError(f"can't measure {', '.join(sorted(impossible))} of these sounds{why}; leave it out")


def _sounds(data: object) -> SoundDataset:
    if not isinstance(data, SoundDataset):
        raise InputError("the model makes sounds; give data of sounds, such as a folder of WAV files")
    return data


def _judge(train: SoundDataset) -> ClassifierExtractor:
    pictures = labelled_pictures(train, training=True)
    return ClassifierExtractor(cached_classifier(pictures, cache_folder("classifiers"), SETTINGS))


def _right(logits: NDArray[np.float64] | None, truth: Labels | None) -> float | None:
    return None if logits is None or truth is None else float((logits.argmax(axis=1) == truth).mean())


def _label_parts(train: SoundDataset, readings: Readings, labels: Labels, truth: Labels) -> list[Measure]:
    """How many samples are right in each part of their class's name, such as the digit, whatever the speaker."""
    audio, own, test = train.info.require_audio(), readings.samples.logits, readings.test.logits
    if not audio.parts or own is None or test is None:
        return []
    numbers = np.array(audio.numbers_of(train.info.class_names or ()))
    found, known = numbers[own.argmax(axis=1)], numbers[test.argmax(axis=1)]
    return [
        Measure(
            name=f"labels_{part.name}",
            title=f"{part.name} accuracy",
            value=float((found[:, at] == numbers[labels, at]).mean()),
            floor=float((known[:, at] == numbers[truth, at]).mean()),
            better="higher",
            detail=f"{len(part.values)} of them; floor: the classifier on test sounds",
        )
        for at, part in enumerate(audio.parts)
    ]


def _levels(own: SoundLevels, train: SoundLevels, test: SoundLevels) -> list[Measure]:
    """Differences from the test part, and of training sounds from it as floor."""
    rows = (
        (
            "loudness",
            "loudness off, dB",
            abs(own.rms - test.rms),
            abs(train.rms - test.rms),
            f"mean RMS {own.rms:.1f} dB of full scale, test sounds {test.rms:.1f} dB",
        ),
        (
            "spectrum",
            "spectrum off, dB",
            own.spectrum_off(test),
            train.spectrum_off(test),
            "long-term average in mel bands, each set at its own loudness",
        ),
        (
            "silence",
            "share of silence off",
            abs(own.silent - test.silent),
            abs(train.silent - test.silent),
            f"10 ms below -60 dB: {own.silent:.1%} of samples, {test.silent:.1%} of test sounds",
        ),
        ("clipped", "share beyond full scale", own.beyond, train.beyond, "which files clip"),
    )
    return [
        Measure(name=name, title=title, value=value, floor=floor, better="lower", detail=detail)
        for name, title, value, floor, detail in rows
    ]
