"""Records golden trajectories: PyTorch samples through the runtime's own program, every graph call is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.backends.base import Session
from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.errors import BackendError, ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs import program_type
from gensdk_runtime.programs.proving import proving_options, shared_step
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
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.model import ModelSpec

if TYPE_CHECKING:
    from gensdk_training.plan import ExportPlan

INVERSION_STEPS = 8
"""Steps of the search for the latents of the samples, which prove its graphs."""


def record_golden(
    plan: ExportPlan,
    *,
    samples: int,
    steps: int | None,
    conditions: Mapping[str, NDArray[Any]] | None = None,
    originals: Mapping[str, Session] | None = None,
) -> tuple[Trajectory, ...]:
    """Samples from the live modules of `plan`; each trajectory has all of its calls.

    `conditions`: what is asked for, by kind, [`samples`, ...]; of the others, examples. `originals`: what takes
    the modules' place, of a model that was never in PyTorch. Raises :class:`ExportError` where the samples are NaN
    or constant.
    """
    recorder = Recorder()
    sessions: dict[str, Session] = recorder.wrap(originals or _live(plan))
    generator = Generator.from_sessions(plan.model, sessions, plan.files)
    runs = []
    asked = {**examples_of(plan.model, samples), **(conditions or {})}
    for options in proving_options(plan.model, steps):
        wanted = {"seeds": list(range(samples)), **options}
        settings = TrajectorySettings.from_dict(wanted, what="golden settings")
        begun = Trajectory(settings, np.empty(0, np.float32), (), asked)
        try:
            drawn = generator.sample(**begun.sample_arguments(), progress=False)
            _run_back(generator, drawn, asked)
            if plan.model.inversion is not None:
                few = min(INVERSION_STEPS, plan.model.inversion.defaults.num_inference_steps)
                generator.invert(drawn.images, num_inference_steps=few, seed=list(settings.seeds))
        except BackendError as failure:
            reason = str(failure).partition("; ")[0]  # its remedy is for bundles
            raise ExportError(
                f"the original model can't sample: {reason}; mend its network, or train it again"
            ) from failure
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


def _run_back(generator: Generator, drawn: Samples, asked: Mapping[str, NDArray[Any]]) -> None:
    """Runs what the model has beside its sampler: its encoder, its classifier, its likelihood; `asked`: what the
    samples were asked to be, by kind."""
    images, label, prompt = drawn.array, asked.get("label"), asked.get("prompt")
    own = program_type(generator.model).abilities(generator.model)
    if "log_likelihood" in own:
        generator.log_likelihood(images, label, prompt=prompt, lengths=drawn.lengths)
    if "encode" in own:
        generator.encode(images, label)
    if "classify" in own:
        generator.classify(images)


def record_examples(plan: ExportPlan, *, samples: int) -> tuple[Trajectory, ...]:
    """As :func:`record_golden`, from the real images, or sounds, of the data; empty where there are none."""
    real = {kind: values for kind, values in plan.examples.items() if plan.model.condition(kind) is not None}
    if not real:
        return ()
    count = min(map(len, real.values()))
    chosen = np.linspace(0, count - 1, min(samples, count)).astype(int)
    asked = {kind: values[chosen] for kind, values in real.items()}
    return record_golden(plan, samples=len(chosen), steps=None, conditions=asked)


def _shallow_proof(model: ModelSpec, settings: TrajectorySettings, calls: tuple[Call, ...]) -> Iterator[Call]:
    """Each full step of a run with a cache interval proves the shallow one, as a call of the shallow graph with
    the full graph's results; see :func:`gensdk_runtime.programs.proving.shared_step`."""
    shared = shared_step(model)
    if shared is None or "cache_interval" not in settings.options:
        return
    full, shallow = shared
    names = {spec.name for spec in model.graph(shallow).outputs}
    for call in calls:
        if call.graph == full:
            feeds = {**call.feeds, "deep_features": call.outputs["deep_features"]}
            outputs = {name: call.outputs[name] for name in names}
            yield Call(shallow, call.step, feeds, outputs)


def keep_within(runs: Iterable[Trajectory], budget: int, bounds: dict[Precision, GoldenBounds]) -> Golden:
    """The trajectories with as many calls, evenly spread, as `budget` bytes allow."""
    runs = list(runs)
    share = budget // len(runs)
    thinned = (replace(run, calls=thin_out(run.calls, share)) for run in runs)
    return Golden(tuple(thinned), bounds)
