"""What proves a model, program by program: runs to record, the unit of a drift, how far samples may be apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.spacings import most_steps
from gensdk_runtime.spec.model import AscentSpec, AutoregressiveSpec, DiffusionSpec, FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import TensorSpec

Float64 = NDArray[np.float64]
MAX_ELEMENTS = 256
"""Elements of a sequence that are drawn as proof; the likelihood's graph sees all of them."""
MAX_STEPS = 20
"""Steps of the main diffusion run; its own default where that is less."""
SHORT_STEPS = 5
"""Steps of the runs with the other solvers; they use inputs of the step graph that DDIM leaves at zero."""
GUIDANCE = 2.0
"""Guidance of the main run of a model with prompts or a class that means none, so that both passes are proved."""


def proving_options(model: ModelSpec, steps: int | None) -> list[dict[str, Any]]:
    """The options of the runs that prove `model`, main run first, in `steps` steps where that is not None.

    A diffusion model gets a run for each of some solvers that use all that a step can use, and one with shared
    features; an ascent model gets one for each layer.
    """
    program = model.program
    if isinstance(program, SequenceSpec):
        return [{"max_length": min(MAX_ELEMENTS, program.length)}]
    if isinstance(program, AscentSpec):
        return [{"layer": layer} for layer in program.objectives]
    if not isinstance(program, DiffusionSpec):
        return [{}]
    schedule, main = make_schedule(program.schedule), program.defaults.solver
    spacing = program.defaults.timestep_spacing
    most = {solver: most_steps(schedule, solver, spacing) for solver in (main, *schedule.proving)}
    first = min(steps or min(MAX_STEPS, program.defaults.num_inference_steps), most[main])
    guides = model.null_class is not None or program.context_graph is not None
    guided = {"guidance_scale": GUIDANCE} if guides else {}
    short = {solver: {"num_inference_steps": min(SHORT_STEPS, held)} for solver, held in most.items()}
    runs: list[dict[str, Any]] = [{"solver": main, "num_inference_steps": first, **guided}]
    runs += [{"solver": solver, **few} for solver, few in short.items() if solver != main and most[solver]]
    return runs if program.shallow_graph is None else [*runs, {**short[main], "cache_interval": 2}]


def shared_step(model: ModelSpec) -> tuple[str, str] | None:
    """The graphs of a full step and of a shallow one, which equals it where it gets the features of the same step;
    None for a model that shares none."""
    program = model.program
    if not isinstance(program, DiffusionSpec) or program.shallow_graph is None:
        return None
    return program.graph, program.shallow_graph


def samples_bound(model: ModelSpec, atol: float) -> float | None:
    """How far whole float32 samples may be from PyTorch's, where each graph call keeps `atol`.

    One run of one graph: as far. Diffusion: errors add up over the steps. Autoregressive: no bound, since one
    pixel, or element of a sequence, on the edge of its CDF changes all that come after it. Ascent: none either: a
    step along a normalized gradient goes as far where the gradient is mere rounding.
    """
    if isinstance(model.program, FeedforwardSpec):
        return atol
    return 10 * atol if isinstance(model.program, DiffusionSpec) else None


def one_same(model: ModelSpec) -> bool:
    """True if two ways to sample agree where one whole sample is the same; see :func:`samples_bound`."""
    return isinstance(model.program, AutoregressiveSpec | SequenceSpec)


def magnified(model: ModelSpec, output: str, feeds: Mapping[str, NDArray[Any]]) -> Float64:
    """By how much a graph magnifies the rounding of its network in this output, at least 1: [], or [B, 1, 1, 1].

    A diffusion step's estimate of x_0 is ``x * sample + e * eps`` (:mod:`gensdk_runtime.programs.solvers`).
    """
    if not isinstance(model.program, DiffusionSpec) or output != "next_previous_x0" or "coefficients" not in feeds:
        return np.ones(())
    factors: Float64 = np.maximum(1.0, np.abs(feeds["coefficients"][..., 1], dtype=np.float64))
    return factors.reshape(-1, *[1] * len(model.output.shape))


def discrete_step(model: ModelSpec, graph: str, spec: TensorSpec) -> float | None:
    """The distance of two neighbouring values of a discrete output; None for a continuous one."""
    program, step = model.program, model.output.discrete_step
    if isinstance(program, SequenceSpec) and spec.name == "next_token":
        return 1.0
    if step is not None and spec.role == model.output.role and spec.shape[1:] == model.output.shape:
        return step
    if not isinstance(program, AutoregressiveSpec) or graph != program.pixel_graph or spec.name != "next_pixel":
        return None
    low, high = spec.value_range or model.output.value_range
    return (high - low) / (program.levels - 1)


def options_beside(model: ModelSpec, settings: DiffusionSettings | None) -> dict[str, Any]:
    """What of `settings`, those that are part of a one-call graph, differs from the bundle's own."""
    if settings is None or not isinstance(model.program, DiffusionSpec):
        return {}
    defaults = model.program.defaults.model_dump()
    return {name: value for name, value in settings.model_dump().items() if value != defaults[name]}
