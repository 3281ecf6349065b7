"""Points: drawn where they lie, or written as a table."""

from __future__ import annotations

from math import floor, log10
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import to_array, to_picture
from gensdk_runtime.media.images import SUFFIXES, encode_image
from gensdk_runtime.outputs.base import AS_IT_IS, Arrangement, Array, Drawn, Output, Uint8, register_output
from gensdk_runtime.spec.outputs import PointsSpec

SIZE = 512
"""Pixels of a picture's plot, a side."""
MARGIN = 40
"""Pixels around it, for the numbers at its edges."""
FONT_SIZE = 11
RADIUS = 2
"""Pixels of one point's disk."""
OPACITY = 0.6
"""Of one point, so that places where many overlap look denser."""
TICKS = 5
BINS = 64
"""Of the histogram that stands for points of one dimension."""

_GREY = (110, 110, 110)
_PALETTE: Uint8 = (
    np.array(
        (0x1F77B4, 0xD62728, 0x2CA02C, 0x9467BD, 0xFF7F0E, 0x1796A0, 0x8C564B, 0xC850AA, 0x6E6E14, 0x3C3C3C), ">u4"
    )
    .view(np.uint8)
    .reshape(-1, 4)[:, 1:]
)


@register_output
class PointsOutput(Output[PointsSpec]):
    """float32 [n, D], in the units of the model's data."""

    Spec: ClassVar = PointsSpec
    plural = "points"
    suffixes = (*SUFFIXES, ".npz", ".csv")

    def in_words(self, data: Array) -> str:
        """As in "points of 2 dimensions"."""
        return f"points of {data.shape[1]} dimensions"

    @property
    def facts(self) -> str:
        """Dimensions and range."""
        return f"{self.spec.dimensions} dimensions, expected in {list(self.spec.value_range)}"

    def picture(self, samples: Drawn, arrangement: Arrangement = AS_IT_IS) -> Uint8:
        """Where the points lie; `arrangement`, which is for images, is refused."""
        self._refuse(arrangement)
        return scatter(self.array(samples.data), self.spec.value_range, samples.conditions.get("label"))

    def shown(self, samples: Drawn) -> Uint8 | None:
        """All of them."""
        return self.picture(samples) if len(samples) else None

    def encoded(self, samples: Drawn, suffix: str) -> bytes:
        """A picture, the arrays, or a table."""
        if suffix == ".npz":
            return self.npz(samples)
        if suffix == ".csv":
            asked = None if samples.settings.get("labels") is None else samples.conditions.get("label")
            return csv_bytes(self.array(samples.data), asked)
        return encode_image(self.picture(samples), suffix, samples.settings)


def scatter(
    points: NDArray[np.float32], value_range: tuple[float, float], labels: NDArray[np.int64] | None = None
) -> Uint8:
    """A picture of `points` [n, D], RGB uint8 [H, W, 3]: the first two dimensions, each over `value_range`.

    A colour for each of ten `labels` [n], in turn. Points of one dimension become a histogram. How many lie
    outside of the range is written on the picture. Raises :class:`InputError` for other shapes, and for NaN.
    """
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise InputError(f"expected finite points [n, D] to draw, got shape {list(points.shape)} or NaN in them")
    low, high = value_range
    places = (points[:, :2].astype(np.float64) - low) / (high - low)
    inside = ((places >= 0) & (places <= 1)).all(axis=1)
    if points.shape[1] == 1:
        plot = _histogram(places[inside, 0])
    else:
        colours = _PALETTE[np.zeros(len(points), int) if labels is None else labels % len(_PALETTE)]
        plot = _cloud(places[inside], colours[inside])
    return _framed(plot, value_range, int((~inside).sum()), upwards=points.shape[1] > 1)


def _cloud(places: NDArray[np.float64], colours: Uint8) -> Uint8:
    """Disks at `places` [n, 2] in the unit square, y upwards; all at once, since there may be millions."""
    columns, rows = np.rint(places * (SIZE - 1)).astype(int).T
    weight, colour = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE, 3), np.float32)
    np.add.at(weight, (SIZE - 1 - rows, columns), 1.0)
    np.add.at(colour, (SIZE - 1 - rows, columns), colours.astype(np.float32))
    weight, colour = _over_disks(weight[..., None]), _over_disks(colour)
    cover = 1.0 - (1.0 - OPACITY) ** weight
    mean = colour / np.maximum(weight, 1e-6)
    return np.asarray(np.clip(np.rint(255.0 * (1.0 - cover) + mean * cover), 0, 255), np.uint8)


def _over_disks(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each pixel of [H, W, C] the sum over the disk around it; nothing lies outside."""
    height, width = plane.shape[:2]
    padded = np.pad(plane, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)))
    total = np.zeros_like(plane)
    for down in range(2 * RADIUS + 1):
        for right in range(2 * RADIUS + 1):
            if (down - RADIUS) ** 2 + (right - RADIUS) ** 2 <= (RADIUS + 0.5) ** 2:
                total += padded[down : down + height, right : right + width]
    return total


def _histogram(places: NDArray[np.float64]) -> Uint8:
    counts = np.histogram(places, bins=BINS, range=(0.0, 1.0))[0]
    heights = np.rint(counts * (0.95 * SIZE / max(1, counts.max()))).astype(int)
    columns = heights[np.arange(SIZE) * BINS // SIZE]
    filled = np.arange(SIZE)[::-1, None] < columns[None]
    return np.where(filled[..., None], _PALETTE[0], np.uint8(255))


def _framed(plot: Uint8, value_range: tuple[float, float], outside: int, *, upwards: bool) -> Uint8:
    """The plot with a frame, and numbers at its lower edge, and where they go `upwards` too at its left one."""
    from PIL import ImageDraw, ImageFont

    side = SIZE + 2 * MARGIN
    image = np.full((side, side, 3), 255, np.uint8)
    image[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE] = plot
    picture = to_picture(image)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    draw.rectangle((MARGIN - 1, MARGIN - 1, MARGIN + SIZE, MARGIN + SIZE), outline=_GREY)

    digits = 1 - floor(log10(value_range[1] - value_range[0]))
    for tick in range(TICKS):
        share = tick / (TICKS - 1)
        value = value_range[0] + share * (value_range[1] - value_range[0])
        text, place = f"{round(value, digits) + 0.0:g}", round(share * (SIZE - 1))
        draw.text((MARGIN + place, MARGIN + SIZE + 6), text, _GREY, font, anchor="ma")
        if upwards:
            draw.text((MARGIN - 6, MARGIN + SIZE - place), text, _GREY, font, anchor="rm")
    if outside:
        draw.text((MARGIN, MARGIN - 8), f"{outside} outside", _GREY, font, anchor="ls")
    return to_array(picture)


def csv_bytes(points: NDArray[np.float32], labels: NDArray[np.int64] | None) -> bytes:
    """A table with a header: ``x0,x1,...``, and ``label`` where there are some. Floats come back as they were."""
    header = [f"x{axis}" for axis in range(points.shape[1])] + ([] if labels is None else ["label"])
    rows = ([f"{value:.9g}" for value in point] for point in points.tolist())
    if labels is not None:
        rows = ([*row, str(label)] for row, label in zip(rows, labels.tolist(), strict=True))
    return ("\n".join(",".join(row) for row in (header, *rows)) + "\n").encode()
