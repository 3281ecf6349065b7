"""Any images through a translation model: of several sizes, and larger than memory allows at once.

An image goes through whole where it can. It is cut into tiles where the model's graph shows that tiles give the
same (:class:`gensdk_runtime.spec.conditions.ReceptiveField`), or where the caller says so. A graph that takes one
size alone, and looks at all of an image, gets it resized. Whatever changes a result is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.conditions.given_images import Images, as_images, check_size
from gensdk_runtime.conditions.image import max_source_size, source_of
from gensdk_runtime.errors import InputError, tell
from gensdk_runtime.host.memory import Room, available_memory, in_words
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.media.image_pixels import resize as resized
from gensdk_runtime.media.value_range import to_uint8
from gensdk_runtime.methods.tiles import DEFAULT_TILE, Cut, translate_tiles
from gensdk_runtime.noise import Seeds
from gensdk_runtime.plan.sampling import Sampling
from gensdk_runtime.programs import abilities
from gensdk_runtime.programs.run import StepCallback
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.conditions import ReceptiveField, SourceSpec
from gensdk_runtime.spec.model import ModelSpec

TILED_FROM = 1024 * 1024
"""Pixels of the source; a larger image is cut into tiles where nothing speaks against it."""
UNSEEN = ReceptiveField(whole=True, reason="its graph was not looked at")
Size = tuple[int, int]


class Way(NamedTuple):
    """How an image goes through: `how`, with tiles of `size`, or resized to the (height, width) `size`."""

    how: Literal["whole", "tiles", "resized"]
    size: Any = None


@dataclass(frozen=True)
class Given:
    """What a caller gives to each sampling beside the image; all of it may be left open."""

    label: Any = None
    seed: Seeds | None = None
    callback_on_step_end: StepCallback | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Through:
    """A model's sampling, and what the caller asked for."""

    sampling: Sampling
    tile: int | None = None
    resize: Size | None = None
    given: Given = Given()

    @property
    def model(self) -> ModelSpec:
        """What translates."""
        return self.sampling.model

    @property
    def room(self) -> Room:
        """The memory that a run may take."""
        return self.sampling.executor.room

    def sample(self, image: Images, *, batch_size: int | None = None, bytes_: bool = True) -> Samples:
        """Samples of images [n, H, W, C] of a size that the graph takes."""
        given = self.given
        return self.sampling.sample(
            seed=given.seed,
            conditions={"label": given.label, "image": image},
            callback_on_step_end=given.callback_on_step_end,
            batch_size=batch_size,
            output_type="uint8" if bytes_ else "float32",
            options=given.options,
        )

    def labelled(self, label: Any) -> Through:
        """The same for one label."""
        return replace(self, given=replace(self.given, label=label))

    @property
    def source(self) -> SourceSpec:
        """What goes in; :class:`InputError` for a model that translates no images."""
        return source_of(self.model)

    @cached_property
    def most(self) -> tuple[int | None, int | None]:
        """The height and width up to which the backend takes an image, where its graph would take any."""
        (rows, columns), (height, width) = max_source_size(self.model), self.sampling.executor.largest_sides()
        return None if rows < MAX_SIDE else height, None if columns < MAX_SIDE else width

    @property
    def largest(self) -> Size:
        """The largest (height, width) that goes through at once."""
        graph = max_source_size(self.model)
        height, width = (min(side, most or side) for side, most in zip(graph, self.most, strict=True))
        return height, width

    @property
    def tiles_fit(self) -> bool:
        """True if tiles that see all that matters to them are no larger than what goes through at once."""
        cut = Cut.of(self.source)
        beyond = 0 if self.most == (None, None) else cut.step - 1  # for the last tile to end where the image does
        return cut.smallest + beyond <= min(self.largest)

    @property
    def ascends(self) -> bool:
        """It goes by gradient steps."""
        return "dream" in abilities(self.model)

    @property
    def field(self) -> ReceptiveField:
        """What a place of the result depends on."""
        return self.source.receptive_field or UNSEEN


