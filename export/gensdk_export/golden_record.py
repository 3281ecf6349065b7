"""Records golden trajectories: PyTorch samples through the runtime's own program, every graph call is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.backends.base import Session
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.proof.drift import degenerate
from gensdk_runtime.proof.golden import (
    Call,
    Golden,
    GoldenBounds,
    Recorder,
    Trajectory,
    TrajectorySettings,
    thin_out,
)
from gensdk_runtime.spec.manifest import AscentSpec, AutoregressiveSpec, DiffusionSpec, FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import Precision

if TYPE_CHECKING:
    from gensdk_training.plan import ExportPlan

MAX_STEPS = 20
"""Steps of the main diffusion run; its own default where that is less."""
SHORT_STEPS = 5
"""Steps of the runs with the other solvers; they use inputs of the step graph that DDIM leaves at zero."""
INVERSION_STEPS = 8
"""Steps of the search for the latents of the samples, which prove its graphs."""
GUIDANCE = 2.0
"""Guidance of the main run of a model with classes, so that both halves of the batch are proved."""


def record_golden(
    plan: ExportPlan,
    *,
    samples: int,
    steps: int | None,
    sources: NDArray[np.uint8] | None = None,
    originals: Mapping[str, Session] | None = None,
) -> tuple[Trajectory, ...]:
    """Samples from the live modules of `plan`; each trajectory has all of its calls.

    `sources`: for a translation model, uint8 [`samples`, H, W, C]; None: made-up pictures. `originals`: what
    takes the modules' place, of a model that was never in PyTorch. Raises :class:`ExportError` where the samples
    are NaN or constant.
    """
    recorder = Recorder()
    sessions: dict[str, Session] = recorder.wrap(originals or _live(plan))
    generator = Generator.from_sessions(plan.model, sessions)
    runs = []
    if sources is None:
        sources = required_examples(plan.model, samples).get("image")
    for settings in golden_settings(plan.model, samples=samples, steps=steps):
        begun = Trajectory(settings, np.empty(0, np.float32), (), sources)
        try:
            drawn = generator.sample(**begun.sample_arguments(), progress=False)
            if isinstance(plan.model.program, AutoregressiveSpec):
                generator.log_likelihood(drawn.array, settings.labels)
            _run_back(generator, drawn.array, settings.labels)
            if plan.model.inversion is not None:
                few = min(INVERSION_STEPS, plan.model.inversion.defaults.num_inference_steps)
                generator.invert(drawn.images, num_inference_steps=few, seed=list(settings.seeds))
        except BackendError as failure:
            raise ExportError(f"the original model can't sample: {failure}; train it again") from failure
        problem = degenerate(drawn.array)
        if problem:
            raise ExportError(f"{problem} (in the original already); train the model again")
        calls = recorder.take()
        proved = (*calls, *_shallow_proof(plan.model, settings, calls))
        runs.append(replace(begun, samples=drawn.array, calls=proved))
    return tuple(runs)


def _live(plan: ExportPlan) -> dict[str, Session]:
    from gensdk_training.torch_backend import torch_sessions

    return dict(torch_sessions(plan))


def _run_back(generator: Generator, images: NDArray[np.float32], labels: tuple[int, ...] | None) -> None:
    """Runs what a feedforward model has beside its generator: its encoder, and its classifier."""
    program = generator.model.program
    if not isinstance(program, FeedforwardSpec):
        return
    if program.encoder is not None:
        generator.encode(images, labels)
    if program.classifier is not None:
        generator.classify(images)


def record_examples(plan: ExportPlan, *, samples: int) -> tuple[Trajectory, ...]:
    """As :func:`record_golden`, from the real images of a translation's data; empty where there are none."""
    if plan.examples is None or plan.model.source is None:
        return ()
    chosen = np.linspace(0, len(plan.examples) - 1, min(samples, len(plan.examples))).astype(int)
    return record_golden(plan, samples=len(chosen), steps=None, sources=plan.examples[chosen])


def _shallow_proof(model: ModelSpec, settings: TrajectorySettings, calls: tuple[Call, ...]) -> Iterator[Call]:
    """A shallow step equals the full one where it gets the features of the same step: so each full step of a run
    with a cache interval proves it, as a call of the shallow graph with the full graph's results."""
    program = model.program
    if not isinstance(program, DiffusionSpec) or program.shallow_graph is None:
        return
    if "cache_interval" not in settings.options:
        return
    names = {spec.name for spec in model.graph(program.shallow_graph).outputs}
    for call in calls:
        if call.graph == program.graph:
            feeds = {**call.feeds, "deep_features": call.outputs["deep_features"]}
            outputs = {name: call.outputs[name] for name in names}
            yield Call(program.shallow_graph, call.step, feeds, outputs)


def golden_settings(model: ModelSpec, *, samples: int, steps: int | None) -> Iterator[TrajectorySettings]:
    """The runs that prove `model`; a diffusion model gets one for each of some solvers that use
    all that a step can use, and one with shared features."""
    seeds = tuple(range(samples))
    labels = None if model.num_classes is None else tuple(seed % model.num_classes for seed in seeds)
    program = model.program
    if isinstance(program, AscentSpec):
        for layer in program.objectives:
            yield TrajectorySettings(seeds=seeds, labels=labels, layer=layer)
        return
    if not isinstance(program, DiffusionSpec):
        yield TrajectorySettings(seeds=seeds, labels=labels)
        return
    longest = program.schedule.num_train_timesteps
    main = program.defaults.solver
    for solver in dict.fromkeys((main, *make_schedule(program.schedule).proving)):
        wanted = (steps or min(MAX_STEPS, program.defaults.num_inference_steps)) if solver == main else SHORT_STEPS
        yield TrajectorySettings.from_dict(
            {
                "seeds": seeds,
                "labels": labels,
                "solver": solver,
                "num_inference_steps": min(wanted, longest),
                "guidance_scale": GUIDANCE if labels and solver == main else None,
            },
            what="golden settings",
        )
    if program.shallow_graph is not None:
        yield TrajectorySettings(
            seeds=seeds, labels=labels, num_inference_steps=min(SHORT_STEPS, longest), cache_interval=2
        )


def keep_within(runs: Iterable[Trajectory], budget: int, bounds: dict[Precision, GoldenBounds]) -> Golden:
    """The trajectories with as many calls, evenly spread, as `budget` bytes allow."""
    runs = list(runs)
    share = budget // len(runs)
    thinned = (replace(run, calls=thin_out(run.calls, share)) for run in runs)
    return Golden(tuple(thinned), bounds)


def samples_bound(model: ModelSpec, atol: float) -> float | None:
    """How far whole float32 samples may be from PyTorch's, where each graph call keeps `atol`.

    One run of one graph: as far. Diffusion: errors add up over the steps. Autoregressive: no bound, since one
    pixel on the edge of its CDF changes all that come after it. Ascent: none either: a step along a normalized
    gradient goes as far where the gradient is mere rounding.
    """
    if isinstance(model.program, FeedforwardSpec):
        return atol
    return 10 * atol if isinstance(model.program, DiffusionSpec) else None
