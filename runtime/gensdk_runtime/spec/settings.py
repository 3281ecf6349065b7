"""The options of every program: each is declared here, once, and read from here by all that take or show options.

``sample()``, golden trajectories, ``gensdk bench``, the model card, the command line and the page derive theirs
from these, and a bundle's ``defaults`` are of the same class. To add an option is to add a field here, with
its range and a sentence, and a line in :class:`SampleOptions`, which tells type checkers what ``sample()`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from gensdk_runtime.spec.strict import StrictModel

SolverName = Literal["ddpm", "ddim", "dpmsolver++", "euler", "euler_ancestral", "lcm"]
TimestepSpacing = Literal["leading", "linspace", "trailing", "quadratic", "karras", "skipping"]
OptimizerName = Literal["adam", "sgd", "lbfgs"]
LearningRateSchedule = Literal["constant", "linear"]
Start = Literal["encoder", "noise", "zeros"]


class ProgramSettings(StrictModel):
    """Base of the settings of a program: each field is an option of :meth:`Generator.sample`.

    A field has a default, a sentence (``Field(description=...)``), and its range or choices in its type. None
    stands for "left open": the program finds a value by the model. What is None is not written.
    """

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if value is not None}


CALL = ("n", "seed", "latents", "settings", "callback_on_step_end", "progress", "batch_size", "output_type")
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


@register_settings("diffusion")
class DiffusionSettings(ProgramSettings):
    """How a solver leads from noise to images; the names are those of diffusers."""

    solver: SolverName = Field("ddim", description="The sampler that leads from noise to images.")
    num_inference_steps: int = Field(20, ge=1, le=100_000, description="Steps of the solver.")
    eta: float = Field(
        0.0, ge=0, le=1, description="Share of fresh noise in the steps of DDIM: 0 is none, 1 is as much as DDPM."
    )
    guidance_scale: float = Field(
        1.0, ge=0, le=100, description="How strongly a label is followed; 1 is without guidance."
    )
    timestep_spacing: TimestepSpacing = Field(
        "trailing", description="Which time steps of the training are taken."
    )
    clip_sample: bool = Field(True, description="The estimate of x_0 is clipped to the range of the images.")
    use_clipped_model_output: bool = Field(True, description="DDIM goes on from the clipped estimate of x_0.")
    cache_interval: int = Field(
        1,
        ge=1,
        le=1000,
        description="Deep features are computed every so many steps and taken from the last such step between "
        "(DeepCache, Ma et al. 2023), by bundles exported with --share-features; 1 is exact.",
    )


@register_settings("ascent")
class AscentSettings(ProgramSettings):
    """How an input is optimized."""

    optimizer: OptimizerName = Field("adam", description="What makes steps of gradients.")
    learning_rate: float = Field(0.05, gt=0, le=1e6, description="Size of a step of the optimizer.")
    lr_schedule: LearningRateSchedule = Field(
        "constant",
        description="The learning rate stays, or falls in a line to 0 at the last step, which lets a search come "
        "to rest where the objective has kinks.",
    )
    num_inference_steps: int = Field(100, ge=0, le=100_000, description="Steps of the optimizer.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Share of the last step that SGD adds to the next.")
    beta1: float = Field(0.9, ge=0, lt=1, description="How slowly Adam's mean of the gradients changes.")
    beta2: float = Field(0.999, ge=0, lt=1, description="How slowly Adam's mean of the squared gradients changes.")
    patience: int = Field(
        0, ge=0, le=100_000, description="Steps without progress after which a sample stops; 0 is never."
    )
    tolerance: float = Field(
        1e-3, ge=0, lt=1, description="Progress is an objective that is better than the best by this share."
    )
    jitter: int = Field(
        0, ge=0, le=1024, description="Pixels that an image is moved by in each step, and back, at most."
    )
    layer: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What is to be optimized, by its name in the bundle; open: its first.",
    )
    channel: int | None = Field(None, ge=0, description="The one channel of the layer that counts; open: all.")
    start: Start | None = Field(
        None, description="Where the search begins; open: the encoder where there is one, or as the bundle says."
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