def translate(through: Through, images: Any) -> Images | list[Images]:
    """See :meth:`gensdk_runtime.generator.Generator.translate`."""
    channels = through.source.channels
    through = replace(through, tile=check_tile(through.tile), resize=check_size(through.resize, "resize"))
    array = as_images(images, channels)
    label = through.given.label
    if isinstance(array, list):
        return [translate_one(through.labelled(each), image) for image, each in _labelled(array, label)]
    if array.ndim == 3:
        return translate_one(through, array)
    if (
        through.resize is None
        and way_of(through, *array.shape[1:3]).how == "whole"
        and not _has_alpha(through, array)
    ):
        most = _batch(through, *array.shape[1:3])
        return through.sample(array, batch_size=most).images
    return np.stack([translate_one(through.labelled(each), image) for image, each in _labelled(array, label)])


def way_of(through: Through, height: int, width: int) -> Way:
    """How an image of this size goes through; :class:`InputError` where it can't."""
    field, tile, cut, largest = through.field, through.tile, Cut.of(through.source), through.largest
    fits = height <= largest[0] and width <= largest[1]
    if tile and (max(height, width) > tile or not fits):
        if tile < cut.smallest:
            raise InputError(f"expected tiles of at least {cut.smallest} pixels for this model, got {tile}")
        return Way("tiles", min(tile, *largest))
    if not fits:
        size = min(largest) if through.most == (None, None) else _tile(through)
        if through.ascends and tile is None:
            return _ascending(through, size)
        if field.whole or not through.tiles_fit or tile == 0:
            return Way("resized", _inside((height, width), largest))
        return Way("tiles", size)
    if tile is None and height * width > TILED_FROM:
        return _large(through, height, width)
    return Way("whole")


def _large(through: Through, height: int, width: int) -> Way:
    """Of an image that the graph takes, but memory perhaps not."""
    field, size = through.field, _tile(through)
    if not field.whole and through.tiles_fit and size < max(height, width):
        _check_memory(through, min(size, height), min(size, width))
        return Way("tiles", size)
    if through.ascends and through.room.lacks(field.memory(height * width)) is not None:
        return _ascending(through, size)
    _check_memory(through, height, width)
    return Way("whole")


