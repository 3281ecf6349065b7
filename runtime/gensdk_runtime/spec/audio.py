"""What a manifest says of sounds: those that a model makes, and those that it makes something of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gensdk_runtime.spec.fields import MAX_SAMPLE_ELEMENTS, Range
from gensdk_runtime.spec.kinds import CONDITIONS, OUTPUTS, ConditionSpec, OutputSpec

if TYPE_CHECKING:
    from gensdk_runtime.spec.model import ModelSpec

LEAST_RATE, MOST_RATE = 1000, 768_000
"""Hz, of all sounds that are made, read and written."""
MAX_CHANNELS = 64


@OUTPUTS.register
class AudioSpec(OutputSpec):
    """The sounds a model makes: float32 [n, samples, channels] in [-1, 1], full scale.

    `samples`: in time, of each draw, or the most of one where a draw may end early. `sample_rate`: how many of
    them are a second, in Hz.
    """

    kind: Literal["audio"] = "audio"
    samples: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 1
    sample_rate: Annotated[int, Field(ge=LEAST_RATE, le=MOST_RATE)]
    value_range: Range = (-1.0, 1.0)

    made_by: ClassVar[frozenset[str]] = frozenset(("feedforward", "sequence"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if math.prod(self.shape) > MAX_SAMPLE_ELEMENTS:
            raise ValueError(f"a sound of {list(self.shape)} has over {MAX_SAMPLE_ELEMENTS} elements")
        if self.value_range != (-1.0, 1.0):
            raise ValueError(f"sounds lie in (-1, 1), full scale, got value_range {self.value_range}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """(samples, channels)."""
        return (self.samples, self.channels)

    @property
    def seconds(self) -> float:
        """Of one draw, or of the longest one."""
        return self.samples / self.sample_rate


@CONDITIONS.register
class AudioConditionSpec(ConditionSpec):
    """A sound of at most `samples` in time, of one channel, at `sample_rate` Hz.

    Graphs take it as ``audio`` float32 [B, `samples`] in [-1, 1], full scale: behind a shorter sound lie zeros.
    `window`: it is cut out of a longer sound, around the moment of a sample, and may be silent.
    """

    kind: Literal["audio"] = "audio"
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLE_ELEMENTS)]
    sample_rate: Annotated[int, Field(ge=LEAST_RATE, le=MOST_RATE)]
    window: bool = False

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what older versions don't know, where it is as they have it."""
        return {name: value for name, value in whole(self).items() if name != "window" or value}

    @property
    def seconds(self) -> float:
        """Of the longest sound."""
        return self.samples / self.sample_rate

    @property
    def sample_elements(self) -> int:
        """The samples of one sound."""
        return self.samples

    def check_model(self, model: ModelSpec) -> None:
        """A graph takes it: a model that never listens is not what its manifest says."""
        if not any(graph.input(self.kind) for graph in model.graphs):
            raise ValueError("a model that is made from a sound has a graph with an input 'audio'")
