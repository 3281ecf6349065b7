"""Tests whether an extractor can tell images apart: if it can't, its distances mean nothing."""

from __future__ import annotations

import math

import numpy as np

from gensdk_training.data.dataset import Images, Labels
from gensdk_training.metrics.extractor import Extractor
from gensdk_training.metrics.features import Float64, distance_blocks

PROBED = 256
"""Images of each kind that are compared."""
FURTHER = 1.05
"""Noise must be further from the test images than other real images are, at least by this factor."""
SURE = 1.64
"""Standard deviations above guessing that the answers of a classifier must be."""


def why_it_cant_tell(judge: Extractor, test: Images, train: Images, labels: Labels | None) -> str:
    """Why distances by `judge` would mean nothing, in words; "" where they do.

    `labels` of the test images, in the classifier's numbers: None where it is no classifier of these classes.
    `test` and `train` are uint8 [n, H, W, C].
    """
    one = judge.read(test)
    if one.features.std(axis=0).max() <= 1e-9 * max(1e-30, float(np.abs(one.features).max())):
        return "it gives the same features for every image"
    if labels is not None and one.logits is not None and (reason := _guesses(one.logits, labels)):
        return reason
    count = min(PROBED, len(test), len(train))
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (count, *test.shape[1:]), np.uint8)
    real, unreal = (
        _nearest(judge.read(images).features, one.features[:count]) for images in (train[:count], noise)
    )
    if not unreal > FURTHER * real:
        return (
            f"it can't tell noise from the data: noise is {unreal:.3g} away from the nearest test image, training "
            f"images {real:.3g}"
        )
    return ""


def _guesses(logits: Float64, labels: Labels) -> str:
    """True if the answers are no better than always naming the most frequent class."""
    count, right = len(labels), int((logits.argmax(axis=1) == labels).sum())
    share = float(np.bincount(labels).max()) / count
    if share == 1.0:  # all are of one class, which says nothing
        return ""
    needed = count * share + SURE * math.sqrt(count * share * (1 - share))
    if right >= min(count, needed):
        return ""
    return f"it does not know the classes: {right} of {count} test images right, where guessing gets {share:.0%}"


def _nearest(features: Float64, others: Float64) -> float:
    """The mean distance to the nearest of `others`."""
    return float(
        np.sqrt(np.concatenate([block.min(axis=1) for _, block in distance_blocks(features, others)])).mean()
    )
