"""The measures of an evaluation, each with what training images get in the samples' place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_training.data.dataset import Images
from gensdk_training.evaluation.evaluation_report import ClassCount, Measure
from gensdk_training.metrics.extractor import Reading
from gensdk_training.metrics.features import Estimate
from gensdk_training.metrics.fid import feature_statistics, frechet_distance
from gensdk_training.metrics.inception_score import SPLITS, inception_score
from gensdk_training.metrics.kid import kernel_distance
from gensdk_training.metrics.manifold import DENSITY_NEIGHBOURS, NEIGHBOURS, measure_manifolds
from gensdk_training.metrics.modes import class_modes
from gensdk_training.metrics.music import MEASURES
from gensdk_training.metrics.neighbours import MemorizationReport
from gensdk_training.metrics.paths import STEPS, PathCurve, mean_distance

FEATURE_METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
LOGIT_METRICS = ("is", "modes", "labels")
IMAGE_METRICS = ("memorization", "path")
TEXT_METRICS = ("bleu", "self_bleu", "distinct", "sentence_fd", "ngram", "reverse_ngram", "copied", "bits")
TRANSFER_METRICS = ("style", "content", "fluency")
PROMPT_METRICS = ("r_precision",)
MUSIC_METRICS = MEASURES
METRICS = (
    *(*FEATURE_METRICS, *LOGIT_METRICS, *IMAGE_METRICS, *PROMPT_METRICS),
    *(*TEXT_METRICS, *TRANSFER_METRICS, *MUSIC_METRICS),
)
"""All that can be asked for, by name: from features, from a classifier's answers, from the images themselves, from
the texts that they were made from, from texts, from texts in another style, and of music."""

MANIFOLD_METRICS = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Readings:
    """The extractor's results for the samples, for at most as many training images, and for the test images."""

    samples: Reading
    train: Reading
    test: Reading


def feature_measures(wanted: frozenset[str], readings: Readings) -> list[Measure]:
    """FID, KID and those of manifolds, as far as they are `wanted`."""
    own, train, test = (reading.features for reading in (readings.samples, readings.train, readings.test))
    counts = f"{len(own)} samples against {len(test)} test images; floor: {len(train)} training images"
    rows = []
    if "fid" in wanted:
        real = feature_statistics(test)
        fid, floor = (frechet_distance(feature_statistics(x), real) for x in (own, train))
        few = "" if min(len(own), len(test)) > own.shape[1] else "; fewer images than features: read it as a rank"
        rows.append(_row("fid", "Fréchet distance (FID)", fid, floor, "lower", counts + few))
    if "kid" in wanted:
        kid, base = kernel_distance(own, test), kernel_distance(train, test)
        rows.append(_row("kid", "kernel distance (KID)", kid, base.value, "lower", counts))
    if wanted & set(MANIFOLD_METRICS):
        rows += _manifolds(wanted, own, train, test)
    return rows


def _manifolds(
    wanted: frozenset[str], own: NDArray[np.float64], train: NDArray[np.float64], test: NDArray[np.float64]
) -> list[Measure]:
    count = min(len(own), len(train), len(test))
    mine, base = (measure_manifolds(test[:count], x[:count]).to_dict() for x in (own, train))
    rows = []
    for name in MANIFOLD_METRICS:
        if name in wanted:
            k = NEIGHBOURS if name in ("precision", "recall") else DENSITY_NEIGHBOURS
            rows.append(_row(name, name, mine[name], base[name], "higher", f"{count} of each, k = {k}"))
    return rows


