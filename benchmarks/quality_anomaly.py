"""AnoGAN on MNIST: one digit is normal, the others are not; beside two baselines that need no GAN."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from quality_subject import Entry, Subject
from recipes import ANOMALY_RECIPES
from rows import Row, at_least
from sklearn.metrics import roc_auc_score

from gensdk_training.data import load_data
from gensdk_training.metrics.classifier import LabelledImages

EACH = 300
"""Test images of the normal digit, and as many of the others."""
COMPONENTS = 32
GATE = 0.85
GATED = "mnist-anogan-0"


def measure_anomaly(subject: Subject) -> Iterator[Row]:
    """The area under the ROC curve (AUC) of AnoGAN's search, of its encoder alone, and of the baselines."""
    given, odd = mixed(subject)
    with subject.generator() as generator:
        searched = generator.detect(given, progress=False)
        encoded = generator.detect(given, fast=True, progress=False)
    counts = f"{int((~odd).sum())} normal and {int(odd.sum())} other test images"
    gate = at_least(GATE) if subject.name == GATED else None
    yield subject.row("AUC, search", roc_auc_score(odd, searched.scores), gate, counts)
    yield subject.row("AUC, encoder alone", roc_auc_score(odd, encoded.scores))
    for name, scores in baselines(LabelledImages.of(subject.data("train")).images, given).items():
        yield subject.row(f"AUC, {name}", roc_auc_score(odd, scores), detail="a baseline without a GAN")


def mixed(subject: Subject, each: int = EACH) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """`each` test images of the normal digit and as many of the others; and which are others."""
    tests = LabelledImages.of(load_data(f"mnist:{subject.mnist}", split="test"))
    normal = tests.labels == int(subject.recipe.only[0])
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.permutation(np.flatnonzero(normal == kind))[:each] for kind in (True, False)])
    return tests.images[places], ~normal[places]


def baselines(normal: NDArray[np.uint8], tests: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """The squared error of the mean image, and that of the projection on the principal components."""
    flat, given = (images.reshape(len(images), -1) / 127.5 - 1 for images in (normal, tests))
    mean = flat.mean(axis=0)
    _, _, components = np.linalg.svd(flat - mean, full_matrices=False)
    rest = given - mean
    projected = rest @ components[:COMPONENTS].T @ components[:COMPONENTS]
    return {
        "mean image": np.square(rest).sum(axis=1),
        f"PCA-{COMPONENTS}": np.square(rest - projected).sum(axis=1),
    }


ENTRIES = {name: Entry(recipe, measure_anomaly) for name, recipe in ANOMALY_RECIPES.items()}
