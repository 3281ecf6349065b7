"""Dreams on an image over octaves: the model's gradient steps at growing sizes (Mordvintsev et al. 2015)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gensdk_runtime.arguments import as_array, check_number, check_whole
from gensdk_runtime.conditions.given_images import is_picture, of_picture
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import MAX_SIDE, Images, resize_floats
from gensdk_runtime.methods.translate import Given, Through, check_tile, translate_one
from gensdk_runtime.plan.sampling import Sampling
from gensdk_runtime.programs import abilities
from gensdk_runtime.spec.options import check_options

MAX_OCTAVES = 32
_ARGUMENTS = ("octaves", "octave_scale", "seed", "tile", "callback_on_step_end")
SMALLEST = 16
"""Pixels of the smaller side of the first octave, at least; a smaller image has one octave alone."""


def dream(
    sampling: Sampling, image: Any, *, octaves: int, octave_scale: float, tile: int | None, given: Given
) -> Images:
    """See :meth:`gensdk_runtime.generator.Generator.dream`; `given` to each octave's sampling."""
    model = sampling.model
    source = model.source
    if source is None or "dream" not in abilities(model):
        raise InputError(
            f"model {model.name!r} does not dream; export the family deepdream, or import a "
            "classifier with --dream"
        )
    check_options("ascent", given.options, others=_ARGUMENTS)
    whole = _check(image, source.channels)
    sizes = octave_sizes(whole.shape[0], whole.shape[1], octaves, octave_scale)
    through = Through(sampling, tile=check_tile(tile), given=given)
    detail = np.zeros((1, 1, source.channels), np.float32)
    dreamt = whole
    for height, width in sizes:
        base = resize_floats(whole.astype(np.float32), height, width, enlarge="bilinear")
        begun = base + resize_floats(detail, height, width, enlarge="bilinear")
        begun = np.clip(np.rint(begun), 0, 255).astype(np.uint8)
        result = translate_one(through, begun)
        dreamt, detail = result, result.astype(np.float32) - base
    return dreamt


def octave_sizes(height: int, width: int, octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of each octave, the image's own last; those that would be too small are left out."""
    octaves, scale = (
        check_whole(octaves, "octaves", least=1, most=MAX_OCTAVES),
        check_number(scale, "octave_scale"),
    )
    if not 1.0 < scale <= 8.0:
        raise InputError(f"expected octave_scale above 1 and at most 8, got {scale}")
    sizes = [(round(height / scale**k), round(width / scale**k)) for k in reversed(range(octaves))]
    return [size for size in sizes if min(size) >= SMALLEST or size == (height, width)]


def _check(image: Any, channels: int) -> Images:
    array = of_picture(image, channels) if is_picture(image) else as_array(image, "an image")
    if array.ndim == 2 and channels == 1:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels or not array.size:
        raise InputError(f"expected an image uint8 [H, W, {channels}], got {array.dtype} {list(array.shape)}")
    if max(array.shape[:2]) > MAX_SIDE:
        raise InputError(f"expected an image of at most {MAX_SIDE} pixels a side, got {list(array.shape)}")
    return array
