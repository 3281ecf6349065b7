"""Pictures of sounds: the waveform above, the spectrogram below, with axes in seconds, Hz and dB."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import to_array, to_picture
from gensdk_runtime.media.sounds import Float32, level_of
from gensdk_runtime.media.spectrogram import spectrogram

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Uint8 = NDArray[np.uint8]

WIDTH = 480
"""Pixels of the time axis."""
WAVE, SPECTRUM = 96, 160
"""Pixels of the heights of waveform and spectrogram."""
LEFT, RIGHT, TOP, GAP, BOTTOM = 52, 24, 22, 14, 26
"""Pixels around and between them, for captions and numbers."""
PER_COLUMN, SHOWN = 4, 16
"""Sounds one below the other, and in all; how many more there are is written on the picture."""
QUIETEST = -80.0
"""dB of full scale that the spectrogram shows black."""
PIECE = 0.032
"""Seconds of one piece of the spectrogram, about."""
FONT_SIZE = 11

_GREY, _BLUE, _RED, _PAPER = (110, 110, 110), (0x1F, 0x77, 0xB4), (0xD6, 0x27, 0x28), (236, 236, 236)
_COLOURS = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float64)
"""From quiet to loud; ever brighter."""


def sound_picture(sounds: Sequence[Float32], sample_rate: int) -> Uint8:
    """A picture, RGB uint8 [H, W, 3], of sounds float32 [samples, channels], all on one scale of time.

    Each has its length, peak and RMS (dB of full scale) above it. Of several channels the waveforms lie over each
    other, red where they are beyond full scale, and the spectrogram is of their mean; it goes linearly from 0 Hz
    to half of the rate, from black at -80 dB to bright at 0 dB. Raises :class:`InputError` for no sounds, and
    for NaN.
    """
    from PIL import ImageDraw, ImageFont

    shown = sounds[:SHOWN]
    if not shown or not all(np.isfinite(sound).all() for sound in shown):
        raise InputError("expected sounds to draw, with finite samples, got none or NaN in them")
    longest = max(1, *(len(sound) for sound in shown))
    rows, columns = min(PER_COLUMN, len(shown)), ceil(len(shown) / PER_COLUMN)
    height, width = TOP + WAVE + GAP + SPECTRUM + BOTTOM, LEFT + WIDTH + RIGHT
    more = len(sounds) - len(shown)
    canvas = np.full((rows * height + (TOP if more else 0), columns * width, 3), 255, np.uint8)
    corners = [(i % PER_COLUMN * height, i // PER_COLUMN * width) for i in range(len(shown))]
    for sound, (top, left) in zip(shown, corners, strict=True):
        plots = canvas[top + TOP :, left + LEFT : left + LEFT + WIDTH]
        plots[:WAVE] = _wave(sound, longest)
        plots[WAVE + GAP : WAVE + GAP + SPECTRUM] = _spectrum(sound, longest, sample_rate)
    picture = to_picture(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for number, (sound, (top, left)) in enumerate(zip(shown, corners, strict=True)):
        draw.text((left + LEFT, top + TOP - 5), _caption(number, sound, sample_rate), _GREY, font, anchor="ls")
        _axes(draw, font, (top + TOP, left + LEFT), longest / sample_rate, sample_rate / 2)
    if more:
        draw.text((LEFT, rows * height + 4), f"and {more} more", _GREY, font, anchor="la")
    return to_array(picture)


def _caption(number: int, sound: Float32, sample_rate: int) -> str:
    length = f"{number}: {len(sound) / sample_rate:.3g} s"
    if not len(sound):
        return length
    level = level_of(sound, sample_rate)
    beyond = f", {level.beyond:.2%} beyond full scale" if level.beyond else ""
    return f"{length}, peak {level.peak:.1f} dB, RMS {level.rms:.1f} dB{beyond}"


def _wave(sound: Float32, longest: int) -> Uint8:
    """[WAVE, WIDTH, 3]: from the lowest to the highest sample of each column."""
    plot = np.full((WAVE, WIDTH, 3), 255, np.uint8)
    plot[WAVE // 2] = _PAPER
    edges = np.arange(WIDTH + 1) * longest // WIDTH
    for column in range(WIDTH):
        part = sound[edges[column] : max(edges[column] + 1, edges[column + 1])]
        if not part.size:
            plot[:, column:] = _PAPER
            break
        low, high = float(part.min()), float(part.max())
        first, last = (round((1 - min(1.0, max(-1.0, v))) / 2 * (WAVE - 1)) for v in (high, low))
        plot[first : last + 1, column] = _RED if max(-low, high) > 1 else _BLUE
    return plot


def _spectrum(sound: Float32, longest: int, sample_rate: int) -> Uint8:
    """[SPECTRUM, WIDTH, 3]: high frequencies on top; of several pieces in one column the loudest."""
    plot = np.full((SPECTRUM, WIDTH, 3), _PAPER, np.uint8)
    used = ceil(len(sound) * WIDTH / longest)
    if not used:
        return plot
    size = max(32, 1 << round(np.log2(PIECE * sample_rate)))
    hop = max(1, min(size // 2, longest // WIDTH))
    found = spectrogram(sound.mean(axis=1), size, hop)
    starts = np.minimum(np.arange(used) * longest // WIDTH // hop, len(found) - 1)
    loudest = np.maximum.reduceat(found, starts, axis=0)
    bins = np.rint(np.linspace(found.shape[1] - 1, 0, SPECTRUM)).astype(int)
    share = np.clip(1 - loudest[:, bins].T / QUIETEST, 0, 1) * (len(_COLOURS) - 1)
    places = np.arange(len(_COLOURS))
    colours = np.stack([np.interp(share, places, _COLOURS[:, channel]) for channel in range(3)], axis=2)
    plot[:, :used] = np.rint(colours).astype(np.uint8)
    return plot


def _axes(draw: ImageDraw, font: Any, corner: tuple[int, int], seconds: float, top_hz: float) -> None:
    """Frames and numbers of one sound, whose waveform has its upper left corner at (row, column) `corner`."""
    top, left = corner
    low = top + WAVE + GAP
    for first, tall in ((top, WAVE), (low, SPECTRUM)):
        draw.rectangle((left - 1, first - 1, left + WIDTH, first + tall), outline=_GREY)
    for text, share in (("1", 0.0), ("0", 0.5), ("-1", 1.0)):
        draw.text((left - 5, top + share * (WAVE - 1)), text, _GREY, font, anchor="rm")
    for hz in _ticks(top_hz, 4):
        text = "Hz" if hz == 0 else f"{hz:g}"
        draw.text((left - 5, low + (1 - hz / top_hz) * (SPECTRUM - 1)), text, _GREY, font, anchor="rm")
    for at in _ticks(seconds, 6):
        text = "0 s" if at == 0 else f"{at:g}"
        draw.text((left + at / seconds * WIDTH, low + SPECTRUM + 5), text, _GREY, font, anchor="ma")


def _ticks(end: float, most: int) -> list[float]:
    """Round numbers from 0 to `end`, at most about `most` steps."""
    unit = 10.0 ** floor(log10(end / most))
    step = next(unit * factor for factor in (1, 2, 5, 10) if end / (unit * factor) <= most)
    return [round(number * step, 12) for number in range(int(end / step + 1e-9) + 1)]
