"""Music: how many of five measures are nearer to the chorales than independent notes are; of models with
likelihoods the bits a step beside Markov chains'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from quality_subject import Entry, Subject
from rows import Row, at_least, at_most
from sequence_recipes import MUSIC_RECIPES

from gensdk_runtime.generator import Generator
from gensdk_training.data import load_data
from gensdk_training.data.dataset import Split
from gensdk_training.data.piano_rolls import PianorollDataset
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.metrics.markov_chains import fit_markov_chain

COUNT, PIECES = 2000, 200
"""Phrases, and whole pieces, that are measured."""
SEEDS = (0,)
GATED = 4
"""Measures, of five, that must be nearer to the test part than the baseline."""
ORDERS = (0, 1)
SHARE = 0.8
"""Of the bits of chains of first order, a voice each; the gate."""
Codes = NDArray[np.int64]


def measure_music(subject: Subject) -> Iterator[Row]:
    """The measures of music drawn through the bundle; the first sixteen samples are saved as a picture and as
    sound."""
    with subject.generator() as generator:
        samples, whole = generator.sample(16, seed=0), generator.can("log_likelihood")
        if whole:
            yield from likelihoods(subject, generator)
    for suffix in (".png", ".wav"):
        subject.runs.mkdir(parents=True, exist_ok=True)
        samples.save(subject.run.with_name(subject.run.name + suffix))
    report = evaluate(subject.source, str(subject.chorales), count=PIECES if whole else COUNT).report
    for measure in report.measures:
        gate = at_least(GATED) if measure.name == "nearer" else None
        yield subject.row(measure.title, measure.value, gate, measure.detail)


def likelihoods(subject: Subject, generator: Generator) -> Iterator[Row]:
    """Bits a step of the test part, all voices and the ends together; beside them those of a chain a voice, which
    know no ends."""
    parts = {split: pieces_of(subject, split) for split in ("train", "valid", "test")}
    for order in ORDERS:
        bits = chain_bits(*(codes_of(part) for part in parts.values()), order=order)
        yield subject.row(f"Markov chains of order {order}: test bits/step", bits)
    test = parts["test"].batch(np.arange(len(parts["test"])))
    assert test.lengths is not None
    found = generator.log_likelihood(test.images, lengths=test.lengths, batch_size=8)
    steps = test.lengths + (test.lengths < test.images.shape[2])
    own = float((found * steps).sum() * test.images.shape[1] / steps.sum())
    told = f"{len(steps)} pieces, {int(steps.sum())} steps and ends"
    yield subject.row("test bits/step", own, at_most(SHARE * bits), told)


def pieces_of(subject: Subject, split: Split) -> PianorollDataset:
    """Whole pieces of one part, in the keys that they have."""
    data = load_data(str(subject.chorales), split=split, whole=True)
    assert isinstance(data, PianorollDataset)
    return data


def codes_of(data: PianorollDataset) -> list[Codes]:
    """Of each piece and each voice the pitches [steps, voices], 0 for silence."""
    pitches = np.arange(1, data.form.pitches + 1)
    return [(roll * pitches).max(axis=2).T for roll in data.rolls]


def chain_bits(train: Sequence[Codes], valid: Sequence[Codes], test: Sequence[Codes], *, order: int) -> float:
    """Bits a step of the test part by a chain for each voice."""
    total = 0.0
    for voice in range(test[0].shape[1]):
        seen, chosen, judged = ([codes[:, voice] for codes in part] for part in (train, valid, test))
        levels = 1 + max(int(codes.max()) for part in (seen, chosen, judged) for codes in part)
        total += fit_markov_chain(seen, chosen, order=order, levels=levels, start=0).bits(judged)
    return total


ENTRIES = {name: Entry(recipe, measure_music, SEEDS) for name, recipe in MUSIC_RECIPES.items()}
