"""Piano rolls as pictures: time to the right, pitch upwards, a colour for each track."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_pixels import to_array, to_picture
from gensdk_runtime.media.music.notes import Music
from gensdk_runtime.spec.pianoroll import RollFormat

Uint8 = NDArray[np.uint8]
HEIGHT, WIDTH = 4, 7
"""Pixels of a pitch and of a step."""
LEFT, TOP, GAP = 26, 16, 10
"""Pixels for the names of octaves, for those of tracks, and between pieces."""
FONT_SIZE = 10
MAX_PIXELS = 40_000_000
"""Of a picture; pieces beyond it are not in it, which it says."""
PALETTE = (0x1F77B4, 0xD62728, 0x2CA02C, 0x9467BD, 0xFF7F0E, 0x1796A0, 0x8C564B, 0xC850AA, 0x6E6E14, 0x3C3C3C)
_WHITE, _BLACK_KEY, _BEAT, _BAR, _TEXT = 255, 240, 224, 150, (70, 70, 70)
_BLACK_KEYS = (1, 3, 6, 8, 10)


def roll_picture(pieces: Sequence[Music]) -> Uint8:
    """All `pieces`, at least one and of one format but for their bars, as one picture, RGB uint8 [H, W, 3], in
    about a square.

    Lines for beats, darker ones for bars, rows of black keys in grey, and the C of each octave by its name. Each
    note has a dark edge where it begins. Tracks that sound one pitch at once share its height.
    """
    form = max((piece.format for piece in pieces), key=lambda each: each.bars)
    tiles = [_tile(piece) for piece in pieces[: _most(form)]]
    height, width = tiles[0].shape[0] + GAP, max(tile.shape[1] for tile in tiles) + GAP
    columns = min(len(tiles), max(1, ceil(sqrt(len(tiles) * height / width))))
    rows = ceil(len(tiles) / columns)
    sheet = np.full((TOP + rows * height, columns * width, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = TOP + place // columns * height, place % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return _with_names(sheet, form, len(pieces) - len(tiles))


def _most(form: RollFormat) -> int:
    return max(1, MAX_PIXELS // ((form.pitches * HEIGHT + GAP) * (LEFT + form.steps * WIDTH + GAP)))


def _tile(piece: Music) -> Uint8:
    """One piece, with the names of its octaves at the left."""
    form = piece.format
    keys = (form.lowest_pitch + np.arange(form.pitches)) % 12
    row = np.where(np.isin(keys, _BLACK_KEYS), _BLACK_KEY, _WHITE).repeat(HEIGHT)
    paper = np.broadcast_to(row[:, None, None], (len(row), form.steps * WIDTH, 3)).astype(np.uint8)
    for step in range(form.steps):
        if step % form.steps_per_beat == 0:
            paper[:, step * WIDTH] = _BAR if step % form.steps_per_bar == 0 else _BEAT
    sounding = piece.roll
    for note in piece.notes:
        at = (note.pitch - form.lowest_pitch) * HEIGHT
        for step in range(note.start, note.start + note.duration):
            beside = np.flatnonzero(sounding[:, step, note.pitch - form.lowest_pitch])
            share, place = HEIGHT / len(beside), int(np.searchsorted(beside, note.track))
            low, high = at + int(place * share), max(at + int(place * share) + 1, at + int((place + 1) * share))
            cell = paper[low:high, step * WIDTH + 1 : (step + 1) * WIDTH + 1]
            cell[:] = colour(note.track)
            if step == note.start:
                cell[:, 0] = np.array(colour(note.track)) // 2
    from PIL import ImageDraw, ImageFont

    tile = np.full((len(row), LEFT + form.steps * WIDTH, 3), 255, np.uint8)
    tile[:, LEFT:] = paper[::-1]
    picture = to_picture(tile)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for at in np.flatnonzero(keys == 0).tolist():
        octave = (form.lowest_pitch + at) // 12 - 1
        middle = len(row) - at * HEIGHT - HEIGHT // 2
        draw.text((LEFT - 4, min(max(middle, 5), len(row) - 5)), f"C{octave}", _TEXT, font, anchor="rm")
    return to_array(picture)


def _with_names(sheet: Uint8, form: RollFormat, missing: int) -> Uint8:
    """The sheet with the tracks' names in their colours, and how many pieces it does not show."""
    from PIL import ImageDraw, ImageFont

    picture = to_picture(sheet)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    left = LEFT
    for place, track in enumerate(form.tracks):
        name = track.name.encode("ascii", "replace").decode()
        draw.text((left, TOP - 4), name, colour(place), font, anchor="ls")
        left += ceil(draw.textlength(name, font)) + 10
    if missing:
        draw.text((left, TOP - 4), f"({missing} more are not shown)", _TEXT, font, anchor="ls")
    return to_array(picture)


def colour(track: int) -> tuple[int, int, int]:
    """RGB of a track, by its place."""
    code = PALETTE[track % len(PALETTE)]
    return code >> 16, code >> 8 & 0xFF, code & 0xFF
