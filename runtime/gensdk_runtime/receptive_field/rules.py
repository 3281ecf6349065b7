"""The rules of operators: by the operator's name, what a node does to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from gensdk_runtime.onnx_files.nodes import OnnxNode, OnnxTensor
from gensdk_runtime.receptive_field.tensors import SIDES, Axis, Factor, Span, Tensor, UnknownError, of_value

MAX_REASON = 200
LARGEST = 2**40
"""Numbers of places and pixels beyond which a graph is no graph of images; hostile ones would grow for ever."""


@dataclass(frozen=True)
class Padding:
    """An axis that was padded by the image's size: by `added` pixels, to `total`, both in pixels of the source."""

    added: Fraction
    total: Fraction


@dataclass
class Scene:
    """One pass over a graph for a source of `size` (height, width).

    `whole`: why each place of the result depends on all of the source, as soon as that is found. `grid`: what
    tiles have to begin at multiples of, so that strides fall on the same pixels. `ratios`: how sizes change at
    each node that changes them by a rule of its own; they must be the same at every size. `paddings`: what each
    node adds that pads by the image's size.
    """

    size: tuple[int, int]
    opset: int
    whole: str = ""
    grid: int = 1
    ratios: list[Fraction] = field(default_factory=list)
    paddings: list[Padding] = field(default_factory=list)
    workspace: int = 0
    """Numbers that the present node keeps beside its inputs and outputs."""
    known: int = 0
    """Numbers that were worked out so far."""

    def sees_all(self, reason: str) -> None:
        """Notes the first reason; a file's own words may be in it, and it reaches terminals."""
        plain = "".join(letter for letter in reason if letter.isascii() and letter.isprintable())
        self.whole = self.whole or plain[:MAX_REASON]

    def sees_all_along(self, what: str, tensor: Tensor, axes: Sequence[int]) -> bool:
        """Notes that `what` mixes all places, if one of `axes` lies along the source of an image; True if so."""
        sides = {tensor.side(axis) for axis in axes} - {None} if tensor.image else set()
        if sides:
            self.sees_all(f"{what} {side_name(sides)}")
        return bool(sides)

    def settled(self, tensor: Tensor) -> Tensor:
        """Takes the strides of `tensor` into account; once all is seen, places mean nothing any more."""
        if self.whole and tensor.image:
            return tensor.without_places()
        for _, span in tensor.spans():
            parts = (Fraction(span.stride.denominator), span.stride, abs(span.low), abs(span.high))
            if max(parts) > LARGEST:
                raise UnknownError("a stride beyond all images")
            self.grid = lcm(self.grid, span.stride.numerator)
        return tensor


def side_name(sides: Collection[int | None]) -> str:
    """``over height``, ``over width``, or ``over height and width``."""
    alone = next(iter(sides)) if len(sides) == 1 else None
    return "over height and width" if alone not in (0, 1) else f"over {SIDES[alone]}"


@dataclass(frozen=True)
class Call:
    """A node with what goes in; None for an input that is left out."""

    scene: Scene
    node: OnnxNode
    inputs: tuple[Tensor | None, ...]

    @property
    def name(self) -> str:
        """The operator."""
        return self.node.operator

    def input(self, place: int) -> Tensor:
        """An input that must be there."""
        found = self.get(place)
        if found is None:
            raise UnknownError(f"{self.name} without input {place}")
        return found

    def get(self, place: int) -> Tensor | None:
        """An input, if there is one."""
        return self.inputs[place] if place < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or `default` where it is left out."""
        found = self.node.attributes.get(name)
        return default if found is None else found

    def integers(self, place: int, attribute: str) -> list[int] | None:
        """Numbers that are an input in newer operators and an attribute in older ones; None where left out."""
        given = self.attribute(attribute)
        if given is not None:
            return [int(value) for value in given]
        found = self.get(place)
        if found is None:
            return None
        if found.value is None:
            raise UnknownError(f"{self.name} with {attribute} that only a run shows")
        return [int(value) for value in np.ravel(found.value)]

    def axis(self, tensor: Tensor, axis: int) -> int:
        """`axis` counted from the front."""
        found = axis + tensor.rank if axis < 0 else axis
        if not 0 <= found < tensor.rank:
            raise UnknownError(f"{self.name} over axis {axis}")
        return found


Rule = Callable[[Call], "Tensor | list[Tensor]"]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers the rule of some operators; a second rule for one of them is an error."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            if operator in RULES:
                raise ValueError(f"two rules for {operator}")
            RULES[operator] = function
        return function

    return register


def joined(call: Call, tensors: Sequence[Tensor]) -> Tensor:
    """What an operator makes that works place by place, with NumPy's way to broadcast."""
    rank = max(tensor.rank for tensor in tensors)
    padded = [((Factor(1),),) * (rank - tensor.rank) + tensor.axes for tensor in tensors]
    image = any(tensor.image for tensor in tensors)
    pairs = [[(t, axes[axis]) for t, axes in zip(tensors, padded, strict=True)] for axis in range(rank)]
    axes = tuple(_joined_axis(call, parts, image=image) for parts in pairs)
    sized = any(tensor.sized and not tensor.image for tensor in tensors)
    if image and sized:
        call.scene.sees_all(f"{call.name} with what depends on the image's size")
    return Tensor(axes, image=image, sized=sized or any(tensor.sized for tensor in tensors))


