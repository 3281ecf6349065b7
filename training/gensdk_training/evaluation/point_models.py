"""Evaluating a model of points: their coordinates are the features, and a known mixture has known modes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.data.dataset import Dataset
from gensdk_training.data.mixtures import MIXTURES
from gensdk_training.data.point_set import PointDataset
from gensdk_training.evaluation.evaluation_report import Measure
from gensdk_training.evaluation.labels import chosen_of, label_draw
from gensdk_training.evaluation.measures import FEATURE_METRICS, Readings, feature_measures
from gensdk_training.evaluation.result import Asked, Evaluation, evaluation_of
from gensdk_training.evaluation.subject import MAX_SAMPLES
from gensdk_training.metrics.extractor import Reading
from gensdk_training.metrics.modes import WITHIN, mixture_modes
from gensdk_training.run_config import DataConfig


def evaluate_points(bundle: Bundle, data: DataConfig, asked: Asked, *, named: bool) -> Evaluation:
    """Distances of coordinates between samples and test points, and for a mixture by name its modes.

    `named`: the metrics were named, and each must be possible. Raises :class:`InputError` for data that are no
    points of as many dimensions, a count out of range, and metrics of images.
    """
    mixture = MIXTURES.get(data.source)
    possible = frozenset(FEATURE_METRICS) | ({"modes"} if mixture is not None else set())
    if named and asked.wanted - possible:
        raise InputError(
            f"can't measure {', '.join(sorted(asked.wanted - possible))} of these points; leave it out"
        )
    if not 2 <= asked.count <= MAX_SAMPLES:
        raise InputError(f"expected 2 to {MAX_SAMPLES} samples, got {asked.count}")
    with closing(data.load(split="train")) as train, closing(data.load(split="test")) as test:
        own, against = _points(train, bundle), _points(test, bundle)
        asked.say(f"drawing {asked.count} samples")
        with Generator.load(bundle, backend=asked.backend) as generator:
            classes = label_draw(generator.model, train)
            samples = generator.sample(
                asked.count,
                seed=asked.seed,
                label=classes.for_model(asked.count, asked.seed),
                progress=asked.progress,
                **asked.options,
            )
        chosen = chosen_of(train, asked.count, asked.seed)
        rows = feature_measures(
            asked.wanted,
            Readings(*(Reading(x.astype(np.float64), None) for x in (samples.points, own[chosen], against))),
        )
        if mixture is not None and "modes" in asked.wanted:
            rows += mixture_measures(samples.points, own[chosen], mixture.centers, mixture.sigma)
        model = bundle.manifest.model
        return evaluation_of(
            asked,
            model,
            samples,
            train,
            test,
            labels=classes.told,
            measures=tuple(rows),
            notes=("features are the points' own coordinates", *classes.notes),
        )


def _points(data: Dataset, bundle: Bundle) -> NDArray[np.float32]:
    """float32 [n, D] in the data's units."""
    want = bundle.manifest.model.output.shape
    if not isinstance(data, PointDataset) or data.points.shape[1:] != want:
        raise InputError(
            f"the model makes points of {want[0]} values; give data of such points, not {data.info.name!r}"
        )
    return data.points


def mixture_measures(
    points: NDArray[np.floating],
    training: NDArray[np.floating],
    centers: NDArray[np.floating],
    sigma: float,
    shares: Sequence[float] | None = None,
) -> list[Measure]:
    """Modes covered, good samples and the divergence over modes, of `points` [n, D], and of `training` [m, D] as
    floor.

    `centers` [K, D], one `sigma` and the modes' `shares` (None: equal) are the mixture's. Raises
    :class:`InputError` for other shapes and NaN.
    """
    own, base = mixture_modes(points, centers, sigma, shares), mixture_modes(training, centers, sigma, shares)
    dropped = f"dropped: {', '.join(map(str, own.dropped[:20]))}" if own.dropped else "none dropped"
    return [
        Measure(
            name="modes_covered",
            title=f"modes covered of {own.modes}",
            value=own.covered,
            floor=base.covered,
            better="higher",
            detail=f"{own.samples} samples; {dropped}",
        ),
        Measure(
            name="high_quality",
            title="share of good samples",
            value=own.high_quality,
            floor=base.high_quality,
            better="higher",
            detail=f"within {WITHIN:g} sigma of a mode",
        ),
        Measure(
            name="modes",
            title="mode divergence",
            value=own.reverse_kl,
            floor=base.reverse_kl,
            better="lower",
            detail="KL(model || data) in nats over the modes",
        ),
    ]
