"""What a model is: its graphs, the program over them, what it makes and what it can be asked for."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.spec.conditions import LabelSpec, SourceSpec
from gensdk_runtime.spec.fields import MAX_SAMPLE_ELEMENTS, Name
from gensdk_runtime.spec.kinds import PROGRAMS, AnyCondition, AnyOutput, AnyProgram, ConditionSpec, ProgramSpec
from gensdk_runtime.spec.latent import LatentSpec
from gensdk_runtime.spec.settings import AscentSettings, DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.spec.strict import StrictModel

NEWER_GRAPHS = ("context_graph", "decoder", "encoder")
"""Graphs of diffusion models that older versions don't know."""
PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]


@PROGRAMS.register
class FeedforwardSpec(ProgramSpec):
    """One run of `graph`: noise, and a label where the model has classes, become images or points.

    The graph's first noise input is the latent; its output ``image``, or ``points``, is the result. A translation
    model (one with a :class:`SourceSpec`) takes ``source`` in place of noise: float32 [B, C, H, W], or uint8 [B,
    H, W, C].

    `encoder`, the way back: ``image`` float32 [B, C, H, W] in the model's value range, and ``label`` int64 [B]
    where it wants one, to ``latent`` [B, ...] of the shape of `graph`'s latent.
    `classifier`: ``image`` to ``logits`` [B, K], one for each class. Bundles of older versions call it ``images``.
    `context_graph`, once for samples that are asked for the same: conditions, at least one, to tensors of role
    "context" [B, ...], each of one size, which `graph` takes under their names, such as what an encoder hears in a
    sound.
    """

    kind: Literal["feedforward"] = "feedforward"
    graph: Name
    encoder: Name | None = None
    classifier: Name | None = None
    context_graph: Name | None = None

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out a field that older versions don't know, where there is no such graph."""
        data: dict[str, Any] = whole(self)
        return {name: value for name, value in data.items() if name != "context_graph" or value is not None}

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs of the program, by name; the one that makes images first."""
        names = (self.graph, self.encoder, self.classifier, self.context_graph)
        return tuple(name for name in names if name is not None)


OF_DIFFUSERS = (
    "original_inference_steps",
    "rescale_betas_zero_snr",
    "steps_offset",
    "set_alpha_to_one",
    "final_sigmas_type",
    "whole_timesteps",
)
"""What of a schedule older versions don't know; all but the first and the last are of noise schedules alone."""


class ScheduleSpec(StrictModel):
    """A noise schedule over `num_train_timesteps`; see :mod:`gensdk_runtime.programs.schedules`.

    `betas`: of the kind "betas", which no formula gives, beta of each time step. `shift`: of the kind "flow", how
    much of its sampling steps lie where there is more noise. `original_inference_steps`: how many time steps a
    latent consistency model learned.

    Of noise schedules, by diffusers' names: `rescale_betas_zero_snr`: the last time step has no signal at all (Lin
    et al. 2023). `steps_offset`: how much later the time steps of the spacing "leading" lie. `set_alpha_to_one`:
    where False, DDIM's last step goes to the noise of the first time step, and with `final_sigmas_type`
    "sigma_min" that of Euler's method and of DPM-Solver++ does. `whole_timesteps`: DPM-Solver++ tells the denoiser
    whole time steps: Karras's rounded, and of a flow the next lower ones.
    """

    kind: Literal["linear", "scaled_linear", "cosine", "betas", "flow"] = "linear"
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    betas: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(max_length=10_000)] | None = None
    shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    original_inference_steps: Annotated[int, Field(ge=1, le=10_000)] = 50
    rescale_betas_zero_snr: bool = False
    steps_offset: Annotated[int, Field(ge=0, le=1)] = 0
    set_alpha_to_one: bool = True
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    whole_timesteps: bool = False

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out fields that older versions don't know, where they have no meaning."""
        data: dict[str, Any] = whole(self)
        newer = {name: type(self).model_fields[name].default for name in ("betas", "shift", *OF_DIFFUSERS)}
        return {name: value for name, value in data.items() if name not in newer or value != newer[name]}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "betas") != (self.betas is not None):
            raise ValueError("a schedule has betas where its kind is 'betas', and only there")
        if self.betas is not None and len(self.betas) != self.num_train_timesteps:
            raise ValueError(f"{len(self.betas)} betas for {self.num_train_timesteps} time steps")
        if self.shift != 1.0 and self.kind != "flow":
            raise ValueError("a schedule has a shift where its kind is 'flow', and only there")
        of_noise = [
            name for name in OF_DIFFUSERS[1:-1] if getattr(self, name) != type(self).model_fields[name].default
        ]
        if of_noise and self.kind == "flow":
            raise ValueError(f"{of_noise[0]} is of noise schedules; a schedule of the kind 'flow' has none")
        if self.rescale_betas_zero_snr and self.num_train_timesteps < 2:
            raise ValueError("rescale_betas_zero_snr needs two time steps or more")
        return self


