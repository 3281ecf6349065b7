"""Walks through a latent space: lines and great circles between latents, arithmetic, and single axes.

Points are latents [...] of one sample. What the noise of a sample is besides its latent (a component's uniform, a
solver's later noise) comes from the key of the nearer end, so that the ends of a walk are samples of their seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_count, check_flag, check_number, check_row, check_whole, check_word
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.memory import check_room
from gensdk_runtime.noise import Float32, SampleKey, Seed, sample_keys
from gensdk_runtime.plan.request import check_latents
from gensdk_runtime.programs.base import Program

Method = Literal["slerp", "lerp"]
METHODS: tuple[str, ...] = get_args(Method)
Point = Seed | NDArray[Any]
"""A latent [...] itself, or the seed whose noise it is: an int, or a (seed, position) pair."""

Float64 = NDArray[np.float64]
NO_SEED = SampleKey(0, 0)
"""The key of what a given latent leaves open."""


@dataclass(frozen=True)
class Walk:
    """`latents` float32 [n, ...] and the key of each, for ``sample(n, seed=keys, latents=latents)``."""

    latents: Float32
    keys: tuple[SampleKey, ...]


def lerp(a: NDArray[Any], b: NDArray[Any], t: float) -> Float64:
    """``(1 - t) a + t b``, in float64."""
    return (1.0 - t) * np.asarray(a, np.float64) + t * np.asarray(b, np.float64)


def slerp(a: NDArray[Any], b: NDArray[Any], t: float) -> Float64:
    """From `a` to `b` along a great circle (Shoemake 1985, section 3.3), the norm changing in a line; in float64.

    Normal latents of many dimensions lie near a sphere, whose inside a line crosses and a great circle does not
    (White 2016). Between vectors of one norm r every point has the norm r; parallel ones, and a zero vector with
    any other, give a line. Between opposite ones there is no nearest way: it goes through the axis that is most
    nearly orthogonal to `a`. `t` 0 and 1 give `a` and `b` themselves.
    """
    first, last = (np.asarray(each, np.float64) for each in (a, b))
    if t in (0.0, 1.0):
        return (last if t else first).copy()
    radii = float(np.linalg.norm(first)), float(np.linalg.norm(last))
    if not all(radii):
        return lerp(first, last, t)
    start, end = first.ravel() / radii[0], last.ravel() / radii[1]
    cosine = float(start @ end)
    across = end - cosine * start
    sine = float(np.linalg.norm(across))
    if sine < 1e-9 and cosine < 0:
        across = _orthogonal(start)
    elif sine > 0:
        across /= sine
    # On the circle of two orthogonal directions, so that nothing is divided by the sine of a small angle.
    angle = t * float(np.arctan2(sine, cosine))
    direction = np.cos(angle) * start + np.sin(angle) * across
    found: Float64 = (direction * ((1.0 - t) * radii[0] + t * radii[1])).reshape(first.shape)
    return found


def _orthogonal(direction: Float64) -> Float64:
    """A direction orthogonal to the unit vector `direction`; along the only axis of one dimension, where there is
    none."""
    axis = np.zeros_like(direction)
    axis[int(np.argmin(np.abs(direction)))] = 1.0
    across = axis - (axis @ direction) * direction
    length = float(np.linalg.norm(across))
    return across / length if length > 0 else np.zeros_like(direction)


def _without_latent(program: Program[Any]) -> InputError:
    return InputError(f"model {program.model.name!r} ({program.model.program.kind}) has no latent to walk through")


class Latents:
    """The latent space of one program."""

    def __init__(self, program: Program[Any]) -> None:
        if program.latent_shape is None:
            raise _without_latent(program)
        self.shape = program.latent_shape
        self._program = program

    def of(self, keys: Sequence[SampleKey]) -> Float32:
        """The latents that samples of these keys are made from, [n, ...]."""
        check_room(len(keys), prod(self.shape))
        drawn = self._program.latents(keys)
        if drawn is None:
            raise _without_latent(self._program)
        return drawn

    def walk(self, points: Sequence[Point], n: int, *, method: Method | None, loop: bool) -> Walk:
        """Through all `points`, `n` frames a leg with both of its ends; `loop`: back to before the first.

        A leg's end is the next one's beginning, and counted once.
        """
        steps = check_count(n)
        if steps < 2:
            raise InputError("expected n of at least 2, the two ends; sample() draws one")
        points, loop = check_row(points, "points"), check_flag(loop, "loop")
        if len(points) < 2:
            raise InputError(f"expected at least two points to walk between, got {len(points)}")
        between = slerp if self._method(method) == "slerp" else lerp
        found = [self._point(point) for point in points]
        legs = list(zip(found, [*found[1:], found[0]] if loop else found[1:], strict=False))
        check_room(check_count(len(legs) * (steps - 1) + 1), prod(self.shape))
        latents, keys = [], []
        for (a, start), (b, end) in legs:
            for step in range(steps - 1):
                t = step / (steps - 1)
                latents.append(between(a, b, t) if step and not np.array_equal(a, b) else a)
                keys.append(start if t < 0.5 else end)
        if not loop:
            latents.append(found[-1][0])
            keys.append(found[-1][1])
        return Walk(np.stack(latents).astype(np.float32), tuple(keys))

    def traverse(self, point: Point, axis: int, n: int, *, low: float | None, high: float | None) -> Walk:
        """`n` copies of one latent, whose value number `axis` (as it lies flat) goes from `low` to `high`."""
        count, size = check_count(n), prod(self.shape)
        axis = check_whole(axis, "axis", least=0, most=size - 1)
        first, last = (0.0, 1.0) if self._program.uniform_latent else (-3.0, 3.0)
        first = first if low is None else check_number(low, "low")
        last = last if high is None else check_number(high, "high")
        if not first < last:
            raise InputError(f"expected low below high, got {first} and {last}")
        check_room(count, size)
        latent, key = self._point(point)
        latents = np.repeat(latent[None], count, axis=0)
        latents.reshape(count, -1)[:, axis] = np.linspace(first, last, count)
        return Walk(latents, (key,) * count)

    def arithmetic(self, plus: Sequence[Sequence[Point]], minus: Sequence[Sequence[Point]]) -> Walk:
        """One latent: the means of the groups in `plus`, less those in `minus`.

        After Radford et al. (2015), section 6.3.2. The key is that of the first point.
        """
        plus, minus = (
            [check_row(group, f"each group of {what}") for group in check_row(groups, what)]
            for what, groups in (("plus", plus), ("minus", minus))
        )
        groups = [*plus, *minus]
        if not plus or not all(len(group) for group in groups):
            raise InputError("expected at least one group of latents to add, and no empty group")
        means = [np.mean([self._point(point)[0] for point in group], axis=0, dtype=np.float64) for group in groups]
        total = np.sum(means[: len(plus)], axis=0) - np.sum(means[len(plus) :], axis=0)
        return Walk(np.asarray(total, np.float32).reshape(1, *self.shape), (self._point(plus[0][0])[1],))

    def _method(self, method: str | None) -> str:
        uniform = self._program.uniform_latent
        if method is None:
            return "lerp" if uniform else "slerp"
        check_word(method, "method", METHODS)
        if method == "slerp" and uniform:
            raise InputError("slerp is for normal latents, but this model's are uniform; use method='lerp'")
        return method

    def _point(self, point: Point) -> tuple[Float32, SampleKey]:
        if isinstance(point, np.ndarray) and point.dtype.kind == "f":
            given = point[0] if point.shape == (1, *self.shape) else point
            return check_latents(given[None], 1, self.shape)[0], NO_SEED
        (key,) = sample_keys(1, [point])  # type: ignore[list-item]  # which checks what it is
        return self.of((key,))[0], key
