"""The request and the result of an evaluation, and how the one becomes the other for what is no image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.data.dataset import Dataset, Images
from gensdk_training.evaluation.evaluation_report import EvaluationReport

Say = Callable[[str], None]
OF_EACH = ("seeds", "labels", "prompts")
"""What settings of samples hold for each of them, which is too long for a report."""


@dataclass(frozen=True)
class Pictures:
    """uint8 [n, H, W, C] each. `nearest`: samples and, behind each, its nearest training image (mirrored where
    that is nearer). `worst`, `best`: by realism, empty without an extractor."""

    samples: Images
    nearest: Images
    worst: Images
    best: Images


@dataclass(frozen=True)
class Evaluation:
    """The report, and what a page shows beside it."""

    report: EvaluationReport
    pictures: Pictures


@dataclass(frozen=True)
class Asked:
    """The request: metrics, samples, seed and how to draw them; `started` as ``time.monotonic`` has it.

    `options`: those of :meth:`Generator.sample` that differ from the bundle's defaults.
    """

    wanted: frozenset[str]
    count: int
    seed: int
    backend: str
    progress: bool | None
    say: Say
    started: float
    options: Mapping[str, Any] = field(default_factory=dict)


def evaluation_of(
    asked: Asked,
    model: ModelSpec,
    samples: Samples,
    train: Dataset,
    test: Dataset,
    *,
    shown: int | None = None,
    **told: Any,
) -> Evaluation:
    """The evaluation of `samples` that are no images, against the two parts of the data, with a picture of the
    first ones (`shown`; None: of all).

    `told`: the other fields of :class:`EvaluationReport`, above all the measures; `image` is the shape of a sample
    where it is left out.
    """
    facts = {
        "model": model.name,
        "family": model.family,
        "data": train.info.name,
        "samples": len(samples),
        "seed": asked.seed,
        "image": model.output.shape,
        "train_count": len(train),
        "test_count": len(test),
        "settings": {name: value for name, value in samples.settings.items() if name not in OF_EACH},
        "seconds": time.monotonic() - asked.started,
    }
    none = np.empty((0, 1, 1, 1), np.uint8)
    return Evaluation(
        EvaluationReport(**{**facts, **told}), Pictures(samples[:shown].picture()[None], none, none, none)
    )
