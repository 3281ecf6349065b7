"""What engine to build of a graph: the sizes of its named axes, and how they are split into profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isqrt, prod

from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.spec.conditions import ReceptiveField, SourceSpec
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import HEIGHT, MAX_ROWS, ROWS, WIDTH, GraphSpec


@dataclass(frozen=True)
class AxisRange:
    """Sizes of a named axis that an engine accepts, and the one that it is optimized for."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            sizes = f"{self.minimum}, {self.optimum}, {self.maximum}"
            raise InputError(f"engine sizes must be 1 <= min <= opt <= max, got {sizes}; change --batch")


LARGEST_SIDE = 4096
"""Pixels of the largest side of an image that an engine takes: frames of 3840 x 2160 and 2160 x 3840 go through
whole where they have to, and large tiles anyway."""
LARGEST_TENSOR = 2**31
"""Elements: builders refuse a profile at which a tensor has more."""
BATCHED_SIDES = 4
"""Engines take many images at once of at most so many times the sides that the model was trained at, and together
of no more pixels than the largest single one has."""
FRAME_SIDE = 512
"""Pixels that the profile of single images is optimized for (tiles have as many), or those of the training."""


def image_axes(source: SourceSpec | None, *, bounded: bool = False) -> dict[str, AxisRange]:
    """The sizes of the images that a translation model takes, from its smallest, best at its own, up to
    LARGEST_SIDE, or less where attention would make a tensor of over LARGEST_TENSOR elements. `bounded`: or any
    other layer, as far as the memory of its runs tells.
    """
    if source is None:
        return {}
    most = _largest_side(source.receptive_field, bounded=bounded) // source.multiple * source.multiple
    sides = {HEIGHT: source.height, WIDTH: source.width}
    return {axis: AxisRange(source.padded(1), side, max(side, most)) for axis, side in sides.items()}


def _largest_side(field: ReceptiveField | None, *, bounded: bool) -> int:
    side = float(LARGEST_SIDE)
    if field is not None and field.bytes_per_square:
        side = min(side, (4 * LARGEST_TENSOR / field.bytes_per_square) ** 0.25)
    if field is not None and bounded and field.bytes_per_pixel:
        side = min(side, (4 * LARGEST_TENSOR / field.bytes_per_pixel) ** 0.5)
    return int(side)


def element_axes(length: int | None) -> dict[str, AxisRange]:
    """The elements of a sequence that a graph takes at once: up to `length`, which it mostly takes too."""
    return {} if length is None else {ELEMENTS: AxisRange(1, length, length)}


ELEMENTS = "elements"
OPTIMAL_BATCH = 8


def batch_axis(largest: int, *, images: bool, is_rtx: bool) -> AxisRange:
    """Batches of 1 to `largest`. Cameras and tiles send one of `images` at a time, and TensorRT-RTX compiles for
    the sizes that it meets; classic TensorRT's second profile (:meth:`Recipe.profiles`) is for many samples."""
    if not is_rtx:
        return AxisRange(1, largest, largest)
    return AxisRange(1, 1 if images else min(OPTIMAL_BATCH, largest), largest)


GUIDANCE = AxisRange(1, 2, 2)
"""Guidance runs one or both halves of the batch."""


@dataclass(frozen=True)
class Recipe:
    """What engine to build of `graph`.

    `axes` gives the sizes of its named axes. Known are ``guidance`` and what time embeddings are computed for:
    ``rows``, and of older bundles ``labels``, the classes of a batch and "none", padded to a power of two.
    """

    graph: GraphSpec
    precision: Precision
    axes: Mapping[str, AxisRange] = field(default_factory=dict)

    def sizes(self) -> dict[str, AxisRange]:
        """The range of each named axis of the inputs; :class:`BackendError` for an axis that has none."""
        labels = 1 << self.axes["batch"].maximum.bit_length() if "batch" in self.axes else 1
        rows = {ROWS: AxisRange(1, 32, MAX_ROWS), "labels": AxisRange(1, min(16, labels), labels)}
        known = {"guidance": GUIDANCE, **rows, **self.axes}
        named = dict.fromkeys(axis for spec in self.graph.inputs for axis in spec.shape if isinstance(axis, str))
        for axis in named:
            if axis not in known:
                raise BackendError(
                    f"graph {self.graph.name!r}: an engine needs min, opt and max sizes for axis {axis!r}; "
                    "give them in axes"
                )
        return {axis: known[axis] for axis in named}

    def profiles(self, *, is_rtx: bool) -> tuple[dict[str, AxisRange], ...]:
        """The sizes of each optimization profile; none where the graph has no named axes.

        Only single images may be far larger than the model's own: builders plan for the largest sizes of a
        profile, so many images have no more pixels together than the largest single one. Of samples of one size
        TensorRT-RTX compiles what it meets, so one profile will do; classic TensorRT has kernels that were fastest
        at a profile's optimum and fit all of it, so single samples have one of their own.
        """
        sizes = self.sizes()
        if not sizes:
            return ()
        batch, sides = sizes.get("batch"), {axis: sizes[axis] for axis in (HEIGHT, WIDTH) if axis in sizes}
        if batch is None or batch.maximum == 1 or (is_rtx and not sides):
            return (sizes,)
        one = AxisRange(batch.minimum, batch.minimum, batch.minimum)
        side = isqrt(prod(allowed.maximum for allowed in sides.values()) // batch.maximum)
        single = {axis: _optimized(allowed, FRAME_SIDE) for axis, allowed in sides.items()}
        many = {
            axis: _at_most(allowed, min(BATCHED_SIDES * allowed.optimum, side)) for axis, allowed in sides.items()
        }
        return {**sizes, "batch": one, **single}, {**sizes, **many}


def _optimized(allowed: AxisRange, size: int) -> AxisRange:
    """For `size`, or the best size where that is larger."""
    return replace(allowed, optimum=min(max(allowed.optimum, _whole(allowed, size)), allowed.maximum))


def _at_most(allowed: AxisRange, size: int) -> AxisRange:
    """Up to `size`, or the best size where that is larger."""
    return replace(allowed, maximum=min(allowed.maximum, max(allowed.optimum, _whole(allowed, size))))


def _whole(allowed: AxisRange, size: int) -> int:
    """`size` in whole steps of what the model takes, of which the smallest is one or more."""
    return size // allowed.minimum * allowed.minimum


def profile_shapes(graph: GraphSpec, sizes: Mapping[str, AxisRange]) -> dict[str, list[tuple[int, ...]]]:
    """The smallest, best and largest shape of each input that has named axes."""
    return {
        spec.name: [
            tuple(axis if isinstance(axis, int) else getattr(sizes[axis], pick) for axis in spec.shape)
            for pick in ("minimum", "optimum", "maximum")
        ]
        for spec in graph.inputs
        if any(isinstance(axis, str) for axis in spec.shape)
    }
