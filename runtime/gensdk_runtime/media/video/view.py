"""What is shown of a frame, and whether two frames look the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_pixels import resize, to_channels
from gensdk_runtime.media.images import Uint8

CELLS = 16
"""Along each side of a frame, when two are compared."""


def as_rgb(image: Uint8) -> Uint8:
    """uint8 [H, W, 1, 3 or 4] as [H, W, 3]; transparency is left out."""
    channels = image.shape[2]
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return image if channels == 3 else np.ascontiguousarray(image[..., :3])


def as_grey(image: Uint8) -> Uint8:
    """uint8 [H, W, 3] in RGB as [H, W, 1]."""
    return to_channels(image, 1)


def resized(image: Uint8, height: int, width: int) -> Uint8:
    """uint8 [H, W, 3] at another size: the mean over areas where it shrinks, else linear in between."""
    return resize(image, height, width, enlarge="bilinear")


def compose(source: Uint8, result: Uint8, *, mix: float, side_by_side: bool) -> Uint8:
    """The view: `result` with a share `mix` of `source` in it, right of the source where `side_by_side`.

    `source` uint8 [h, w, 3], `result` uint8 [H, W, 1, 3 or 4], both in RGB; the source is enlarged to [H, W].
    Gives uint8 [H, W, 3], or [H, 2 W, 3].
    """
    shown = as_rgb(result)
    if not mix and not side_by_side:
        return shown
    height, width = shown.shape[:2]
    source = resized(source, height, width)
    if not side_by_side:
        return blended(source, shown, mix)
    both = np.empty((height, 2 * width, 3), np.uint8)
    both[:, :width] = source
    both[:, width:] = blended(source, shown, mix) if mix else shown
    return both


def blended(one: Uint8, other: Uint8, share: float) -> Uint8:
    """`share` of `one` and the rest of `other`, in steps of 1/256, rounded to the nearest level."""
    part = np.uint16(round(256 * share))
    total = one * part
    total += other * (np.uint16(256) - part)
    total += np.uint16(128)
    total >>= 8
    return total.astype(np.uint8)


def difference(one: Uint8, other: Uint8) -> float:
    """Mean difference in grey levels, 0 to 255, of that cell of a 16 by 16 grid where it is largest.

    A small thing that moves changes its cells much, though the whole frame hardly at all. Infinite for two sizes.
    """
    if one.shape != other.shape:
        return float("inf")
    apart = np.maximum(one, other) - np.minimum(one, other)
    sums: NDArray[Any] = apart
    areas: list[NDArray[np.intp]] = []
    for axis, side in enumerate(one.shape[:2]):
        edges = np.arange(min(CELLS, side)) * side // min(CELLS, side)
        sums = np.add.reduceat(sums, edges, axis=axis, dtype=np.uint32)
        areas.append(np.diff(edges, append=side))
    return float((sums / np.outer(*areas)[..., None]).max())
