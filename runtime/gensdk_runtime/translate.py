"""Any images through a translation model: of several sizes, and larger than memory allows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.inputs import MAX_SIDE, max_source_size
from gensdk_runtime.manifest import ModelSpec
from gensdk_runtime.media.images import to_uint8
from gensdk_runtime.samples import Samples
from gensdk_runtime.tiles import DEFAULT_TILE, Images, smallest_tile, translate_tiles

TILED_FROM = 1024 * 1024
"""Pixels of the source; a larger image is cut into tiles where the caller says nothing."""


def translate_all(
    model: ModelSpec,
    sample: Callable[..., Samples],
    images: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    tile: int | None,
    label: Any,
) -> Images | list[Images]:
    """See :meth:`gensdk_runtime.generator.Generator.translate`; `sample` is that generator's."""
    if model.source is None:
        raise InputError(f"model {model.name!r} does not translate images; use sample()")
    if tile is not None and not 0 <= tile <= MAX_SIDE:
        raise InputError(f"expected a tile of 0 (none) to {MAX_SIDE} pixels, got {tile}")
    if isinstance(images, np.ndarray):
        array = _check(images, model)
        if array.ndim == 3:
            return _one(model, sample, array, tile, label)
        if not _needs_tiles(model, array[0], tile):
            return sample(image=array, label=label, output_type="uint8").images
        return np.stack([_one(model, sample, image, tile, each) for image, each in _labelled(array, label)])
    return [
        _one(model, sample, _single(_check(np.asarray(image), model)), tile, each)
        for image, each in _labelled(images, label)
    ]


def _one(model: ModelSpec, sample: Callable[..., Samples], image: Images, tile: int | None, label: Any) -> Images:
    """uint8 [H, W, C] to uint8 [H s, W s, C']."""
    if not _needs_tiles(model, image, tile):
        alone: Images = sample(image=image[None], label=label, output_type="uint8").images[0]
        return alone
    assert model.source is not None  # noqa: S101 - translate_all looked

    def through(tiles: Images) -> NDArray[np.float32]:
        # One at a time: between its layers a model needs far more memory than for what goes in and comes out.
        return sample(image=tiles, label=label, batch_size=1).array

    spec = model.source
    least = smallest_tile(spec.margin, spec.multiple)
    if tile is not None and 0 < tile < least:
        raise InputError(f"expected tiles of at least {least} pixels for this model, got {tile}")
    size = min(tile or max(DEFAULT_TILE, least), *max_source_size(model)) // spec.multiple * spec.multiple
    return translate_tiles(
        image,
        through,
        tile=size,
        spec=spec,
        to_bytes=partial(to_uint8, value_range=model.require_image().value_range),
    )


def _needs_tiles(model: ModelSpec, image: Images, tile: int | None) -> bool:
    height, width = int(image.shape[0]), int(image.shape[1])
    largest = max_source_size(model)
    if height > largest[0] or width > largest[1]:
        return True
    if tile is None:
        return height * width > TILED_FROM
    return tile > 0 and max(height, width) > tile


def _labelled(images: Sequence[NDArray[Any]] | NDArray[Any], label: Any) -> list[tuple[NDArray[Any], Any]]:
    """Each image with its label."""
    if isinstance(label, str) or not isinstance(label, Sequence | np.ndarray):
        return [(image, label) for image in images]
    if len(label) != len(images):
        raise InputError(f"expected one label for each of the {len(images)} images, got {len(label)}")
    return list(zip(images, label, strict=True))


def _single(array: Images) -> Images:
    if array.ndim != 3:
        raise InputError(f"expected each image of a list as [H, W, C], got {list(array.shape)}")
    return array


def _check(array: NDArray[Any], model: ModelSpec) -> Images:
    """uint8 [H, W, C] or [n, H, W, C]; a grey image may come without its channel."""
    assert model.source is not None  # noqa: S101 - translate_all looked
    channels = model.source.channels
    if array.dtype != np.uint8:
        raise InputError(f"expected images as uint8, got {array.dtype}; sample(image=...) takes floats")
    if channels == 1 and array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or array.shape[-1] != channels or not array.size:
        raise InputError(f"expected images [H, W, {channels}] or [n, H, W, {channels}], got {list(array.shape)}")
    if max(array.shape[-3:-1]) > MAX_SIDE:
        raise InputError(f"expected images of at most {MAX_SIDE} pixels a side, got {list(array.shape)}")
    return array
