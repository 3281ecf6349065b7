"""Animated GIFs by Pillow, each frame with its own palette: exact where a frame has at most 256 colours.

Its frames are put together here, since ``Image.save`` merges equal ones that follow each other, so that their
number changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensdk_runtime.media.image_pixels import to_picture
from gensdk_runtime.media.images import Uint8

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 65535


def encode_gif(frames: Uint8, *, fps: float) -> bytes:
    """A GIF that plays for ever, of `frames` [n, H, W, C] in grey (C = 1) or RGB (C = 3).

    Frames last whole hundredths of a second, and at least two, since viewers slow down what is faster.
    """
    from PIL.GifImagePlugin import getdata, getheader

    duration = 10 * max(2, round(100.0 / fps))
    pictures = [_few_colours(to_picture(frame)) for frame in frames]
    header, _ = getheader(pictures[0], info={"loop": 0})
    parts = [
        part
        for picture in pictures  # a grey one takes the palette of the header
        for part in getdata(picture, duration=duration, disposal=1, include_color_table=picture.mode == "P")
    ]
    return b"".join((*header, *parts, b";"))


def _few_colours(picture: Image) -> Image:
    """A grey picture as it is, one in RGB with the 256 colours that median cut finds (Heckbert 1982)."""
    from PIL.Image import Dither, Quantize

    if picture.mode == "L":
        return picture
    return picture.quantize(256, Quantize.MEDIANCUT, dither=Dither.NONE)
