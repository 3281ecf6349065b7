"""Images: drawn as floats or as bytes, written one by one, as a grid or as a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gensdk_runtime.arguments import as_array, check_path, check_whole
from gensdk_runtime.conditions.given_images import checked_images
from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.media.images import SUFFIXES, encode_image, image_grid, write_atomically
from gensdk_runtime.media.value_range import to_floats, to_uint8
from gensdk_runtime.noise import Float32
from gensdk_runtime.outputs.base import (
    AS_IT_IS,
    Arrangement,
    Array,
    Drawn,
    Output,
    Uint8,
    check_folder,
    register_output,
)
from gensdk_runtime.outputs.numbered import check_fresh
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec

SHOWN = 64
"""Images that a notebook shows."""


@register_output
class ImageOutput(Output[ImageSpec]):
    """float32 [n, C, H, W] in the model's value range, or uint8 [n, H, W, C]."""

    Spec: ClassVar = ImageSpec
    plural = "images"
    suffixes = (*SUFFIXES, ".npz")

    def empty(self, n: int, output_type: str, shape: tuple[int, ...], *, makes_bytes: bool) -> Array:
        """Bytes where they are wanted and the program makes them."""
        if makes_bytes:
            channels, height, width = shape
            return np.empty((n, height, width, channels), np.uint8)
        return np.empty((n, *shape), np.float32)

    def of_type(self, data: Array, output_type: str) -> Array:
        """Floats as bytes, where those were asked for."""
        return data if data.dtype == output_type else to_uint8(data, self.spec.value_range)

    def array(self, data: Array) -> Array:
        """float32 [n, C, H, W]; of bytes on 256 levels."""
        return data if data.dtype == np.float32 else to_floats(data, self.spec.value_range)

    def own_form(self, samples: Drawn) -> Array:
        """uint8 [n, H, W, C], the value range mapped to 0 .. 255."""
        return samples.data if samples.data.dtype == np.uint8 else to_uint8(samples.data, self.spec.value_range)

    def given(self, values: Any, *, levels: int | None = None) -> Float32:
        """float32 [n, C, H, W] within the value range, from uint8 NHWC or float NCHW."""
        return check_images(values, self.spec, levels=levels)

    def prefix_of(self, path: str | Path, length: int | None = None) -> Array:
        """The upper rows, by default half, of the images that :func:`load_whole` reads: uint8 [n, h, W, C]."""
        height = self.spec.height
        if length is not None:
            check_whole(length, "the rows of a prefix", least=1, most=height - 1)
        elif height == 1:
            raise InputError("images of one row have no upper half; leave prefix out")
        return load_whole(path, self.spec)[:, : length or height // 2]

    def mask(self, mask: Any, n: int) -> Float32:
        """float32 [n, 1 or C, H, W], from [H, W], [n, H, W] or [n, C, H, W]."""
        array = as_array(mask, "mask")
        if array.dtype.kind not in "bfiu":
            raise InputError(f"expected mask as numbers or bools, got dtype {array.dtype}")
        channels, height, width = self.spec.shape
        if array.ndim == 2:
            array = array[None]
        if array.ndim == 3:
            array = array[:, None]
        fits = array.ndim == 4 and array.shape[0] in (1, n) and array.shape[1] in (1, channels)
        if not fits or array.shape[2:] != (height, width):
            got = list(np.shape(mask))
            raise InputError(
                f"expected mask [{height}, {width}], [{n}, {height}, {width}] or one a channel, got {got}"
            )
        if not ((array >= 0) & (array <= 1)).all():  # NaN fails both
            raise InputError("expected mask from 0 (missing) to 1 (known), got values outside or NaN")
        return np.broadcast_to(array.astype(np.float32), (n, *array.shape[1:]))

    def starts(self, image: Any, mask: Any | None) -> dict[str, Array]:
        """Images of the model's size, and masks [m, 1, H, W]."""
        found: dict[str, Array] = {"image": check_start(image, self.spec)}
        if mask is not None:
            from gensdk_runtime.conditions.given_masks import checked_masks  # which few need

            found["mask_image"] = checked_masks(mask, self.spec.height, self.spec.width)
        return found

    def start_of(self, path: str | Path, *, mask: bool = False) -> Array:
        """uint8 [m, H, W, C], as :func:`load_whole` reads them; masks are of one channel."""
        return load_whole(path, self.spec.model_copy(update={"channels": 1}) if mask else self.spec)

    def in_words(self, data: Array) -> str:
        """As in "images of 8 x 6", width before height."""
        height, width = data.shape[1:3] if data.dtype == np.uint8 else data.shape[2:]
        return f"images of {width} x {height}"

    def picture(self, samples: Drawn, arrangement: Arrangement = AS_IT_IS) -> Uint8:
        """A grid of all images."""
        return image_grid(self.own_form(samples), columns=arrangement.columns, scale=arrangement.scale)

    def shown(self, samples: Drawn) -> Uint8 | None:
        """A grid of the first ones; None for images that no file holds."""
        if not len(samples) or self.spec.channels not in (1, 3, 4):
            return None
        first = samples.data[:SHOWN]
        return image_grid(first if first.dtype == np.uint8 else to_uint8(first, self.spec.value_range))

    def arrays(self, samples: Drawn) -> dict[str, Array]:
        """As floats, and as bytes."""
        return {**super().arrays(samples), "images": self.own_form(samples)}

    def check_target(
        self, path: str | Path, arrangement: Arrangement = AS_IT_IS, *, others: Sequence[str] = ()
    ) -> None:
        """A path without a suffix is a folder, which must hold no pictures from before."""
        check_target(path, others=others)

    def save(self, samples: Drawn, target: Path, arrangement: Arrangement = AS_IT_IS) -> None:
        """One image, a grid, the arrays or a folder, as suffix and `arrangement` say."""
        layout, scale = self._layout(target, len(samples), arrangement), arrangement.scale or 1
        if layout == "npz":
            write_atomically(target, self.npz(samples))
        elif layout == "folder":
            if target.is_dir():
                check_fresh(target, ".png", "picture")
            for i, image in enumerate(self.own_form(samples)):
                data = encode_image(_enlarged(image, scale), ".png", samples.settings_of(i))
                write_atomically(target / f"{i:05d}.png", data)
        else:
            one = layout == "image"
            image = _enlarged(self.own_form(samples)[0], scale) if one else self.picture(samples, arrangement)
            settings = samples.settings_of(0) if one else samples.settings
            write_atomically(target, encode_image(image, target.suffix.lower(), settings))

    def _layout(self, target: Path, count: int, arrangement: Arrangement) -> str:
        suffix = target.suffix.lower()
        if suffix == ".npz":
            return "npz"
        if arrangement.layout == "auto":
            check_target(target)
            if target.is_dir() or not suffix:
                return "folder"
            return "image" if count == 1 else "grid"
        if arrangement.layout == "image" and count != 1:
            raise InputError(f"layout 'image' takes one sample, got {count}; use 'grid' or 'folder'")
        return arrangement.layout


def _enlarged(image: Uint8, scale: int) -> Uint8:
    enlarged: Uint8 = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return enlarged


def image_of(model: ModelSpec) -> ImageSpec:
    """The images that a model makes; :class:`InputError` for a model that makes something else."""
    output = model.output
    if not isinstance(output, ImageSpec):
        raise InputError(
            f"this is for images, but model {model.name!r} makes {output.kind} of shape {list(output.shape)}; use "
            "a model of images, or sample() and its array"
        )
    return output


def check_target(path: str | Path, *, others: Sequence[str] = ()) -> None:
    """Raises :class:`InputError` where images could not be written; ask before drawing for long.

    The suffix must be known, the nearest folder that exists must be one that can be written to, and a folder of
    pictures must hold none from before. `others`: suffixes that the caller writes itself, which a message names
    too.
    """
    target = check_path(path, "a path")
    suffix = target.suffix.lower()
    if suffix and suffix not in (*SUFFIXES, ".npz") and not target.is_dir():
        known = ", ".join((*SUFFIXES, *others))
        raise InputError(f"can't write {suffix} files; use one of {known}, .npz or a folder")
    check_folder(target)
    if target.is_dir():
        check_fresh(target, ".png", "picture")


def check_images(images: Any, spec: ImageSpec, *, levels: int | None) -> Float32:
    """float32 [n, C, H, W] within the value range, from uint8 NHWC or float NCHW; rounded to `levels` grey levels
    of it, unless that is None."""
    array = checked_images(images, spec, (spec.height, spec.width))
    low, high = spec.value_range
    if array.dtype == np.uint8:
        unit = array.transpose(0, 3, 1, 2).astype(np.float64) / 255.0
    else:
        unit = (array.astype(np.float64) - low) / (high - low)
    unit = np.clip(unit, 0, 1)
    if levels is not None:
        unit = np.rint(unit * (levels - 1)) / (levels - 1)
    return (low + unit * (high - low)).astype(np.float32)


def check_start(image: Any, spec: ImageSpec) -> Float32:
    """float32 [m, C, H, W] within the value range, from uint8 NHWC or float NCHW, one of them also without its
    first axis: floats as they are, to the bit."""
    channels, height, width = spec.shape
    if tuple(getattr(image, "shape", ())) in ((height, width, channels), spec.shape, (height, width)):
        image = as_array(image, "image")[None]
    array = checked_images(image, spec, (height, width))
    if array.dtype == np.uint8:
        return check_images(array, spec, levels=None)
    low, high = spec.value_range
    inside: Float32 = np.clip(array.astype(np.float32), np.float32(low), np.float32(high))
    return inside


def load_whole(path: str | Path, spec: ImageSpec) -> Uint8:
    """The images of a file or a folder, of just the size of `spec`, uint8 [n, H, W, C]; says what is skipped.

    As :func:`gensdk_runtime.media.image_sets.load_images`, which tells what it takes and what it raises.
    """
    from gensdk_runtime.media.image_sets import Shaping, load_images  # which few need

    loaded = load_images(path, spec, Shaping(sized_by=None))
    for name, reason in loaded.skipped:
        tell(f"skipped {name} of {path}: {reason}")
    return loaded.images


def check_rows(rows: Any, spec: ImageSpec, *, levels: int) -> Float32:
    """The upper rows of images, float32 [m, C, h, W] on `levels` grey levels, from uint8 NHWC or float NCHW.

    Floats that lie on a level but for rounding stay as they are, to the bit.
    """
    array = checked_images(rows, spec)
    height, width = array.shape[1:3] if array.dtype == np.uint8 else array.shape[2:]
    if width != spec.width or height >= spec.height:
        raise InputError(
            f"expected prefix as 1 to {spec.height - 1} upper rows of images, {spec.width} pixels wide, "
            f"got {height} rows of {width}"
        )
    near = check_images(rows, spec.model_copy(update={"height": height}), levels=levels)
    if array.dtype == np.uint8:
        return near
    low, high = spec.value_range
    given: Float32 = array.astype(np.float32)
    return np.where(np.abs(given - near) <= 1e-6 * (high - low), given, near)
