"""Images that are made into others: their size may differ from call to call, and decides the result's."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import check_count
from gensdk_runtime.conditions.base import Array, Condition, Growth, Size, register_condition
from gensdk_runtime.conditions.given_images import checked_images
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.media.value_range import to_floats, to_uint8
from gensdk_runtime.spec.audio import AudioConditionSpec
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.kinds import CONDITIONS
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, TensorSpec

_CELLS = 6
_STREAM = 1


@register_condition
class ImageCondition(Condition[SourceSpec]):
    """uint8 [n, H, W, C] or float32 [n, C, H, W], all of one size."""

    Spec: ClassVar = SourceSpec
    required = True
    kept = False
    absent = "takes no image"

    @property
    def tensor(self) -> str:
        """A graph that translates calls it ``source``; ``image`` is what it makes."""
        return "source"

    @property
    def in_words(self) -> str:
        """Width before height, as sizes of images are usually written."""
        return f"images of {self.spec.width} x {self.spec.height}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether tiles give the same."""
        field = self.spec.receptive_field
        return () if field is None else (f"tiles: {field.in_words()}",)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of an image of the size that the model was trained at."""
        return self.spec.shape

    def check(self, given: Any, n: int | None) -> Array:
        """Images of a size that the model takes, contiguous, as many as there are samples; or one for all, where
        something else tells them apart."""
        if given is None:
            raise InputError(f"model {self.model.name!r} translates images: pass image, one for each sample")
        array, largest = checked_images(given, self.spec), max_source_size(self.model)
        if array.dtype != np.uint8:
            array = array.astype(np.float32, copy=False)
        height, width = source_size(array)
        if n is not None and len(array) == 1 and self._shared:
            array = np.repeat(array, check_count(n), axis=0)
        if n is not None and len(array) != check_count(n):
            raise InputError(f"expected one image for each of the {n} samples, got {len(array)}")
        if self._talks and (height, width) != self.own_size:
            raise InputError(
                f"expected faces of {self.own_size[0]} x {self.own_size[1]} (height x width), got {height} x "
                f"{width}, as {list(array.shape)}; resize them, and of one face pass [1, H, W, C]"
            )
        if height > largest[0] or width > largest[1]:
            raise InputError(
                f"expected images of at most {largest[0]} x {largest[1]} (height x width), got {height} x "
                f"{width}; Generator.translate cuts larger ones into tiles"
            )
        return np.ascontiguousarray(array)

    @property
    def _talks(self) -> bool:
        """True where a graph takes faces of one size alone."""
        return any(isinstance(spec, AudioConditionSpec) and spec.window for spec in self.model.conditions)

    @property
    def _shared(self) -> bool:
        """True where samples of one image differ by what else they can't do without, such as sounds."""
        others = (CONDITIONS.class_of(spec) for spec in self.model.conditions if spec.kind != self.kind)
        return any(each.required for each in others)

    def examples(self, n: int, first: int = 0) -> Array:
        """uint8 [n, H, W, C] of smooth colours, the same on every machine, and from every place on."""
        coarse = noise.uniform(noise.sample_keys(n, 0), _STREAM, (_CELLS, _CELLS, self.spec.channels))
        smooth = _stretch(_stretch(coarse, self.spec.height, axis=1), self.spec.width, axis=2)
        images: NDArray[np.uint8] = np.rint(255.0 * smooth).astype(np.uint8)
        return images

    @property
    def own_size(self) -> Size:
        """(height, width)."""
        return (self.spec.height, self.spec.width)

    def size(self, values: Array) -> Size:
        """(height, width)."""
        return source_size(values)

    def growth(self, size: Size) -> Growth | None:
        """By the pixels of the image."""
        return Growth(prod(size), prod(self.own_size))

    def sample_shape(self, size: Size) -> tuple[int, ...]:
        """The image's size times the model's scale."""
        return (self.model.output.shape[0], *(side * self.spec.scale for side in size))

    def sized(self, n: int, size: Size) -> Array:
        """Black images in bytes."""
        return np.zeros((n, *size, self.spec.channels), np.uint8)

    def fill(self, out: Array, values: Array) -> None:
        """Pads with the image's own mirror image what the graph takes beyond its size."""
        write_source(values, out, self.spec)


def source_of(model: ModelSpec) -> SourceSpec:
    """The images that a model translates; :class:`InputError` for a model that translates none."""
    source = model.source
    if source is None:
        raise InputError(f"model {model.name!r} does not translate images; use sample(), or gensdk sample")
    return source


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


def source_axes(spec: TensorSpec) -> tuple[int | str, int | str]:
    """Height and width of a ``source`` input: a name where any size goes in. ManifestError for another rank."""
    if len(spec.shape) != 4:
        raise ManifestError(f"expected input {spec.name!r} with four axes, got {list(spec.shape)}")
    return (spec.shape[1], spec.shape[2]) if spec.dtype == "uint8" else (spec.shape[2], spec.shape[3])


def max_source_size(model: ModelSpec) -> tuple[int, int]:
    """The largest height and width that the graph of a translation model takes at once: as its ``source``, or as
    the ``variable`` that gradient steps change."""
    graph = model.graph(model.program.graphs[0])
    spec = graph.input("source") or graph.input("variable")
    axes = (HEIGHT, WIDTH) if spec is None or len(spec.shape) != 4 else source_axes(spec)
    height, width = (axis if isinstance(axis, int) else MAX_SIDE for axis in axes)
    return height, width


def source_size(sources: Array) -> tuple[int, int]:
    """Height and width of uint8 [n, H, W, C] or float32 [n, C, H, W]."""
    height, width = sources.shape[1:3] if sources.dtype == np.uint8 else sources.shape[2:]
    return int(height), int(width)


def write_source(sources: Array, out: Array, spec: SourceSpec) -> None:
    """Writes uint8 [n, H, W, C] or float32 [n, C, H, W] into the upper left of `out`, as uint8 [n, H', W', C] or
    float32 [n, C, H', W'], and mirrors it into the rest."""
    height, width = source_size(sources)
    rows, columns = mirrored(height, source_size(out)[0]), mirrored(width, source_size(out)[1])
    if out.dtype == np.uint8:
        bytes_in = sources if sources.dtype == np.uint8 else to_uint8(sources, spec.value_range)
        out[:, :height, :width] = bytes_in
        out[:, height:, :width] = out[:, rows, :width]
        out[:, :, width:] = out[:, :, columns]
        return
    inside = out[:, :, :height, :width]
    if sources.dtype == np.uint8:
        to_floats(sources, spec.value_range, out=inside)
    else:
        np.copyto(inside, sources)
    out[:, :, height:, :width] = out[:, :, rows, :width]
    out[:, :, :, width:] = out[:, :, :, columns]


def mirrored(size: int, padded: int) -> NDArray[np.intp]:
    """Which of `size` places the places beyond it show."""
    if size == padded:
        return np.empty(0, np.intp)
    return np.pad(np.arange(size), (0, padded - size), mode="reflect" if size > 1 else "edge")[size:]
