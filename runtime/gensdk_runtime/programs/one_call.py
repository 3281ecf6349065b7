"""The whole sampler as one graph: one run, with all of the noise as an input.

Each program here is the step-by-step one with another loop: same options, same noise, same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.conditions.base import Condition
from gensdk_runtime.errors import ManifestError
from gensdk_runtime.programs.autoregressive import AutoregressiveProgram
from gensdk_runtime.programs.base import Program, Shape, Wanted, require_signature, write_conditions
from gensdk_runtime.programs.diffusion import DiffusionForm
from gensdk_runtime.programs.run import OneRun, Run
from gensdk_runtime.programs.sequence_call import SAMPLER, OneCallSequence, sequence_sampler
from gensdk_runtime.programs.solvers import SolverTable
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.model import AutoregressiveSpec, DiffusionSpec, ModelSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.settings import AutoregressiveSettings, DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec


class OneCallDiffusion(DiffusionForm):
    """All steps of one solver in one run, with the settings that :attr:`OneCallSpec.settings` gives."""

    def __init__(self, model: ModelSpec, one_call: OneCallSpec, session: Session) -> None:
        if one_call.settings is None:
            raise ManifestError("the one-call graph of a diffusion model has no settings; export it again")
        self.baked = one_call.settings
        if model.program_of(DiffusionSpec).latent is not None:
            raise ManifestError("a one-call graph makes images, and this model samples latents; export it again")
        if self.baked.strength is not None:
            raise ManifestError("a one-call graph begins at noise and takes no strength; export it again without")
        super().__init__(model, {SAMPLER: session})

    def check(self) -> None:
        """The tensors of :func:`sampler_graph`."""
        _require(self.sessions[SAMPLER].graph, sampler_graph(self.model, self.table(self.baked), self.baked))

    def covers(self, settings: DiffusionSettings, *, listening: bool) -> bool:
        """True for the settings that are part of the graph, where no callback listens to steps."""
        return settings == self.baked and not listening

    def begin(self, run: Run, settings: DiffusionSettings) -> OneRun:
        """Noise is drawn for the steps that add some; the others multiply what lies there by zero."""
        state = _whole_run(run, self.sessions[SAMPLER], self.conditions)
        run.feed_latent(state.bound, "latents")
        scale = self.table(settings).noise_scale
        if scale.any():
            fresh = state.bound.input("noise")
            for step in np.flatnonzero(scale):
                noise.normal(run.keys, int(step) + 1, self.latent_shape, out=fresh[step])
            fresh[scale == 0] = 0
        return state


class OneCallAutoregressive(AutoregressiveProgram):
    """All rows and pixels in one run, from the first pixel on."""

    continues = False

    def __init__(self, model: ModelSpec, one_call: OneCallSpec, session: Session) -> None:
        super().__init__(model, {SAMPLER: session})

    def check(self) -> None:
        """The tensors of :func:`sampler_graph`."""
        _require(self.sessions[SAMPLER].graph, sampler_graph(self.model))

    def covers(self, settings: AutoregressiveSettings, *, listening: bool) -> bool:
        """True where no callback listens to rows; there are no settings."""
        return not listening

    def begin(self, run: Run, settings: AutoregressiveSettings) -> OneRun:
        """The uniforms go in as they are drawn."""
        state = _whole_run(run, self.sessions[SAMPLER], self.conditions)
        state.bound.draw("uniform", "uniform", state.bound.hold_keys(run.keys), noise.LATENT_STREAM)
        return state


def _whole_run(run: Run, session: Session, conditions: Sequence[Condition[Any]]) -> OneRun:
    """The one step, with its conditions written."""
    state = OneRun(run, session, {"batch": len(run)}, lambda bound, _: bound.output("images"))
    write_conditions(conditions, state.bound, run)
    return state


def run_before(model: ModelSpec) -> tuple[str, ...]:
    """The graphs of `model` that run once before its one-call graph, by name: that of contexts, which the sampler
    takes."""
    name = model.program.context_graph if isinstance(model.program, SequenceSpec) else None
    return () if name is None else (name,)


def make_one_call(
    model: ModelSpec, one_call: OneCallSpec, session: Session, before: Mapping[str, Session] | None = None
) -> Program[Any]:
    """The program over the one-call graph of `model`, and the sessions of :func:`run_before` by name;
    :class:`ManifestError` where the graphs do not fit it."""
    if isinstance(model.program, DiffusionSpec):
        return OneCallDiffusion(model, one_call, session)
    if isinstance(model.program, AutoregressiveSpec):
        return OneCallAutoregressive(model, one_call, session)
    if isinstance(model.program, SequenceSpec):
        return OneCallSequence(model, session, before or {})
    raise ManifestError(f"a {model.program.kind} model takes one call as it is; export the bundle again")


def sampler_graph(
    model: ModelSpec, table: SolverTable | None = None, settings: DiffusionSettings | None = None
) -> GraphSpec:
    """The signature of the one-call graph; of a sequence that of :func:`sequence_sampler`.

    Diffusion, with `settings` and the solver's `table` of them: ``latents`` [B, C, H, W], ``noise`` [S, B, C, H,
    W] where a step adds noise, and of a model with prompts ``prompt`` int64 [B, length], with guidance
    ``negative_prompt`` too. Autoregressive: ``uniform`` [B, H, W, C]. ``label`` int64 [B] where the model has
    classes (for diffusion the class `num_classes` means "none"). Gives ``images`` [B, C, H, W].
    """
    if isinstance(model.program, SequenceSpec):
        return sequence_sampler(model)
    image: Shape = ("batch", *model.output.shape)
    if isinstance(model.program, AutoregressiveSpec):
        channels, height, width = model.output.shape
        inputs = [_noise("uniform", ("batch", height, width, channels), "uniform")]
        labelled = any(model.graph(name).input("label") for name in model.program.sampling_graphs)
    else:
        inputs = [_noise("latents", image, "normal")]
        if table is not None and table.noise_scale.any():
            inputs.append(_noise("noise", (len(table), *image), "normal"))
        prompt = model.condition("prompt")
        if isinstance(prompt, PromptSpec):
            guided = settings is not None and settings.guidance_scale != 1.0
            inputs += [
                TensorSpec(name=name, dtype="int64", shape=("batch", prompt.length), role="condition")
                for name in ("prompt", *(("negative_prompt",) if guided else ()))
            ]
        labelled = model.num_classes is not None
    if labelled:
        inputs.append(TensorSpec(name="label", dtype="int64", shape=("batch",), role="condition"))
    images = TensorSpec(
        name="images", dtype="float32", shape=image, role="image", value_range=model.output.value_range
    )
    return GraphSpec(name=SAMPLER, inputs=tuple(inputs), outputs=(images,))


def _noise(name: str, shape: Sequence[int | str], distribution: str) -> TensorSpec:
    data: Mapping[str, Any] = {"name": name, "dtype": "float32", "shape": shape, "role": "noise"}
    return TensorSpec.from_dict({**data, "distribution": distribution}, what=name)


def _require(graph: GraphSpec, expected: GraphSpec) -> None:
    require_signature(
        graph,
        {spec.name: Wanted(spec.shape, spec.dtype) for spec in expected.inputs},
        {spec.name: Wanted(spec.shape, spec.dtype) for spec in expected.outputs},
    )
