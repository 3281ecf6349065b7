"""Finds the latents of images by gradient steps, and what that says of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_callback, check_flag, check_number, shown
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.noise import Float32, Seeds, sample_keys
from gensdk_runtime.plan.batches import Batches
from gensdk_runtime.plan.executor import Work
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.plan.sampling import Sampling
from gensdk_runtime.programs.ascent import AscentProgram
from gensdk_runtime.programs.ascent_path import Ascended
from gensdk_runtime.programs.base import Int64
from gensdk_runtime.programs.run import Run, StepCallback
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import check_options
from gensdk_runtime.spec.settings import AscentOptions


class InvertArguments(AscentOptions, total=False):
    """The keyword arguments of :meth:`Generator.invert`."""

    seed: Seeds | None
    batch_size: int | None
    callback_on_step_end: StepCallback | None
    progress: bool | None


_ARGUMENTS = tuple(InvertArguments.__annotations__.keys() - AscentOptions.__annotations__.keys())


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"<Inversion: {len(self)} latents {list(self.latents.shape[1:])}, of {self.settings['model']}>"

    @cached_property
    def residuals(self) -> Float32:
        """``|target - image|``, float32 [n, C, H, W]."""
        return np.asarray(np.abs(self.targets - self.images), np.float32)


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        judged = "no threshold" if self.threshold is None else f"{self.anomalous.sum()} above {self.threshold:g}"
        return f"<Detection: {len(self)} scores, {judged}>"

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
        if not 0 < check_number(quantile, "a quantile") < 1:
            raise InputError(f"expected a quantile between 0 and 1, got {quantile}")
        return float(np.quantile(self.scores.astype(np.float64), quantile))


def check_threshold(threshold: object) -> float | None:
    """A finite score, or None. Raises :class:`InputError`: nothing is above NaN."""
    return None if threshold is None else check_number(threshold, "threshold")


def detect_options(model: ModelSpec, options: InvertArguments, fast: object) -> InvertArguments:
    """The arguments of :meth:`Generator.invert` that :meth:`Generator.detect` passes on."""
    ascent = {name: value for name, value in options.items() if name not in _ARGUMENTS}
    check_options("ascent", ascent, others=(*_ARGUMENTS, "threshold", "fast"))
    if not check_flag(fast, "fast"):
        return options
    if model.inversion is not None and model.inversion.encoder is None:
        raise InputError(f"fast takes what an encoder gives, and model {model.name!r} has none; leave fast out")
    wanted: Mapping[str, Any] = {"start": "encoder", "num_inference_steps": 0}
    for name, value in wanted.items():
        given = dict(options).get(name)
        if given not in (None, value):
            raise InputError(f"fast means {name}={value!r}, got {shown(given)}; leave one of them out")
    return {**options, "start": "encoder", "num_inference_steps": 0}


def invert(
    sampling: Sampling,
    images: Any,
    options: Mapping[str, Any],
    *,
    seed: Any = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
    on_step_end: StepCallback | None = None,
) -> Inversion:
    """See :meth:`gensdk_runtime.generator.Generator.invert`."""
    model, executor = sampling.model, sampling.executor
    if model.inversion is None:
        raise InputError(f"model {model.name!r} has no inversion; train anogan, glo or gon for one")
    check_callback(on_step_end, "callback_on_step_end")
    check_options("ascent", options, others=_ARGUMENTS)
    if progress is not None:
        check_flag(progress, "progress")
    targets = sampling.output.given(images)
    keys = sample_keys(len(targets), seed)
    rounds = executor.plan(len(targets), batch_size, fixed=True, accept=lambda program: False)
    programs = {id(runner): AscentProgram(model, runner.sessions) for _, runner in rounds}
    first = next(iter(programs.values()))
    settings = first.resolve(options)

    def task(runner: Runner, run: Run) -> Ascended:
        program = programs[id(runner)]
        found = program.ascend(run, settings)
        run.finish(program.image(run, found.variable))
        return found.first(len(run.data))

    batches = Batches(keys, {"image": targets}, None, np.empty_like(targets), on_step_end)
    halves = batch_size is None
    work = Work(task, rounds, batches, "inverting", "images", halves=halves, progress=progress)
    done = executor.run(work)
    count = sum(len(each.run.data) for each in done)
    return Inversion(
        latents=np.concatenate([each.found.variable for each in done]),
        images=batches.data[:count],
        targets=targets[:count],
        objective=np.concatenate([each.found.objective for each in done]),
        steps=np.concatenate([each.found.steps for each in done]),
        settings={"model": model.name, "seeds": [list(key) for key in keys], **first.describe(settings)},
        stopped=any(each.run.stopped for each in done),
    )
