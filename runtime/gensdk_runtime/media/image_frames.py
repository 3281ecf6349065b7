"""Frames of animated images: GIF, WebP and PNG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.image_loading import load
from gensdk_runtime.media.image_pixels import Images, flattened, to_array
from gensdk_runtime.media.image_reader import (
    MAX_FRAMES,
    MAX_PIXELS,
    CorruptImageError,
    decoding,
    ignoring_warnings,
    open_image,
    orientation,
    upright,
)
from gensdk_runtime.media.image_reader import frame_count as _count
from gensdk_runtime.media.image_samples import plain, scale_transparency

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_ANIMATION_PIXELS = 64 * MAX_PIXELS
"""Of all frames together; they are decoded one by one, so this bounds time, not memory."""


@dataclass(frozen=True)
class Frame:
    """A whole picture of an animation, uint8 [H, W, channels], and for how long it is shown, in milliseconds.

    `duration` is what the file says; browsers show a frame of 10 ms or less for 100.
    """

    image: Images
    duration: float


def frame_count(data: bytes) -> int:
    """How many frames the animation in the file `data` has, 1 for a still picture.

    Of a TIFF with several pages only the first is a frame. Raises :class:`CorruptImageError`.
    """
    image = ignoring_warnings(lambda: open_image(data))
    return 1 if image.format == "TIFF" else _count(image)


def frames(data: bytes, channels: int) -> Iterator[Frame]:
    """The frames of a GIF, WebP or PNG in order, each whole, upright, and with transparency over white.

    Only one is in memory at a time. Raises :class:`CorruptImageError`: before the first frame for more frames or
    pixels than are read; later for a file that is cut or damaged, after the frames before the damage.
    """
    count = frame_count(data)
    if count == 1:
        yield Frame(decode(data, channels), 0.0)
        return
    image = ignoring_warnings(lambda: open_image(data))
    if count > MAX_FRAMES or count * image.width * image.height > MAX_ANIMATION_PIXELS:
        raise CorruptImageError(
            f"{count if count <= MAX_FRAMES else f'over {MAX_FRAMES}'} frames of {image.width}x{image.height} are "
            "more than is read; make a video of it"
        )
    scale_transparency(image)
    turn = orientation(image, data)
    first = int(bool(getattr(image, "default_image", False)))
    for number in range(count):
        try:
            _turn_to(image, first + number, f"it ends after {number} of {count} frames")
            load(image, data)
            picture = upright(flattened(plain(image), channels), turn)
        except Warning as failure:  # of a frame's size, where the application makes errors of warnings
            raise CorruptImageError(str(failure)) from None
        yield Frame(to_array(picture), float(image.info.get("duration", 0)))


def _turn_to(image: ImageFile, number: int, missing: str) -> None:
    with decoding():
        try:
            image.seek(number)
        except EOFError:
            raise CorruptImageError(missing) from None
