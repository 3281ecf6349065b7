"""The request and the result of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gensdk_training.data.dataset import Images
from gensdk_training.evaluation.evaluation_report import EvaluationReport

Say = Callable[[str], None]


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