def _tile(through: Through) -> int:
    """The side of tiles where the caller left it open."""
    smallest, multiple = Cut.of(through.source).smallest, through.source.multiple
    size = max(DEFAULT_TILE, 2 * smallest if smallest > DEFAULT_TILE // 2 else 0)
    return min(size, *through.largest) // multiple * multiple


def _ascending(through: Through, tile: int) -> Way:
    """Gradient steps in tiles are a technique of their own, but not the same as on the whole image."""
    tell(f"the steps of model {through.model.name!r} were taken in tiles of {tile} pixels, each by itself")
    return Way("tiles", tile)


def _check_memory(through: Through, height: int, width: int) -> None:
    """Refuses what would end the process, and names the choices."""
    need = through.field.memory(height * width)
    have = through.room.lacks(need)
    if have is None:
        return
    field = through.field
    why = f"it looks at all of an image ({field.reason})" if field.whole else f"it sees {field.margin} pixels far"
    share = (0.8 * have / need) ** 0.5
    small = f"{round(height * share)}, {round(width * share)}"
    raise InputError(
        f"an image of {height} x {width} takes about {in_words(need)} in model {through.model.name!r}, and "
        f"{in_words(have)} are free; tiles would change the result: {why}. Resize it (resize=({small}), --size), "
        f"accept tiles that differ (tile={DEFAULT_TILE}, --tile), try all the same (tile=0), or give more memory"
    )


def translate_one(through: Through, image: Images) -> Images:
    """uint8 [H, W, C] to uint8 [H s, W s, C']; a channel more than the source has is transparency."""
    spec = through.source
    if _has_alpha(through, image):
        return _with_alpha(through, image)
    if through.resize is not None:
        image = resized(image, *through.resize)
    height, width = image.shape[:2]
    way = way_of(through, height, width)
    if way.how == "tiles":
        return _in_tiles(through, image, way.size)
    if way.how == "resized":
        tell(
            f"{_taken(through)} (height x width), and {_why_no_tiles(through)}: {height} x {width} was resized to "
            f"{_by(way.size)}, and its result enlarged"
        )
        result = through.sample(resized(image, *way.size)[None]).images[0]
        return resized(result, height * spec.scale, width * spec.scale)
    alone: Images = through.sample(image[None]).images[0]
    return alone


def _taken(through: Through) -> str:
    """What goes through at once."""
    name, (height, width) = through.model.name, through.largest
    if through.most == (None, None):
        return f"model {name!r} takes images of {height} x {width} alone"
    return f"the engine of model {name!r} takes images of at most {height} x {width}"


def _why_no_tiles(through: Through) -> str:
    """Why an image larger than the graph takes does not go through in tiles."""
    if through.field.whole:
        return f"tiles would change the result ({through.field.reason})"
    if through.tile == 0:
        return "tiles were ruled out"
    return f"tiles have to be of {Cut.of(through.source).smallest} pixels at least"


def _in_tiles(through: Through, image: Images, tile: int) -> Images:
    def translated(tiles: Images) -> NDArray[np.float32]:
        # One at a time: between its layers a model needs far more memory than for what goes in and comes out.
        return through.sample(tiles, batch_size=1, bytes_=False).array

    height, width = (side if side < MAX_SIDE else None for side in max_source_size(through.model))
    return translate_tiles(
        image,
        translated,
        tile=tile,
        spec=through.source,
        fixed=(height, width),
        most=through.most,
        to_bytes=partial(to_uint8, value_range=through.model.output.value_range),
    )


def _has_alpha(through: Through, image: Images) -> bool:
    return through.source.channels in (1, 3) and image.shape[-1] == through.source.channels + 1


def _with_alpha(through: Through, image: Images) -> Images:
    """Colours are translated, and transparency goes through the same geometry; what looks at all of an image would
    see colours that transparency hides, and gets it on white."""
    colours, alpha = image[..., :-1], image[..., -1:]
    if through.field.whole or through.model.output.shape[0] not in (1, 3):
        tell(f"model {through.model.name!r} looks at all of an image: transparency was laid over white")
        share = alpha.astype(np.uint16)
        flat = (colours * share + 255 * (255 - share) + 127) // 255
        return translate_one(through, flat.astype(np.uint8))
    result = translate_one(through, np.ascontiguousarray(colours))
    return np.concatenate([result, resized(alpha, *result.shape[:2])], axis=2)


def _batch(through: Through, height: int, width: int) -> int | None:
    """Images in one run, where those are larger than the model's own; None leaves it open."""
    need, have = through.field.memory(height * width), available_memory()
    if height * width <= through.source.height * through.source.width or not need or have is None:
        return None
    most = through.sampling.executor.largest_batch((height, width)) or through.model.max_batch
    return max(1, min(through.model.max_batch, most, have // 2 // need))


def _inside(size: Size, largest: Size) -> Size:
    """`size` shrunk into `largest`, at its own proportions."""
    share = min(1.0, largest[0] / size[0], largest[1] / size[1])
    height, width = (max(1, min(most, round(side * share))) for side, most in zip(size, largest, strict=True))
    return height, width


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def check_tile(tile: Any) -> int | None:
    """Pixels of a tile, 0, or None; :class:`InputError` for anything else."""
    return None if tile is None else check_whole(tile, "tile", least=0, most=MAX_SIDE)


def _labelled(images: Sequence[Images] | Images, label: Any) -> list[tuple[Images, Any]]:
    """Each image with its label."""
    if isinstance(label, str) or not isinstance(label, Sequence | np.ndarray) or np.ndim(label) == 0:
        return [(image, label) for image in images]
    if len(label) != len(images):
        raise InputError(f"expected one label for each of the {len(images)} images, got {len(label)}")
    return list(zip(images, label, strict=True))