def _joined_axis(call: Call, parts: Sequence[tuple[Tensor, Axis]], *, image: bool) -> Axis:
    sizes = {_size(axis) for _, axis in parts}
    size = max(sizes) if 0 not in sizes else 0
    if len(sizes - {1}) > 1:
        raise UnknownError(f"{call.name} of sizes that don't fit")
    if not image:
        return (Factor(size, varies=any(f.varies for _, axis in parts for f in axis)),)
    along = [axis for tensor, axis in parts if tensor.image and any(f.side is not None for f in axis)]
    if not along:
        return (Factor(size),)
    first = along[0]
    for tensor, axis in parts:
        if tensor.image and axis not in along and _size(axis) > 1:
            call.scene.sees_all(f"{call.name} across places")
        if not tensor.image and any(factor.varies for factor in axis):
            call.scene.sees_all(f"{call.name} with numbers that depend on the place")
    for other in along[1:]:
        if not _alike(first, other):
            call.scene.sees_all(f"{call.name} of images at different scales")
            return (Factor(size),)
        first = tuple(_both(a, b) for a, b in zip(first, other, strict=True))
    if _size(first) != size:  # one place for all of another image's
        call.scene.sees_all(f"{call.name} of one place with all")
        return (Factor(size),)
    return first


def _size(axis: Axis) -> int:
    size = 1
    for factor in axis:
        size *= factor.size
    return size


def _alike(a: Axis, b: Axis) -> bool:
    return len(a) == len(b) and all(
        x.size == y.size
        and x.side == y.side
        and (x.span.stride if x.span else None) == (y.span.stride if y.span else None)
        for x, y in zip(a, b, strict=True)
    )


def _both(a: Factor, b: Factor) -> Factor:
    return a if a.span is None or b.span is None else replace(a, span=a.span.joined(b.span))


@dataclass(frozen=True)
class Window:
    """Place j reads places ``j * step - before`` to ``j * step + after``."""

    before: Fraction | int
    after: Fraction | int
    step: Fraction | int = 1


def windowed(call: Call, tensor: Tensor, axis: int, size: int, window: Window) -> Tensor:
    """`tensor` with `size` places along `axis`, each of which reads a `window` of it."""
    factor = tensor.axes[axis][0]
    if len(tensor.axes[axis]) > 1:
        call.scene.sees_all(f"{call.name} over height and width")
        return tensor.with_axis(axis, Factor(size))
    if factor.side is None or factor.span is None:
        return tensor.with_axis(axis, Factor(size, varies=factor.varies))
    span = factor.span.reading(
        window.before, window.after, window.step, places=factor.size, size=call.scene.size[factor.side]
    )
    return tensor.with_axis(axis, Factor(size, factor.side, span))


def weight_tensor(weight: OnnxTensor) -> Tensor:
    """A weight of the file."""
    if weight.value is not None:
        return of_value(weight.value)
    return Tensor(tuple((Factor(size, varies=size > 1),) for size in weight.shape))


def source_tensor(shape: Sequence[int], height: int, width: int) -> Tensor:
    """The source itself, whose axes `height` and `width` those are."""
    whole = Span(Fraction(1), Fraction(0), Fraction(0))
    sides = {height: 0, width: 1}
    axes = tuple(
        (Factor(size, sides[axis], whole) if axis in sides else Factor(size),) for axis, size in enumerate(shape)
    )
    return Tensor(axes, image=True)
