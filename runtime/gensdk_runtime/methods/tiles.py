"""Large images in tiles that overlap, put together without seams, a row of tiles at a time.

Two neighbours share at least twice the model's margin: what lies nearer to a tile's edge than that depends on what
the tile can't see, and is not used. In the middle of what they share one fades into the other, linearly, so that
their weights add up to one everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import lcm

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.conditions.image import mirrored
from gensdk_runtime.noise import Float32
from gensdk_runtime.spec.conditions import SourceSpec

FADE = 16
"""Pixels of the source over which one tile fades into the next."""
DEFAULT_TILE = 512

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis: each starts at one of `starts` and is `length` long, in pixels of the source."""

    starts: tuple[int, ...]
    length: int

    @classmethod
    def of(cls, size: int, tile: int, margin: int, multiple: int = 1, *, most: int | None = None) -> Axis:
        """As few tiles of `tile` pixels as cover `size`, spread evenly.

        Each start is a multiple of `multiple`: what a network does to a pixel may depend on where it lies within
        its strides. For the last one to end where the image does, tiles may be less than that larger than `tile`,
        but never larger than `most`: then they are smaller. Tiles under :func:`smallest_tile` see less than their
        margin.
        """
        tile += (size - tile) % multiple
        if most is not None and tile > most:
            tile -= multiple
        if size <= tile:
            return cls((0,), size)
        overlap = min(smallest_tile(margin, multiple), tile) // 2 // multiple * multiple
        count = -(-(size - overlap) // (tile - overlap))
        units = (size - tile) // multiple
        return cls(tuple(multiple * round(i * units / (count - 1)) for i in range(count)), tile)

    @property
    def size(self) -> int:
        """What the tiles cover."""
        return self.starts[-1] + self.length

    def weights(self, index: int, scale: int) -> Float32:
        """The weight of each place of tile `index` in the result, float32 [length * scale]; they add up to 1."""
        weights = self._rise(index, scale, self.starts[index])
        if index + 1 < len(self.starts):
            weights -= self._rise(index + 1, scale, self.starts[index])
        return weights

    def _rise(self, index: int, scale: int, start: int) -> Float32:
        """How tile `index` fades in over the one before it, at the places of a tile that begins at `start`."""
        if index == 0:
            return np.ones(self.length * scale, np.float32)
        shared = self.starts[index - 1] + self.length - self.starts[index]
        fade = min(FADE, shared)
        first = (self.starts[index] + (shared - fade) / 2 - start) * scale
        places = np.arange(self.length * scale, dtype=np.float32) + np.float32(0.5)
        rise: Float32 = np.clip((places - np.float32(first)) / np.float32(fade * scale), 0, 1)
        return rise


@dataclass(frozen=True)
class Cut:
    """How images may be cut: so many pixels of `margin` around a place count, and tiles begin at multiples of
    `step`."""

    margin: int
    step: int

    @classmethod
    def of(cls, spec: SourceSpec) -> Cut:
        """What the graph says of it; where a place depends on all of the image, what the bundle's maker said."""
        field = spec.receptive_field
        if field is None or field.whole:
            return cls(spec.margin, spec.multiple)
        return cls(field.margin, lcm(spec.multiple, field.grid))

    @property
    def smallest(self) -> int:
        """The smallest tile."""
        return smallest_tile(self.margin, self.step)


def smallest_tile(margin: int, multiple: int) -> int:
    """The smallest tile that sees all that matters, two of which share half at most."""
    return -(-2 * (2 * margin + FADE + multiple) // (2 * multiple)) * 2 * multiple


def translate_tiles(
    image: Images,
    translate: Callable[[Images], Float32],
    *,
    tile: int,
    spec: SourceSpec,
    fixed: tuple[int | None, int | None] = (None, None),
    most: tuple[int | None, int | None] = (None, None),
    to_bytes: Callable[[Float32], Images],
) -> Images:
    """`image` uint8 [H, W, C] through `translate`, in tiles of about `tile` pixels; uint8 [H s, W s, C'].

    The image is first padded with its mirror image to a multiple of what the model takes, as without tiles.
    `fixed`: the (height, width) of tiles where the graph takes no other; then it is padded until they fit. `most`:
    those of the largest tile that it takes.
    `translate`: uint8 [n, h, w, C], the tiles of one row, to float32 [n, C', h s, w s]; `to_bytes`: float32
    [n, C', h, w] to uint8 [n, h, w, C'].
    """
    scale, cut = spec.scale, Cut.of(spec)
    height, width = image.shape[:2]
    rows, columns = (
        _axis(side, only or tile, spec, cut, fixed=only is not None, most=largest)
        for side, only, largest in zip((height, width), fixed, most, strict=True)
    )
    image = _padded(image, rows.size, columns.size)
    strips = _strips(image, translate, rows, columns, scale)
    first = next(strips)
    result = np.empty((image.shape[0] * scale, first.shape[2], first.shape[0]), np.uint8)
    carry: Float32 | None = None  # the lower part of the last row of tiles, which the next one fades into
    for index, joined in enumerate(chain((first,), strips)):
        strip = joined * rows.weights(index, scale)[:, None]
        top = rows.starts[index] * scale
        if carry is not None:
            strip[:, : carry.shape[1]] += carry
        following = rows.starts[index + 1] * scale if index + 1 < len(rows.starts) else top + strip.shape[1]
        done = following - top
        result[top:following] = to_bytes(strip[None, :, :done])[0]
        carry = strip[:, done:]
    return result[: height * scale, : width * scale]


def _axis(side: int, tile: int, spec: SourceSpec, cut: Cut, *, fixed: bool, most: int | None) -> Axis:
    """The tiles along a side of the image; `fixed`: of `tile` pixels, and no others."""
    padded = tile + -(-max(0, side - tile) // cut.step) * cut.step if fixed else spec.padded(side)
    return Axis.of(padded, tile, cut.margin, cut.step, most=None if fixed else most)


def _padded(image: Images, height: int, width: int) -> Images:
    rows, columns = (mirrored(*sides) for sides in zip(image.shape[:2], (height, width), strict=True))
    if not len(rows) and not len(columns):
        return image
    taller = np.concatenate((image, image[rows]))
    return np.concatenate((taller, taller[:, columns]), axis=1)


def _strips(
    image: Images, translate: Callable[[Images], Float32], rows: Axis, columns: Axis, scale: int
) -> Iterator[Float32]:
    """Each row of tiles, put together from left to right: float32 [C', rows.length * scale, W * scale]."""
    for top in rows.starts:
        tiles = [image[top : top + rows.length, left : left + columns.length] for left in columns.starts]
        yield _join(translate(np.stack(tiles)), columns, image.shape[1], scale)


def _join(tiles: Sequence[Float32] | Float32, columns: Axis, width: int, scale: int) -> Float32:
    strip = np.zeros((*tiles[0].shape[:2], width * scale), np.float32)
    for index, tile in enumerate(tiles):
        left = columns.starts[index] * scale
        strip[:, :, left : left + columns.length * scale] += tile * columns.weights(index, scale)
    return strip
