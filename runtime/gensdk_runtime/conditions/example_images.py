"""Pictures to measure a translation model with: smooth colours, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.spec.manifest import ModelSpec

_CELLS = 6
_STREAM = 1


def example_images(model: ModelSpec, n: int, *, seed: int = 0) -> NDArray[np.uint8] | None:
    """uint8 [n, H, W, C] at the size that `model` was trained at; None for a model that takes no images."""
    spec = model.source
    if spec is None:
        return None
    coarse = noise.uniform(noise.sample_keys(n, seed), _STREAM, (_CELLS, _CELLS, spec.channels))
    smooth = _stretch(_stretch(coarse, spec.height, axis=1), spec.width, axis=2)
    images: NDArray[np.uint8] = np.rint(255.0 * smooth).astype(np.uint8)
    return images


def _stretch(array: NDArray[np.float32], size: int, *, axis: int) -> NDArray[np.float32]:
    """Linear interpolation of one axis to `size` places."""
    places = np.linspace(0, array.shape[axis] - 1, size)
    below = np.minimum(places.astype(int), array.shape[axis] - 2)
    shape = [1] * array.ndim
    shape[axis] = size
    part = (places - below).astype(np.float32).reshape(shape)
    first, second = np.take(array, below, axis), np.take(array, below + 1, axis)
    stretched: NDArray[np.float32] = first + part * (second - first)
    return stretched
