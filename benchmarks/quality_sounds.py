"""Sounds: the bits a sample of spoken digits beside a Markov chain's, and what a classifier hears in samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from quality_subject import Entry, Subject
from rows import Row, at_least, at_most
from sequence_recipes import SOUND_RECIPES
from spoken_digits import chains, part

from gensdk_training.evaluation.evaluate import evaluate

COUNT = 300
SEEDS = (0,)
SHARE = 0.9
"""Of the bits of a chain of second order, which knows neither digit nor speaker; the gate."""
HEARD = 0.6
"""Of samples the share whose digit a classifier hears; the gate."""


def measure_sounds(subject: Subject) -> Iterator[Row]:
    """Bits a sample of the official test part, the chains beside them, and the measures of samples; eight of those
    are saved as sound and as a picture."""
    source = subject.config.data.source
    train, test = (part(source, split, "auto") for split in ("train", "test"))
    *lower, second = chains(train, test)
    yield from (*lower, second)
    with subject.generator() as generator:
        samples = generator.sample(8, seed=0)
        size = generator.model.output.shape[0]
        whole = [place for place, sound in enumerate(test.sounds) if len(sound) <= size]
        given = np.zeros((len(whole), size, 1), np.float32)
        for row, place in zip(given, whole, strict=True):
            row[: len(test.sounds[place])] = test.sounds[place]
        lengths = test.lengths[whole]
        labels = None if test.labels is None else test.labels[whole]
        bits = generator.log_likelihood(given, labels, lengths=lengths, batch_size=8)
    for suffix in (".wav", ".png"):
        samples.save(subject.run.with_name(subject.run.name + suffix))
    told = f"{len(whole)} of {len(test.sounds)} sounds, those that are no longer than {size} samples"
    mean = float((bits * (lengths + 1)).sum() / (lengths + 1).sum())
    yield subject.row("test bits/sample", mean, at_most(SHARE * second.value), told)
    report = evaluate(str(subject.bundle), source, count=COUNT).report
    for measure in report.measures:
        gate = at_least(HEARD) if "digit" in measure.title else None
        yield subject.row(measure.title, measure.value, gate, measure.detail)


ENTRIES = {name: Entry(recipe, measure_sounds, SEEDS) for name, recipe in SOUND_RECIPES.items()}
