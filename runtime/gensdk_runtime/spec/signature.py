"""The signatures of graphs: their inputs and outputs, as a manifest writes them."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.spec.fields import MAX_SAMPLE_ELEMENTS, Axis, Dtype, Name, Range, Role
from gensdk_runtime.spec.strict import StrictModel

HEIGHT, WIDTH = "height", "width"
RESULT_HEIGHT, RESULT_WIDTH = "result_height", "result_width"
"""Named axes of a graph that takes images of any size; the result's where its scale is not 1."""

ROWS, MAX_ROWS = "rows", 1024
"""Named axis of a graph that makes rows for many time steps at once, and how many it is asked for at most."""


class TensorSpec(StrictModel):
    """One input or output of a graph.

    `shape` holds sizes, or names for dynamic axes; two axes of one name have one size. `value_range` is
    (lowest, highest) where it is known. `distribution` says how a `noise` input is drawn: standard normal,
    or uniform on [0, 1).
    """

    name: Name
    dtype: Dtype
    shape: Annotated[tuple[Axis, ...], Field(max_length=8)]
    role: Role
    value_range: Range | None = None
    distribution: Literal["normal", "uniform"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.distribution is not None and self.role != "noise":
            raise ValueError(f"{self.name!r} has a distribution, but its role is {self.role!r}, not 'noise'")
        return self

    @property
    def sample_elements(self) -> int:
        """Elements where every named axis has size 1."""
        return math.prod(axis for axis in self.shape if isinstance(axis, int))


class GraphSpec(StrictModel):
    """The signature of one graph. A state input ``x`` comes back as output ``next_x``."""

    name: Name
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=64)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for tensors in (self.inputs, self.outputs):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) != len(names):
                raise ValueError(f"graph {self.name!r} has two tensors of one name")
            if sum(tensor.sample_elements for tensor in tensors) > MAX_SAMPLE_ELEMENTS:
                raise ValueError(f"graph {self.name!r} needs over {MAX_SAMPLE_ELEMENTS} elements for one sample")
        return self

    def input(self, name: str) -> TensorSpec | None:
        """The input called `name`, if there is one."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """The output called `name`, if there is one."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)

    def require_input(self, name: str) -> TensorSpec:
        """The input called `name`; :class:`ManifestError` where there is none."""
        found = self.input(name)
        if found is None:
            raise ManifestError(f"graph {self.name!r} has no input {name!r}; export the bundle again")
        return found
