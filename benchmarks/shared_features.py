"""What sharing deep features between steps costs in quality and gains in time, for a diffusion model that can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec

if TYPE_CHECKING:
    from quality_subject import Subject
    from rows import Row

    from gensdk_training.metrics.quality import QualityReport

STEPS = (20, 50)
INTERVALS = (1, 2, 3)

TIMED = 64
"""Samples in each timed call, one batch of the embedded model."""
ROUNDS = 5
"""Timed calls of each interval, in turn."""


def shared_features(subject: Subject, generator: Generator, judge: Callable[..., QualityReport]) -> Iterator[Row]:
    """A row for each of STEPS and INTERVALS; none where the bundle was exported without shared features.

    `judge(subject, generator, num_inference_steps=, cache_interval=)` samples and judges. The time of the others
    is told as a share of the exact sampler's, which has interval 1.
    """
    program = generator.model.program
    if not isinstance(program, DiffusionSpec) or program.shallow_graph is None:
        return
    for steps in STEPS:
        shares = time_shares(generator, steps)
        for interval in INTERVALS:
            report = judge(subject, generator, num_inference_steps=steps, cache_interval=interval)
            accuracy = "" if report.label_accuracy is None else f"label accuracy {report.label_accuracy:.3f}, "
            detail = "exact" if interval == 1 else f"{accuracy}{shares[interval]:.2f} of the exact time"
            yield subject.row(f"classifier-FID, DDIM {steps}, cache_interval {interval}", report.fid, None, detail)


def time_shares(generator: Generator, steps: int) -> dict[int, float]:
    """For each interval its time as a share of the exact sampler's: the median of pairs measured in turn."""
    times: dict[int, list[float]] = {interval: [] for interval in INTERVALS}
    for _ in range(ROUNDS + 1):
        for interval in INTERVALS:
            start = perf_counter()
            generator.sample(TIMED, seed=0, num_inference_steps=steps, cache_interval=interval, progress=False)
            times[interval].append(perf_counter() - start)
    exact = np.array(times[1][1:])  # the first round only warms up
    return {interval: float(np.median(np.array(taken[1:]) / exact)) for interval, taken in times.items()}
