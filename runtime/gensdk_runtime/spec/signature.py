"""The signatures of graphs and images: names, shapes, types and ranges, as a manifest writes them."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.spec.strict import StrictModel

MAX_SAMPLE_ELEMENTS = 2**28
"""What one sample may take of a graph's inputs, of its outputs, and as an image; one GiB in float32 each."""

MAX_MARGIN = 4096
"""Pixels around a place beyond which a model counts as seeing all of an image."""

Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
Precision = Literal["fp32", "fp16"]
Role = Literal["noise", "condition", "image", "points", "state", "timestep", "coefficient"]

HEIGHT, WIDTH = "height", "width"
RESULT_HEIGHT, RESULT_WIDTH = "result_height", "result_width"
"""Named axes of a graph that takes images of any size; the result's where its scale is not 1."""

ROWS, MAX_ROWS = "rows", 1024
"""Named axis of a graph that makes rows for many time steps at once, and how many it is asked for at most."""

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10))}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value[:60]!r} is no name (a letter, then up to 99 letters, digits, '_', '-', '.')")
    return value


def check_path(value: str) -> str:
    """Refuses all but a plain relative path inside the bundle (forward slashes, no ``..``, no drive)."""
    parts = value.split("/")
    if len(value) > 240 or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"path {value[:80]!r} is not a plain relative path inside the bundle")
    if not (value.isascii() and value.isprintable()) or any(character in value for character in '\\:*?"<>|'):
        raise ValueError(f"path {value[:80]!r} has a character that not every file system keeps")
    if any(part[-1] in ". " or part.split(".")[0].upper() in _DEVICES for part in parts):
        raise ValueError(f"path {value[:80]!r} means something else on Windows")
    return value


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as failure:
        raise ValueError(f"not writable as JSON ({failure})") from None
    return value


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError(f"range {value} is empty: (lowest, highest) is needed")
    if not 1e-30 < value[1] - value[0] < 1e30:  # images are scaled by it in float32
        raise ValueError(f"range {value} is wider or narrower than float32 can scale")
    return value


Name = Annotated[str, AfterValidator(_check_name)]
BundlePath = Annotated[str, AfterValidator(check_path)]
Axis = Annotated[int, Field(ge=1, le=2**31 - 1)] | Name
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[tuple[Finite, Finite], AfterValidator(_check_range)]
Json = Annotated[dict[str, Any], AfterValidator(_check_json)]


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


class ImageSpec(StrictModel):
    """The images a model makes: float32 NCHW within `value_range`."""

    channels: Annotated[int, Field(ge=1, le=64)]
    height: Annotated[int, Field(ge=1, le=16384)]
    width: Annotated[int, Field(ge=1, le=16384)]
    value_range: Range = (-1.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if math.prod(self.shape) > MAX_SAMPLE_ELEMENTS:
            raise ValueError(f"an image of {list(self.shape)} has over {MAX_SAMPLE_ELEMENTS} elements")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)


class PointsSpec(StrictModel):
    """The points a model makes: float32 [n, D], D = `dimensions`, in the units of its data.

    `value_range`: (lowest, highest) where they are expected in every dimension: what a plot shows, and the unit of
    drift. A point may lie outside.
    """

    dimensions: Annotated[int, Field(ge=1, le=4096)]
    value_range: Range = (-1.0, 1.0)

    @property
    def shape(self) -> tuple[int]:
        """(dimensions,)."""
        return (self.dimensions,)


class ReceptiveField(StrictModel):
    """What a place of a translation model's result depends on; see :mod:`gensdk_runtime.receptive_field.field`.

    `whole`: on all of the source, for the `reason`; its images are never cut into tiles unless the caller says so.
    Otherwise on `margin` pixels around it, where tiles begin at multiples of `grid`. A run of one image keeps in
    memory ``bytes_per_pixel * p + bytes_per_square * p^2`` for p pixels of the source; both 0: not known.
    """

    whole: bool
    reason: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] = ""
    margin: Annotated[int, Field(ge=0, le=MAX_MARGIN)] = 0
    grid: Annotated[int, Field(ge=1, le=MAX_MARGIN)] = 1
    bytes_per_pixel: Annotated[float, Field(ge=0, le=2.0**40)] = 0.0
    bytes_per_square: Annotated[float, Field(ge=0, le=2.0**40)] = 0.0

    def in_words(self) -> str:
        """Whether tiles give the same, and why not."""
        if self.whole:
            return f"not unless asked for: it looks at all of an image ({self.reason})"
        return f"they give what the whole image gives; a place depends on {self.margin} pixels around it"

    def memory(self, pixels: int) -> int:
        """Bytes that a run of one image of so many pixels keeps at once, about; 0 where it is not known."""
        return int(self.bytes_per_pixel * pixels + self.bytes_per_square * pixels**2)


class SourceSpec(ImageSpec):
    """The images that a translation model takes; `height` and `width` are those that it was trained at.

    Where its graph has named axes, it takes others too: multiples of `multiple` from `smallest` on as they are,
    and the runtime pads the rest and cuts the result. The result is `scale` times as high and wide. `margin`:
    pixels around a place that its result depends on, as far as they matter; tiles of a large image overlap by at
    least twice as much. `receptive_field`: what the graph says of it, which goes before `margin`; None in bundles
    of older versions, whose graph is looked at when they are loaded.
    """

    multiple: Annotated[int, Field(ge=1, le=1024)] = 1
    smallest: Annotated[int, Field(ge=1, le=1024)] = 1
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    margin: Annotated[int, Field(ge=0, le=1024)] = 32
    receptive_field: ReceptiveField | None = None

    @model_validator(mode="after")
    def _check_multiple(self) -> Self:
        if self.height % self.multiple or self.width % self.multiple:
            raise ValueError(f"{self.height} x {self.width} is no multiple of {self.multiple}")
        if min(self.height, self.width) < self.smallest:
            raise ValueError(f"{self.height} x {self.width} is smaller than {self.smallest}")
        return self

    def padded(self, size: int) -> int:
        """The height or width that an image of `size` pixels is padded to, where the axis is named."""
        return -(-max(size, self.smallest) // self.multiple) * self.multiple
