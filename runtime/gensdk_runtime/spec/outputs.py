"""What gensdk's models make: images, points, and text."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.spec.fields import MAX_SAMPLE_ELEMENTS, BundlePath, Dtype, Range, Role
from gensdk_runtime.spec.kinds import OUTPUTS, OutputSpec
from gensdk_runtime.spec.strict import StrictModel

MAX_TOKENS = 2**20
"""Of a vocabulary."""


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


@OUTPUTS.register
class TextSpec(OutputSpec):
    """The texts a model makes, as tokens: int64 [n, `length`].

    A text ends at the first end token of the vocabulary, where that has one; what stands behind it says nothing.
    `vocabulary`: the file of the bundle that says what each token is. `value_range`: (0, K - 1) for K tokens.
    """

    dtype: ClassVar[Dtype] = "int64"
    made_by: ClassVar[frozenset[str]] = frozenset(("feedforward", "sequence"))

    kind: Literal["text"] = "text"
    value_range: Range = (0.0, 1.0)
    length: Annotated[int, Field(ge=1, le=2**20)]
    vocabulary: BundlePath = "vocabulary.json"

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        low, high = self.value_range
        if low != 0 or high != int(high) or high >= MAX_TOKENS:
            raise ValueError(
                f"a range of tokens is 0 to a whole number below {MAX_TOKENS}, got {low:g} to {high:g}"
            )
        return self

    @classmethod
    def of(cls, length: int, vocabulary_size: int) -> Self:
        """Texts of at most `length` tokens, each one of `vocabulary_size`."""
        return cls(length=length, value_range=(0.0, float(vocabulary_size - 1)))

    @property
    def vocabulary_size(self) -> int:
        """K, how many tokens there are."""
        return int(self.value_range[1]) + 1

    @property
    def shape(self) -> tuple[int]:
        """(length,)."""
        return (self.length,)

    @property
    def files(self) -> tuple[str, ...]:
        """The vocabulary."""
        return (self.vocabulary,)