@PROGRAMS.register
class DiffusionSpec(ProgramSpec):
    """A solver over `graph`, the step graph, which holds the denoiser *and* the solver's update.

    Inputs of the step graph (B samples; G = 2 where guidance runs both halves, otherwise 1): ``sample`` [B, C, H,
    W] and ``previous_x0`` [B, C, H, W] (state), ``timestep`` [B], ``noise`` [B, C, H, W], ``coefficients`` [B, 8]
    (rows of :class:`gensdk_runtime.programs.solvers.SolverTable`); and for a model with classes ``label`` int64
    [G, B], where the class `num_classes` means "none" (of a label with a `null_class`), with ``guidance_weights``
    [G, B]. Outputs: ``next_sample`` and ``next_previous_x0`` [B, C, H, W]. So each sample may be at a step of its
    own.

    `embedding_graph`, run for all time steps at once: ``timestep`` [R], and for a model with classes ``label``
    int64 [R], to ``embedding`` [R, F]. The step graph then takes ``embedding`` [B, F], or with classes [G, B, F],
    in place of ``timestep`` and ``label``. `context_graph`, once for each distinct prompt: ``prompt``, see
    :class:`PromptSpec`, to tensors of role "context" [batch, ...], each of one size, such as a text's
    ``encoder_hidden_states`` [batch, T, D]. The step graph, and the shallow one, take them under their names, [G,
    B, ...], with ``guidance_weights`` as for classes. `shallow_graph`: a cheap step that takes ``deep_features``
    (with classes [G, B, ...], otherwise [B, ...]) from an earlier run of the step graph, which has them as an
    output; in all else it is as the step graph. `guided_inside`, of a model with prompts: the denoiser has learned
    what guidance would make of two passes (Meng et al. 2023, "On Distillation of Guided Diffusion Models"), and
    takes its scale as ``guidance_scale`` [G, B], G being 1. `prediction_type`, as diffusers calls it: what the
    denoiser tells: eps, v, x_0 ("sample") or eps - x_0 ("flow"). The graphs are the same: the coefficients of the
    solver differ.

    `latent`, of a model that samples in a latent space: then [C, H, W] above is its shape, and `decoder` makes
    images of what the steps end with: ``latent`` [B, C, h, w] to ``image`` [B, ...], of the shape and in the value
    range of the output. `encoder`, the way back: ``image`` to ``latent``, its mean or mode.

    The first contract, of older bundles, has one step for all samples: ``timestep`` int64 [1], ``coefficients``
    [8], ``guidance_weights`` [G]; the embedding graph ``timestep`` int64 [1] and ``label`` int64 [L] to [1, F] or
    [L, F], of which the step graph takes [1, F] or [G, B, F].
    """

    kind: Literal["diffusion"] = "diffusion"
    graph: Name
    embedding_graph: Name | None = None
    context_graph: Name | None = None
    shallow_graph: Name | None = None
    decoder: Name | None = None
    encoder: Name | None = None
    latent: LatentSpec | None = None
    guided_inside: bool = False
    schedule: ScheduleSpec
    prediction_type: PredictionType = "epsilon"
    defaults: DiffusionSettings = DiffusionSettings()

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out fields that older versions don't know, where they have no meaning."""
        data: dict[str, Any] = whole(self)
        newer = (*NEWER_GRAPHS, "latent")
        kept = {name: value for name, value in data.items() if value is not None or name not in newer}
        return {name: value for name, value in kept.items() if name != "guided_inside" or value}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.guided_inside and self.context_graph is None:
            raise ValueError("a model that is guided_inside has a context_graph: guidance leads to a text")
        if (self.decoder is None) != (self.latent is None) or (self.encoder and self.latent is None):
            raise ValueError(
                "a model that samples in a latent space has latent and decoder, and may have an encoder"
            )
        if self.latent is not None and self.defaults.clip_sample:
            raise ValueError("a default clip_sample is for images; latents have no range to clip them to")
        if self.defaults.cache_interval > 1 and self.shallow_graph is None:
            raise ValueError("a default cache_interval over 1 needs a shallow_graph")
        if self.defaults.strength is not None:
            raise ValueError("strength belongs to the image that a sample starts from; it has no default")
        if self.prediction_type != "sample" and (self.prediction_type == "flow") != (self.schedule.kind == "flow"):
            raise ValueError(f"no prediction_type {self.prediction_type!r} on a schedule {self.schedule.kind!r}")
        if self.schedule.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError("rescale_betas_zero_snr needs prediction_type v_prediction or sample, not epsilon")
        return self

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs of the program, by name."""
        steps = (self.graph, self.embedding_graph, self.context_graph, self.shallow_graph)
        names = (*steps, self.decoder, self.encoder)
        return tuple(name for name in names if name is not None)


@PROGRAMS.register
class AutoregressiveSpec(ProgramSpec):
    """Pixel after pixel, rows from the top, in `levels` grey levels, with all caches as explicit state.

    `row_graph`, once a row: ``row`` [B, C, W], the finished row above (zeros at the top), states, ``label``
    int64 [B] where the model has classes; gives ``context`` [W, B, F] and the next states.
    `pixel_graph`, once a pixel: ``pixel`` [B, C], the one to the left (zeros at the edge), ``context``
    [B, F], ``uniform`` [B, C], states, ``label``; gives ``next_pixel`` [B, C] and the next states. States
    of the row graph start at zero with the image, those of the pixel graph with the row.
    `likelihood_graph`: ``image`` [B, C, H, W] (``images`` in older bundles), ``label``; gives ``log_likelihood``
    [B] in nats.
    """

    kind: Literal["autoregressive"] = "autoregressive"
    row_graph: Name
    pixel_graph: Name
    likelihood_graph: Name
    levels: Annotated[int, Field(ge=2, le=256)]

    @property
    def graphs(self) -> tuple[str, ...]:
        """The three graphs, by name."""
        return (self.row_graph, self.pixel_graph, self.likelihood_graph)

    @property
    def sampling_graphs(self) -> tuple[str, ...]:
        """The graphs that draw, by name."""
        return (self.row_graph, self.pixel_graph)


@PROGRAMS.register
class AscentSpec(ProgramSpec):
    """Gradient steps on an input, the gradient itself being a graph.

    `objectives`: gradient graphs by what their objective is called; the first is the default. Inputs: ``variable``
    [B, ...], what is optimized; and as the objective needs them ``target`` [B, C, H, W], the image to find again,
    ``target_features`` [B, ...], which `features` (a graph from ``image``) gives of it once, and ``channels`` [K],
    the weight of each channel. Outputs: ``objective`` [B] and ``gradient``, shaped as ``variable``.

    The variable starts as the image that is given, as what `encoder` (a graph from ``image`` to ``latent``) makes
    of it, or else at `start`. `decoder` (a graph whose one input is the variable, to ``image``) makes the image of
    it; None: it is an image. `normalize`: gradients are divided by their mean absolute value (Mordvintsev et al.
    2015). `project`: after each step an image is clipped to its "range".
    `keep`: the "last" variable, or the "best" one, which takes one run of the graph more.
    """

    kind: Literal["ascent"] = "ascent"
    objectives: Annotated[dict[Name, Name], Field(min_length=1, max_length=31)]
    decoder: Name | None = None
    encoder: Name | None = None
    features: Name | None = None
    maximize: bool = False
    start: Literal["noise", "zeros"] = "noise"
    normalize: bool = False
    project: Literal["none", "range"] = "none"
    keep: Literal["last", "best"] = "best"
    defaults: AscentSettings = AscentSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.defaults.layer not in (None, *self.objectives):
            raise ValueError(f"the default layer {self.defaults.layer!r} is none of the objectives")
        if self.defaults.start == "encoder" and self.encoder is None:
            raise ValueError("a default start at the encoder needs an encoder")
        return self

    @property
    def graphs(self) -> tuple[str, ...]:
        """All graphs by name, each once, the default objective's first."""
        names = (*self.objectives.values(), self.decoder, self.encoder, self.features)
        return tuple(dict.fromkeys(name for name in names if name is not None))


