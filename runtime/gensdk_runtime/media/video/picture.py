"""A decoded frame as the picture that a player shows: colours by its matrix and range, upright, in RGB."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.media.images import Uint8

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

ALPHA = ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "ayuv", "vuya")
"""How FFmpeg's names of pixel formats with a transparent layer begin."""
UNSPECIFIED = 2
"""For colour matrix, transfer and primaries, in the numbers of ITU-T H.273."""
BT709 = 1
HDR = {16: "PQ", 18: "HLG"}
HD = (1280, 720)
"""From this width or height on, players take unmarked video for BT.709; below it for BT.601."""


class Painter:
    """Turns the frames of one video into pictures."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._remarks: list[str] | None = None
        self.turned = False
        """Whether the last picture lies across the stored frame, so that its pixels' shape does too."""
        self._reformatter = VideoReformatter()

    def picture(self, frame: VideoFrame, name: str) -> Uint8:
        """uint8 [H, W, 3] in RGB, an array of its own."""
        if max(frame.width, frame.height) > MAX_SIDE:
            raise InputError(
                f"{name}: a frame of [{frame.height}, {frame.width}] is over {MAX_SIDE} pixels a side"
            )
        if self._remarks is None:
            self._remarks = list(_remarks_on(frame))
        image = np.asarray(self._converted(frame).to_ndarray(), np.uint8)
        matrix = display_matrix(frame)
        if matrix is None:
            self.turned = False
            return image
        self.turned = matrix[0] == 0
        return upright(image, matrix)

    def _converted(self, frame: VideoFrame) -> VideoFrame:
        options: dict[str, Any] = {}
        if frame.color_trc in HDR:  # 203 cd/m2, the reference white of ITU-R BT.2408, becomes white
            options = {"dst_color_trc": BT709, "dst_color_primaries": BT709}
        elif frame.colorspace == UNSPECIFIED and is_hd(frame):
            options = {"src_colorspace": BT709}
        return self._reformatter.reformat(frame, format="rgb24", **options)

    def take_remarks(self) -> list[str]:
        """Remarks on the first frame; none at the second call."""
        remarks, self._remarks = self._remarks or [], []
        return remarks


def _remarks_on(frame: VideoFrame) -> Iterator[str]:
    if frame.rotation % 90:
        yield f"to be turned by {frame.rotation} degrees, which is not done"
    if frame.interlaced_frame:
        yield "interlaced; its two fields are translated together, as they are stored"
    if frame.color_trc in HDR:
        yield f"HDR ({HDR[frame.color_trc]}); brought to the range of ordinary screens"
    elif any(each.bits > 8 for each in frame.format.components):
        yield "more than 8 bits a colour; translated with 8"
    if frame.format.name.startswith(ALPHA):
        yield "its transparency is left out"
    if frame.colorspace == UNSPECIFIED and is_hd(frame) and not frame.format.is_rgb:
        yield "it names no colour matrix; taken for BT.709, as players take what is so large"


def is_hd(frame: VideoFrame) -> bool:
    """True if players take it for BT.709 where it says nothing."""
    return frame.width >= HD[0] or frame.height >= HD[1]


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """The quarter turn or mirror image that the container asks for, as the signs of a, b, c and d in

    ``[x' y'] = [x y] [[a, b], [c, d]]``; None for none. The format is that of ISO/IEC 14496-12, 6.2.2.
    """
    side_data: Any = frame.side_data
    raw = side_data.get("DISPLAYMATRIX")
    if raw is None or len(bytes(raw)) < 36:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(raw)[:36])
    largest = max(abs(value) for value in (a, b, c, d))
    signs = [0 if abs(value) * 2 < largest else (1 if value > 0 else -1) for value in (a, b, c, d)]
    if not largest or signs == [1, 0, 0, 1] or abs(signs[0]) != abs(signs[3]) or abs(signs[0]) == abs(signs[1]):
        return None
    return signs[0], signs[1], signs[2], signs[3]


def upright(image: Uint8, matrix: tuple[int, int, int, int]) -> Uint8:
    """`image` [H, W, 3] as `matrix`, of :func:`display_matrix`, asks for it."""
    a, b, c, d = matrix
    if not a:  # x becomes y: b and c say which way each runs
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[::down, ::across])
