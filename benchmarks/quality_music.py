"""Music: how many of five measures of MuseGAN's phrases are nearer to the chorales than independent notes are."""

from __future__ import annotations

from collections.abc import Iterator

from quality_subject import Entry, Subject
from recipes import MUSIC_RECIPES
from rows import Row, at_least

from gensdk_training.evaluation.evaluate import evaluate

COUNT = 2000
SEEDS = (0,)
GATED = 4
"""Measures, of five, that must be nearer to the test part than the baseline."""


def measure_music(subject: Subject) -> Iterator[Row]:
    """The measures of phrases drawn through the bundle; the first sixteen are saved as a picture and as sound."""
    with subject.generator() as generator:
        samples = generator.sample(16, seed=0)
    for suffix in (".png", ".wav"):
        samples.save(subject.run.with_name(subject.run.name + suffix))
    report = evaluate(str(subject.bundle), str(subject.chorales), count=COUNT).report
    for measure in report.measures:
        gate = at_least(GATED) if measure.name == "nearer" else None
        yield subject.row(measure.title, measure.value, gate, measure.detail)


ENTRIES = {name: Entry(recipe, measure_music, SEEDS) for name, recipe in MUSIC_RECIPES.items()}
