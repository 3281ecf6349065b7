"""Points as files: a table of numbers, and a picture of where they lie."""

from __future__ import annotations

from math import floor, log10

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError

Uint8 = NDArray[np.uint8]

SIZE = 512
"""Pixels of a picture's plot, a side."""
MARGIN = 40
"""Pixels around it, for the numbers at its edges."""
RADIUS = 2
"""Pixels of one point's disk."""
OPACITY = 0.6
"""Of one point: where many lie on each other, it shows."""
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
    import cv2

    columns, rows = np.rint(places * (SIZE - 1)).astype(int).T
    weight, colour = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE, 3), np.float32)
    np.add.at(weight, (SIZE - 1 - rows, columns), 1.0)
    np.add.at(colour, (SIZE - 1 - rows, columns), colours.astype(np.float32))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RADIUS + 1, 2 * RADIUS + 1)).astype(np.float32)
    weight = np.asarray(cv2.filter2D(weight, -1, disk, borderType=cv2.BORDER_CONSTANT))
    colour = np.asarray(cv2.filter2D(colour, -1, disk, borderType=cv2.BORDER_CONSTANT))
    cover = (1.0 - (1.0 - OPACITY) ** np.maximum(weight, 0.0))[..., None]
    mean = colour / np.maximum(weight, 1e-6)[..., None]
    return np.asarray(np.clip(np.rint(255.0 * (1.0 - cover) + mean * cover), 0, 255), np.uint8)


def _histogram(places: NDArray[np.float64]) -> Uint8:
    counts = np.histogram(places, bins=BINS, range=(0.0, 1.0))[0]
    heights = np.rint(counts * (0.95 * SIZE / max(1, counts.max()))).astype(int)
    columns = heights[np.arange(SIZE) * BINS // SIZE]
    filled = np.arange(SIZE)[::-1, None] < columns[None]
    return np.where(filled[..., None], _PALETTE[0], np.uint8(255))


def _framed(plot: Uint8, value_range: tuple[float, float], outside: int, *, upwards: bool) -> Uint8:
    """The plot with a frame, and numbers at its lower edge, and where they go `upwards` too at its left one."""
    import cv2

    side = SIZE + 2 * MARGIN
    image = np.full((side, side, 3), 255, np.uint8)
    image[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE] = plot
    cv2.rectangle(image, (MARGIN - 1, MARGIN - 1), (MARGIN + SIZE, MARGIN + SIZE), _GREY, 1)

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _GREY, 1, cv2.LINE_AA)

    digits = 1 - floor(log10(value_range[1] - value_range[0]))
    for tick in range(TICKS):
        share = tick / (TICKS - 1)
        value = value_range[0] + share * (value_range[1] - value_range[0])
        text, place = f"{round(value, digits) + 0.0:g}", round(share * (SIZE - 1))
        write(text, MARGIN + place - 4 * len(text), MARGIN + SIZE + 16)
        if upwards:
            write(text, max(2, MARGIN - 6 - 7 * len(text)), MARGIN + SIZE - place + 4)
    if outside:
        write(f"{outside} outside", MARGIN, MARGIN - 10)
    return image


def csv_bytes(points: NDArray[np.float32], labels: NDArray[np.int64] | None) -> bytes:
    """A table with a header: ``x0,x1,...``, and ``label`` where there are some. Floats come back as they were."""
    header = [f"x{axis}" for axis in range(points.shape[1])] + ([] if labels is None else ["label"])
    rows = ([f"{value:.9g}" for value in point] for point in points.tolist())
    if labels is not None:
        rows = ([*row, str(label)] for row, label in zip(rows, labels.tolist(), strict=True))
    return ("\n".join(",".join(row) for row in (header, *rows)) + "\n").encode()
