"""What gensdk's models make: images, and points."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.spec.fields import MAX_SAMPLE_ELEMENTS, Range, Role
from gensdk_runtime.spec.kinds import OUTPUTS, OutputSpec
from gensdk_runtime.spec.strict import StrictModel


class ImageFormat(StrictModel):
    """Images of one size: float32 NCHW within `value_range`."""

    channels: Annotated[int, Field(ge=1, le=64)]
    height: Annotated[int, Field(ge=1, le=16384)]
    width: Annotated[int, Field(ge=1, le=16384)]
    value_range: Range = (-1.0, 1.0)

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if math.prod(self.shape) > MAX_SAMPLE_ELEMENTS:
            raise ValueError(f"an image of {list(self.shape)} has over {MAX_SAMPLE_ELEMENTS} elements")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)


@OUTPUTS.register
class ImageSpec(ImageFormat, OutputSpec):
    """The images a model makes."""

    role: ClassVar[Role] = "image"
    made_by: ClassVar[frozenset[str]] = frozenset(("feedforward", "diffusion", "autoregressive", "ascent"))

    kind: Literal["image"] = "image"


@OUTPUTS.register
class PointsSpec(OutputSpec):
    """The points a model makes: float32 [n, D], D = `dimensions`, in the units of its data.

    `value_range`: (lowest, highest) where they are expected in every dimension: what a plot shows, and the unit of
    drift. A point may lie outside.
    """

    role: ClassVar[Role] = "points"

    kind: Literal["points"] = "points"
    dimensions: Annotated[int, Field(ge=1, le=4096)]

    @property
    def shape(self) -> tuple[int]:
        """(dimensions,)."""
        return (self.dimensions,)