SpecT = TypeVar("SpecT", bound=ProgramSpec)


class ModelSpec(StrictModel):
    """What a model is: its graphs, the program that turns them into samples, what those are, and what a sample can
    be asked to be.

    `conditions`: at most one of a kind. `inversion`: how it finds the latent of an image again; see
    :meth:`Generator.invert`.
    """

    name: Name
    family: Name
    program: AnyProgram
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1, max_length=32)]
    output: AnyOutput
    conditions: Annotated[tuple[AnyCondition, ...], Field(max_length=16)] = ()
    inversion: AscentSpec | None = None
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 64

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [graph.name for graph in self.graphs]
        if len(set(names)) != len(names):
            raise ValueError("two graphs have one name")
        inversion = () if self.inversion is None else self.inversion.graphs
        for name in (*self.program.graphs, *inversion):
            if name not in names:
                raise ValueError(f"the program needs a graph {name!r}, which is missing")
        self._check_output()
        kinds = [condition.kind for condition in self.conditions]
        if len(set(kinds)) != len(kinds):
            raise ValueError("two conditions are of one kind")
        for condition in self.conditions:
            condition.check_model(self)
        return self

    def _check_output(self) -> None:
        output = self.output
        if math.prod(output.shape) > MAX_SAMPLE_ELEMENTS:
            raise ValueError(f"a sample of {list(output.shape)} has over {MAX_SAMPLE_ELEMENTS} elements")
        for needed in (self.program, *([] if self.inversion is None else [self.inversion])):
            if needed.kind not in output.made_by and output.kind not in needed.makes:
                known = ", ".join(sorted(output.made_by))
                raise ValueError(f"an output of the kind {output.kind!r} is made by {known}, not {needed.kind}")

    def condition(self, kind: str) -> ConditionSpec | None:
        """The condition of this kind; None where the model has none."""
        return next((condition for condition in self.conditions if condition.kind == kind), None)

    def with_condition(self, spec: ConditionSpec) -> ModelSpec:
        """This model with `spec` in place of its condition of the same kind."""
        others = tuple(spec if each.kind == spec.kind else each for each in self.conditions)
        return self.model_copy(update={"conditions": others})

    @property
    def num_classes(self) -> int | None:
        """How many classes a sample can be of; None for a model without classes."""
        label = self.condition("label")
        return label.num_classes if isinstance(label, LabelSpec) else None

    @property
    def null_class(self) -> int | None:
        """The number that means "no class" to a diffusion model; None where it has none, or no classes."""
        label = self.condition("label")
        return label.num_classes if isinstance(label, LabelSpec) and label.null_class else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What the classes are called, where they have names."""
        label = self.condition("label")
        return label.class_names if isinstance(label, LabelSpec) else None

    @property
    def source(self) -> SourceSpec | None:
        """The images that the model translates; None for a model that takes none."""
        source = self.condition("image")
        return source if isinstance(source, SourceSpec) else None

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the bundle, beside graphs, that its output and its conditions need, each once."""
        found = (*self.output.files, *(file for condition in self.conditions for file in condition.files))
        return tuple(dict.fromkeys(found))

    def program_of(self, kind: type[SpecT]) -> SpecT:
        """The program, which is of this `kind`; :class:`ManifestError` for another."""
        if not isinstance(self.program, kind):
            raise ManifestError(
                f"expected {kind.__name__}, but model {self.name!r} is of kind {self.program.kind}"
            )
        return self.program

    @cached_property
    def largest_tensor(self) -> int:
        """Elements that one sample takes of the largest tensor, the sample itself and what its program works with
        among them."""
        tensors = (tensor for graph in self.graphs for tensor in (*graph.inputs, *graph.outputs))
        given = (condition.sample_elements for condition in self.conditions)
        own = (math.prod(self.output.shape), self.program.working)
        return max(*own, *given, *(tensor.sample_elements for tensor in tensors))

    def graph(self, name: str) -> GraphSpec:
        """The graph called `name`; KeyError where there is none."""
        for graph in self.graphs:
            if graph.name == name:
                return graph
        raise KeyError(name)
