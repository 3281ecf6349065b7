"""Bytes and floats: 0 to 255 are the ends of a value range, and every byte comes back as it was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_pixels import Images


def to_uint8(array: NDArray[np.float32], value_range: tuple[float, float]) -> Images:
    """Float NCHW within `value_range` to uint8 NHWC, rounded to the nearest, values outside clipped."""
    low, high = value_range
    scaled = (np.asarray(array, np.float32) - low) * (255.0 / (high - low))
    return np.ascontiguousarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def to_floats(
    images: Images, value_range: tuple[float, float], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """uint8 NHWC to float32 NCHW on 256 levels of `value_range`; into `out` where that is given."""
    low, high = value_range
    levels = images.transpose(0, 3, 1, 2)
    result = np.empty(levels.shape, np.float32) if out is None else out
    np.multiply(levels, np.float32((high - low) / 255.0), out=result)
    result += np.float32(low)
    return result
