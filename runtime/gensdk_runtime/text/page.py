"""Texts as a picture: a page of them, each with its number, for previews, notebooks and reports.

The font is the one that Pillow brings along: it knows Latin letters; others come out as empty boxes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_pixels import to_array, to_picture
from gensdk_runtime.printable import printable

MOST = 64
"""Texts of a page; more are counted."""
WIDTH = 88
"""Characters of a line."""
LINES = 6
"""Of one text; what is longer ends in an ellipsis."""
FONT_SIZE, LEADING, MARGIN = 14, 19, 16
_INK, _GREY = (25, 25, 25), (150, 150, 150)


def page_of(texts: Sequence[str]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: the first 64 of `texts`, numbered, wrapped; how many more there are stands below."""
    from PIL import ImageDraw, ImageFont

    blocks = [_wrapped(text) for text in texts[:MOST]]
    rows = sum(len(block) for block in blocks) + (1 if len(texts) > MOST else 0)
    font = ImageFont.load_default(FONT_SIZE)
    gutter = 36
    width = 2 * MARGIN + gutter + round(font.getlength("n") * WIDTH)
    picture = to_picture(np.full((2 * MARGIN + LEADING * max(1, rows), width, 3), 255, np.uint8))
    draw, top = ImageDraw.Draw(picture), MARGIN
    for number, block in enumerate(blocks):
        draw.text((MARGIN + gutter - 10, top), str(number), _GREY, font, anchor="ra")
        for line in block:
            draw.text((MARGIN + gutter, top), line, _INK, font)
            top += LEADING
    if len(texts) > MOST:
        draw.text((MARGIN + gutter, top), f"and {len(texts) - MOST} more", _GREY, font)
    return to_array(picture)


def _wrapped(text: str) -> list[str]:
    lines: list[str] = []
    for line in printable(text[: WIDTH * LINES * 2], lines=True).split("\n"):
        lines += textwrap.wrap(line, WIDTH) or [""]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], lines[LINES - 1][: WIDTH - 1] + "…"]
