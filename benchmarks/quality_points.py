"""Modes of 25 Gaussians: how many of them GANs cover, how many samples lie near one, and how evenly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quality_subject import Entry, Subject
from recipes import POINT_RECIPES
from rows import Row, above, at_least, at_most

from gensdk_training.data.mixtures import MIXTURES
from gensdk_training.metrics.modes import mixture_modes

COUNT = 2500
"""Points that are judged, as in the PacGAN paper."""
SEEDS = (0, 1, 2)
GATED = "gaussians-wgan-gp"
"""The model that must cover them all, with each seed."""


def measure_points(subject: Subject) -> Iterator[Row]:
    """The modes of points drawn through the bundle, which are saved as a picture too."""
    with subject.generator() as generator:
        samples = generator.sample(COUNT, seed=0)
    samples.save(subject.run.with_name(subject.run.name + ".png"))
    mixture = MIXTURES[subject.recipe.data]
    report = mixture_modes(samples.points, mixture.centers, mixture.sigma)
    gated = subject.name == GATED
    yield subject.row("modes", report.covered, at_least(len(mixture.places)) if gated else None)
    yield subject.row("high quality", report.high_quality, at_least(0.80) if gated else None)
    yield subject.row("reverse KL", report.reverse_kl, at_most(0.05) if gated else None)


ENTRIES = {name: Entry(recipe, measure_points, SEEDS) for name, recipe in POINT_RECIPES.items()}


def packing_keeps_modes(rows: Sequence[Row]) -> Iterator[Row]:
    """The gate of packing: where a plain GAN loses modes, the packed one loses fewer."""
    modes = {row.model: row.value for row in rows if row.measure == "modes"}
    plain, packed = modes.get("gaussians-gan-unbalanced"), modes.get("gaussians-pacgan-unbalanced")
    if plain is not None and packed is not None:
        text, passed = above(plain)(packed)
        yield Row("gaussians-pacgan-unbalanced", "modes against plain", packed, text, passed)
