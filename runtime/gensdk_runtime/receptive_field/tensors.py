"""Tensors as the analysis sees them: sizes, and which pixels of the source each place depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDES = ("height", "width")


class UnknownError(Exception):
    """An operator, or a use of one, that the analysis does not know; the message names it."""


@dataclass(frozen=True)
class Span:
    """Place i along an axis depends on pixels ``i * stride + low`` to ``i * stride + high`` of the source."""

    stride: Fraction
    low: Fraction
    high: Fraction

    def reading(
        self, before: Fraction | int, after: Fraction | int, step: Fraction | int, *, places: int, size: int
    ) -> Span:
        """Of a tensor whose place j reads places ``j * step - before`` to ``j * step + after`` of this one.

        This one has `places`, over `size` pixels. What lies beyond its ends counts as beyond the source: there
        the values are padding.
        """
        low, high = self.low, self.high
        if before > 0:
            low = min(low, Fraction(0))
        if after > 0:
            high = max(high, size - places * self.stride)
        return Span(self.stride * step, low - before * self.stride, high + after * self.stride)

    def joined(self, other: Span) -> Span:
        """What depends on both; their strides are the same."""
        return Span(self.stride, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Factor:
    """A part of an axis. `side` 0 or 1: its places lie along the source's height or width, as `span` says.

    `varies`, of what does not depend on pixels: its values may differ from place to place.
    """

    size: int
    side: int | None = None
    span: Span | None = None
    varies: bool = False


Axis = tuple[Factor, ...]
"""One axis of a tensor, rows first: usually one factor; two or more after several were flattened into it."""


@dataclass(frozen=True)
class Tensor:
    """`image`: it depends on pixels of the source. `sized`: it depends on their number. `value`: where it is known
    before any image comes."""

    axes: tuple[Axis, ...]
    image: bool = False
    sized: bool = False
    value: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(prod(factor.size for factor in axis) for axis in self.axes)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    def side(self, axis: int) -> int | None:
        """The side of the source that `axis` lies along; 2 where it is flattened of several; None for neither."""
        sides = {factor.side for factor in self.axes[axis] if factor.side is not None}
        if not sides:
            return None
        return next(iter(sides)) if len(self.axes[axis]) == 1 else 2

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes along which places are places of the source."""
        return tuple(axis for axis in range(self.rank) if self.side(axis) is not None)

    def spans(self) -> Iterable[tuple[int, Span]]:
        """Side and span of each factor that lies along the source."""
        for axis in self.axes:
            for factor in axis:
                if factor.side is not None and factor.span is not None:
                    yield factor.side, factor.span

    def with_axis(self, axis: int, factor: Factor) -> Tensor:
        """The same with another `axis`; its value is not known any more."""
        axes = (*self.axes[:axis], (factor,), *self.axes[axis + 1 :])
        return replace(self, axes=axes, value=None)

    def without_places(self) -> Tensor:
        """The same, with no place along the source: all of it depends on all pixels."""
        axes = tuple((Factor(size, varies=True),) for size in self.shape)
        return replace(self, axes=axes)


def of_value(value: NDArray[Any], *, sized: bool = False) -> Tensor:
    """A tensor whose numbers are known."""
    axes = tuple((Factor(size, varies=_varies(value, axis)),) for axis, size in enumerate(value.shape))
    return Tensor(axes, value=value, sized=sized)


def _varies(value: NDArray[Any], axis: int) -> bool:
    if value.shape[axis] < 2 or not value.size:
        return False
    first = np.take(value, [0], axis=axis)
    return not bool((value == first).all())


def of_shape(shape: Sequence[int], *, image: bool = False, sized: bool = False) -> Tensor:
    """A tensor whose numbers may be anything."""
    return Tensor(tuple((Factor(int(size), varies=size > 1),) for size in shape), image=image, sized=sized)


def regrouped(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """The factors of `axes`, rows first, as axes of `shape`, of which there are as many elements.

    A factor that has to be cut in two keeps its places in the outer part, which is enlarged by the inner one.
    """
    waiting = [factor for axis in axes for factor in axis if factor.size != 1 or factor.side is not None]
    made = list[Axis]()
    for size in shape:
        parts, have = list[Factor](), 1
        while have < size:
            if not waiting:
                raise UnknownError("Reshape")
            factor = waiting.pop(0)
            if size % (have * factor.size) == 0:
                parts.append(factor)
                have *= factor.size
                continue
            if size % have or factor.size % (size // have):
                raise UnknownError("Reshape")
            inner = factor.size // (size // have)
            parts.append(_outer(factor, inner))
            waiting.insert(0, Factor(inner, varies=factor.varies))
            have = size
        # A side of one pixel belongs to the axis that is one, before what follows takes it.
        if size == 1 and waiting and waiting[0].size == 1:
            parts.append(waiting.pop(0))
        made.append(_merged(parts) or (Factor(1),))
    if any(factor.size != 1 for factor in waiting):
        raise UnknownError("Reshape")
    return tuple(made)


def _outer(factor: Factor, inner: int) -> Factor:
    """The outer part of a factor, each place of which stands for `inner` of it."""
    span = factor.span
    if span is not None:
        span = Span(span.stride * inner, span.low, span.high + (inner - 1) * span.stride)
    return replace(factor, size=factor.size // inner, span=span)


def _merged(parts: Sequence[Factor]) -> Axis:
    """Each factor that lies along the source, with those after it that do not: as one, with finer places."""
    merged = list[Factor]()
    for part in parts:
        last = merged[-1] if merged else None
        if last is None or part.side is not None:
            merged.append(part)
        elif last.side is not None and last.span is not None:
            merged[-1] = spread(last, part.size)
        else:
            merged[-1] = Factor(last.size * part.size, varies=last.varies or part.varies)
    return tuple(merged)


def spread(factor: Factor, inner: int) -> Factor:
    """A factor each of whose places becomes `inner` ones in a row."""
    span = factor.span
    if span is None:
        return replace(factor, size=factor.size * inner)
    step = span.stride / inner
    return replace(factor, size=factor.size * inner, span=Span(step, span.low - (inner - 1) * step, span.high))