def answer_measures(
    wanted: frozenset[str], readings: Readings, labels: NDArray[np.int64] | None, truth: NDArray[np.int64] | None
) -> list[Measure]:
    """Inception score, class coverage and label accuracy, from the logits; `truth`: labels of the test images."""
    own, train, test = readings.samples.logits, readings.train.logits, readings.test.logits
    if own is None or train is None or test is None:
        return []
    rows = []
    if "is" in wanted:
        score, floor = (inception_score(x, splits=min(SPLITS, len(x))) for x in (own, train))
        detail = f"{own.shape[1]} classes; of the answers alone, no image is compared"
        rows.append(_row("is", "inception score (IS)", score, floor.value, "higher", detail))
    if "modes" in wanted:
        shares = _shares(test)
        mine, base = (class_modes(_there(x, shares), shares[shares > 0].tolist()) for x in (own, train))
        detail = f"{mine.covered} of {mine.modes} classes covered; KL(model || data) in nats over them"
        rows.append(_row("modes", "class divergence", mine.reverse_kl, base.reverse_kl, "lower", detail))
    if "labels" in wanted and labels is not None:
        share = float((own.argmax(axis=1) == labels).mean())
        right = None if truth is None else float((test.argmax(axis=1) == truth).mean())
        detail = "samples that show the class they were asked for; floor: the classifier on test images"
        rows.append(_row("labels", "label accuracy", share, right, "higher", detail))
    return rows


def class_counts(readings: Readings, names: tuple[str, ...] | None) -> tuple[ClassCount, ...]:
    """How many samples the classifier takes for each class, beside the shares among the test images."""
    own, test = readings.samples.logits, readings.test.logits
    if own is None or test is None:
        return ()
    counts, shares = np.bincount(own.argmax(axis=1), minlength=own.shape[1]), _shares(test)
    known = names if names is not None and len(names) == len(counts) else [str(i) for i in range(len(counts))]
    return tuple(
        ClassCount(name=name, samples=int(count), share=float(share))
        for name, count, share in zip(known, counts, shares, strict=True)
    )


def memorization_measures(report: MemorizationReport) -> list[Measure]:
    """How often a sample is nearer to the training images than a test image is, and how many are copies."""
    detail = (
        f"{report.samples} samples and {report.tests} test images against all training images and their mirror "
        f"images; median distances {report.sample_distance:.3f} and {report.test_distance:.3f}"
    )
    found = f"nearer than 99 % of the test images; {report.flipped} mirrored"
    return [
        _row("memorization", "nearer to training than test images", report.nearer, 0.5, "near floor", detail),
        _row("copies", "share of copies", report.copy_share, 0.01, "near floor", found),
    ]


def path_measures(curve: PathCurve, test: Images, classes: NDArray[np.int64] | None) -> list[Measure]:
    """How far apart the ends of a path are, against two test images, and its steepest part.

    `classes` [n]: labels of the test images where both ends of a path are of one class; None: of any.
    """
    order = np.random.Generator(np.random.Philox(0)).permutation(len(test))
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    one, other = order[:-1], order[1:]
    if classes is not None and (alike := classes[one] == classes[other]).any():
        one, other = one[alike], other[alike]
    real = mean_distance(test[one], test[other])
    reach = curve.reach / real if real > 0 else 1.0
    pairs = "over that of two test images" + (" of one class" if classes is not None else "")
    return [
        _row("path_reach", "difference of independent samples", reach, 1.0, "near floor", pairs),
        _row(
            "path_steepest",
            "steepest tenth of a latent path",
            curve.steepest,
            1.0 / STEPS,
            "near floor",
            "share of the whole way; floor: a straight way; near 1: the model jumps between pictures",
        ),
    ]


def _row(  # noqa: PLR0917 - a table reads by columns
    name: str, title: str, value: float | Estimate, floor: float | None, better: str, detail: str
) -> Measure:
    estimate = value if isinstance(value, Estimate) else None
    return Measure.model_validate(
        {
            "name": name,
            "title": title,
            "value": estimate.value if estimate else value,
            "error": estimate.error if estimate else None,
            "floor": floor,
            "better": better,
            "detail": detail,
        }
    )


def _shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(logits.argmax(axis=1), minlength=logits.shape[1]) / len(logits))


def _there(logits: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """The likeliest class of each among those that the test images have, numbered anew."""
    return np.asarray(logits[:, shares > 0].argmax(axis=1), np.int64)
