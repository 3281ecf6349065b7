"""What is shown of a frame, and whether two frames look the same."""

from __future__ import annotations

import numpy as np

from gensdk_runtime.stream.frame import Uint8

CELLS = 16
"""Along each side of a frame, when two are compared."""


def as_rgb(image: Uint8) -> Uint8:
    """uint8 [H, W, 1, 3 or 4] as [H, W, 3]; transparency is left out."""
    channels = image.shape[2]
    if channels == 1:
        import cv2

        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return image if channels == 3 else np.ascontiguousarray(image[..., :3])


def compose(source: Uint8, result: Uint8, *, mix: float, side_by_side: bool) -> Uint8:
    """The view: `result` with a share `mix` of `source` in it, right of the source where `side_by_side`.

    `source` uint8 [h, w, 3], `result` uint8 [H, W, 1, 3 or 4], both in RGB; the source is enlarged to [H, W].
    Gives uint8 [H, W, 3], or [H, 2 W, 3].
    """
    shown = as_rgb(result)
    if not mix and not side_by_side:
        return shown
    import cv2

    height, width = shown.shape[:2]
    if source.shape[:2] != (height, width):
        source = np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if not side_by_side:
        return np.asarray(cv2.addWeighted(source, mix, shown, 1.0 - mix, 0.0), np.uint8)
    both = np.empty((height, 2 * width, 3), np.uint8)
    both[:, :width] = source
    if mix:
        shown = np.asarray(cv2.addWeighted(source, mix, shown, 1.0 - mix, 0.0), np.uint8)
    both[:, width:] = shown
    return both


def difference(one: Uint8, other: Uint8) -> float:
    """Mean difference in grey levels, 0 to 255, of that cell of a 16 by 16 grid where it is largest.

    A small thing that moves changes its cells much, though the whole frame hardly at all. Infinite for two sizes.
    """
    if one.shape != other.shape:
        return float("inf")
    import cv2

    cells = (min(CELLS, one.shape[1]), min(CELLS, one.shape[0]))
    apart = cv2.absdiff(one, other).astype(np.float32)
    return float(cv2.resize(apart, cells, interpolation=cv2.INTER_AREA).max())
