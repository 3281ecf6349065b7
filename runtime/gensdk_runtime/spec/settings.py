"""The options of every program: each is declared here, once, and read from here by all that take or show options.

``sample()``, golden trajectories, ``gensdk bench``, the model card, the command line and the page derive theirs
from these, and a bundle's ``defaults`` are of the same class. To add an option is to add a field here, with
its range and a sentence, and a line in :class:`SampleOptions`, which tells type checkers what ``sample()`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.strict import StrictModel

SolverName = Literal["ddpm", "ddim", "dpmsolver++", "euler", "euler_ancestral", "lcm"]
TimestepSpacing = Literal["leading", "linspace", "trailing", "quadratic", "karras", "skipping"]
OptimizerName = Literal["adam", "sgd", "lbfgs"]
LearningRateSchedule = Literal["constant", "linear"]
Start = Literal["encoder", "noise", "zeros"]


class ProgramSettings(StrictModel):
    """Base of the settings of a program: each field is an option of :meth:`Generator.sample`.

    A field has a default, a sentence (``Field(description=...)``), and its range or choices in its type. None
    stands for "left open": the program finds a value by the model. What is None is not written. Made with a wrong
    option it raises :class:`InputError`.
    """

    if not TYPE_CHECKING:  # type checkers know the fields of each class

        def __init__(self, **options: Any) -> None:
            plain = {
                name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()
            }
            try:
                super().__init__(**plain)
            except ValidationError as failure:
                from gensdk_runtime.spec.options import wrong_option  # which is made of this module

                raise InputError(wrong_option(failure, type(self), options)) from None

        __init__.__pydantic_base_init__ = True  # what is read from JSON does not come through here

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if value is not None}


CALL = (
    "n",
    "seed",
    "latents",
    "mask_image",
    "prefix",
    "settings",
    "callback_on_step_end",
    "progress",
    "batch_size",
    "output_type",
)
"""Arguments of :meth:`Generator.sample` beside conditions and options."""
TAKEN = frozenset((*CALL, "size", "warm"))
"""Arguments of it and of :meth:`Generator.prepare`: no names of conditions and options."""

SETTINGS: dict[str, type[ProgramSettings]] = {}
"""The settings of each kind of program."""
AnySettings = TypeVar("AnySettings", bound=type[ProgramSettings])


def register_settings(kind: str) -> Callable[[AnySettings], AnySettings]:
    """Makes a class the settings of the programs of this `kind`. A second one for a kind is an error,
    and so is an option whose name :meth:`Generator.sample` has for something else."""

    def register(settings: AnySettings) -> AnySettings:
        made: type[ProgramSettings] = settings
        for name in TAKEN & set(made.model_fields):
            raise ValueError(f"an option can't be called {name!r}, as an argument of sample() is; rename it")
        if kind in SETTINGS:
            raise ValueError(f"the program {kind!r} has settings already: {SETTINGS[kind].__name__}")
        SETTINGS[kind] = settings
        return settings

    return register


@register_settings("feedforward")
class FeedforwardSettings(ProgramSettings):
    """One run of one graph leaves nothing to choose."""


@register_settings("autoregressive")
class AutoregressiveSettings(ProgramSettings):
    """Pixel after pixel, each drawn from its distribution, leaves nothing to choose."""


@register_settings("sequence")
class SequenceSettings(ProgramSettings):
    """How each element of a sequence is drawn; the names are those of the transformers library."""

    temperature: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="What logits are divided by before an element is drawn: below 1 likely ones become likelier.",
    )
    top_k: int | None = Field(
        default=None, ge=1, description="Draw among so many of the likeliest tokens; by default among all."
    )
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Draw among the likeliest tokens that have this share of the probability (nucleus sampling, "
        "Holtzman et al. 2020).",
    )
    max_length: int | None = Field(
        default=None, ge=1, description="Elements of a sample at most; by default as many as the model makes."
    )


@register_settings("diffusion")
class DiffusionSettings(ProgramSettings):
    """How a solver leads from noise to images; the names are those of diffusers."""

    solver: SolverName = Field(default="ddim", description="The method that leads from noise to images.")
    num_inference_steps: int = Field(default=20, ge=1, le=100_000, description="Steps of the solver.")
    eta: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of fresh noise in the steps of DDIM: 0 is none, 1 is as much as DDPM.",
    )
    guidance_scale: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="How strongly a label or a prompt is followed; 1 is without guidance.",
    )
    timestep_spacing: TimestepSpacing = Field(
        default="trailing", description="How the steps are spread over the time steps of the training."
    )
    clip_sample: bool = Field(default=True, description="Clip the estimate of x_0 to the range of the images.")
    use_clipped_model_output: bool = Field(
        default=True, description="Let DDIM go on from the clipped estimate of x_0."
    )
    cache_interval: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Compute deep features every so many steps, and reuse them in the steps between "
        "(DeepCache, Ma et al. 2023), for bundles exported with --share-features; 1 is exact.",
    )
    strength: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Where samples start from an image, the share of the steps that are made from there: near 0 "
        "little of it is changed, 1 begins at noise alone; by default 0.8.",
    )
    solver_order: int | None = Field(
        default=None, ge=1, le=2, description="Order of DPM-Solver++, 1 or 2; by default 2."
    )


@register_settings("ascent")
class AscentSettings(ProgramSettings):
    """How an input is optimized."""

    optimizer: OptimizerName = Field(default="adam", description="What makes steps of gradients.")
    learning_rate: float = Field(default=0.05, gt=0, le=1e6, description="Size of the optimizer's steps.")
    lr_schedule: LearningRateSchedule = Field(
        default="constant",
        description="The learning rate stays, or falls in a line to 0 at the last step, which lets a search come "
        "to rest where the objective has kinks.",
    )
    num_inference_steps: int = Field(default=100, ge=0, le=100_000, description="Steps of the optimizer.")
    momentum: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the last step that SGD adds to the next."
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="How slowly Adam's mean of the gradients changes.")
    beta2: float = Field(
        default=0.999, ge=0, lt=1, description="How slowly Adam's mean of the squared gradients changes."
    )
    patience: int = Field(
        default=0, ge=0, le=100_000, description="Steps without progress after which a sample stops; 0 is never."
    )
    tolerance: float = Field(
        default=1e-3,
        ge=0,
        lt=1,
        description="By which share an objective must beat the best one to count as progress.",
    )
    jitter: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="By how many pixels an image is moved at most before each step, and back after it.",
    )
    layer: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The layer to optimize, by its name in the bundle; by default the first.",
    )
    channel: int | None = Field(
        default=None, ge=0, description="The one channel of the layer to optimize; by default all of them."
    )
    start: Start | None = Field(
        default=None,
        description="Where the search begins; by default at what the encoder makes of an image, where there is an "
        "encoder, or as the bundle says.",
    )


class AscentOptions(TypedDict, total=False):
    """The fields of :class:`AscentSettings` as arguments; None takes the bundle's default."""

    optimizer: OptimizerName | None
    learning_rate: float | None
    lr_schedule: LearningRateSchedule | None
    num_inference_steps: int | None
    momentum: float | None
    beta1: float | None
    beta2: float | None
    patience: int | None
    tolerance: float | None
    jitter: int | None
    layer: str | None
    channel: int | None
    start: Start | None


class SampleOptions(AscentOptions, total=False):
    """The options of all programs as arguments of :meth:`Generator.sample`; None takes the bundle's default.

    `num_inference_steps`, which two programs have, stands in :class:`AscentOptions`.
    """

    solver: SolverName | None
    eta: float | None
    guidance_scale: float | None
    timestep_spacing: TimestepSpacing | None
    clip_sample: bool | None
    use_clipped_model_output: bool | None
    cache_interval: int | None
    strength: float | None
    solver_order: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    max_length: int | None
