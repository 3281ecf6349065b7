"""Finds the latents of images by gradient steps, and what that says of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_number
from gensdk_runtime.conditions.inputs import check_images
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.host.progress import Progress
from gensdk_runtime.noise import Float32, SampleKey, sample_keys
from gensdk_runtime.plan.request import batch_limit
from gensdk_runtime.programs.ascent import AscentProgram
from gensdk_runtime.programs.base import Int64, Run, StepCallback


@dataclass(frozen=True)
class Inversion:
    """What was found for n images.

    `latents` float32 [n, ...], `images` float32 [n, C, H, W] made of them, `targets` the images that were looked
    for, `objective` float32 [n] how far they are apart by the model's own measure (where the last variable is
    kept: one step before), `steps` int64 [n]. `settings`: everything needed to do it again, as plain JSON.
    `stopped`: a callback ended it early; then there are fewer than n.
    """

    latents: Float32
    images: Float32
    targets: Float32
    objective: Float32
    steps: Int64
    settings: Mapping[str, Any]
    stopped: bool = False

    def __len__(self) -> int:
        return len(self.objective)

    @cached_property
    def residuals(self) -> Float32:
        """``|target - image|``, float32 [n, C, H, W]."""
        return np.asarray(np.abs(self.targets - self.images), np.float32)


@dataclass(frozen=True)
class Detection:
    """How unusual each of n images is: `scores` float32 [n], larger for the more unusual; `threshold`, where one
    was given: above it an image counts as anomalous. `inversion` says what was found for them."""

    inversion: Inversion
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        if not np.isfinite(self.scores).all():
            at = int(np.flatnonzero(~np.isfinite(self.scores))[0])
            raise BackendError(
                f"the model gave the score {self.scores[at]} for image {at}, which is neither usual nor odd; try "
                "precision fp32 or another backend"
            )

    def __len__(self) -> int:
        return len(self.inversion)

    @property
    def scores(self) -> Float32:
        """The model's objective at the latent that was found, [n]."""
        return self.inversion.objective

    @cached_property
    def heat_maps(self) -> Float32:
        """Where an image differs from its nearest normal one: mean absolute residual over channels, [n, H, W]."""
        return np.asarray(self.inversion.residuals.mean(axis=1), np.float32)

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """bool [n]; :class:`InputError` where there is no threshold."""
        if self.threshold is None:
            raise InputError("there is no threshold to judge by: pass threshold, or normal_threshold() of others")
        return self.scores > self.threshold

    def normal_threshold(self, quantile: float = 0.95) -> float:
        """The score that the share `quantile` of these images, which are normal ones, stays below."""
        if not 0 < quantile < 1:
            raise InputError(f"expected a quantile between 0 and 1, got {quantile}")
        return float(np.quantile(self.scores.astype(np.float64), quantile))


def check_threshold(threshold: object) -> float | None:
    """A finite score, or None. Raises :class:`InputError`: nothing is above NaN."""
    return None if threshold is None else check_number(threshold, "threshold")


def invert_all(
    program: AscentProgram,
    images: Any,
    options: Mapping[str, Any],
    *,
    seed: Any,
    batch_size: int | None,
    progress: bool | None,
    on_step_end: StepCallback | None,
) -> Inversion:
    """See :meth:`gensdk_runtime.generator.Generator.invert`."""
    model = program.model
    targets = check_images(images, model.require_image(), levels=None)
    keys = sample_keys(len(targets), seed)
    settings = program.resolve(options)
    size = batch_limit(model, batch_size)
    firsts = range(0, len(targets), size)
    parts: list[Inversion] = []
    with Progress(len(firsts), f"inverting {model.name}", show=progress) as bar:
        for first in firsts:
            run = _run(keys, targets, first, size)
            run.on_step_end, run.on_progress = on_step_end, bar.part if bar.shown else None
            found = program.ascend(run, settings)
            made = program.image(run, found.variable)
            parts.append(
                Inversion(found.variable, made, targets[first : first + size], found.objective, found.steps, {})
            )
            bar.advance()
            if run.stopped:
                break
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("latents", "images", "targets", "objective", "steps")
    }
    told = {"model": model.name, "seeds": [list(key) for key in keys], **program.describe(settings)}
    return replace(Inversion(**joined, settings=told), stopped=run.stopped)


def _run(keys: tuple[SampleKey, ...], targets: Float32, first: int, size: int) -> Run:
    some = np.ascontiguousarray(targets[first : first + size])
    return Run(keys=keys[first : first + size], images=np.empty_like(some), sources=some, first=first)
