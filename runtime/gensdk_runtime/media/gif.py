"""Animated GIFs, each frame with its own palette: exact where a frame has at most 256 colours, as grey ones do.

Pillow writes GIFs too, but merges equal frames that follow each other, so that their number changes.
The format is that of the GIF89a specification (CompuServe 1990).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.images import Uint8

MAX_SIDE = 65535
COLOURS = 256
_CLEAR, _END, _FIRST, _LAST = 256, 257, 258, 4095
"""LZW's codes: clear the table, end, and the range of those that it fills."""


def encode_gif(frames: Uint8, *, fps: float) -> bytes:
    """A GIF that plays for ever, of `frames` [n, H, W, C] in grey (C = 1) or RGB (C = 3).

    Frames last whole hundredths of a second, and at least two, since viewers slow down what is faster.
    """
    height, width = frames.shape[1:3]
    delay = max(2, round(100.0 / fps))
    parts = [b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0)]
    parts.append(b"\x21\xff\x0bNETSCAPE2.0" + struct.pack("<BBHB", 3, 1, 0, 0))
    for frame in frames:
        palette, indices = _palette(frame)
        parts.append(b"\x21\xf9" + struct.pack("<BBHBB", 4, 4, delay, 0, 0))
        parts.append(b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0x87) + palette.tobytes())
        parts.append(b"\x08" + b"".join(_blocks(_lzw(indices.tobytes()))) + b"\x00")
    return b"".join((*parts, b"\x3b"))


def _palette(frame: Uint8) -> tuple[Uint8, Uint8]:
    """256 colours [256, 3], and for each pixel of `frame` [H, W, C] the number of its own [H, W]."""
    if frame.shape[2] == 1:
        return np.arange(COLOURS, dtype=np.uint8).repeat(3).reshape(-1, 3), frame[:, :, 0]
    pixels = frame.reshape(-1, 3).astype(np.uint32)
    colours, places = np.unique(pixels @ np.array([65536, 256, 1], np.uint32), return_inverse=True)
    table = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.float64)
    numbers = np.arange(len(table))
    if len(table) > COLOURS:
        numbers = _median_cut(table, np.bincount(places))
        weights = np.bincount(places).astype(np.float64)
        sums = np.stack([np.bincount(numbers, weights * table[:, channel]) for channel in range(3)], axis=1)
        table = np.rint(sums / np.bincount(numbers, weights)[:, None])
    palette = np.zeros((COLOURS, 3), np.uint8)
    palette[: len(table)] = table
    return palette, numbers[places].astype(np.uint8).reshape(frame.shape[:2])


def _median_cut(table: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """The box of each colour [N, 3]: the one with the widest side is cut at its median until there are 256.

    Heckbert (1982), "Color Image Quantization for Frame Buffer Display".
    """
    boxes = [np.arange(len(table))]
    sides = [float(np.ptp(table, axis=0).max())]
    while len(boxes) < COLOURS:
        widest = int(np.argmax(sides))
        box = boxes[widest]
        channel = int(np.argmax(np.ptp(table[box], axis=0)))
        box = box[np.argsort(table[box, channel], kind="stable")]
        weight = np.cumsum(counts[box])
        middle = int(np.clip(np.searchsorted(weight, weight[-1] / 2), 1, len(box) - 1))
        boxes[widest] = box[:middle]
        boxes.append(box[middle:])
        sides[widest] = float(np.ptp(table[boxes[widest]], axis=0).max())
        sides.append(float(np.ptp(table[boxes[-1]], axis=0).max()))
    numbers = np.empty(len(table), np.intp)
    for number, box in enumerate(boxes):
        numbers[box] = number
    return numbers


def _lzw(pixels: bytes) -> bytes:
    """GIF's LZW (specification, appendix F) of 8-bit pixels: codes of 9 to 12 bits, the lowest bit first."""
    out = bytearray()
    held, bits, width = _CLEAR, 9, 9
    table: dict[int, int] = {}
    following = _FIRST
    prefix = pixels[0]
    for pixel in pixels[1:]:
        key = prefix << 8 | pixel
        known = table.get(key)
        if known is not None:
            prefix = known
            continue
        held |= prefix << bits
        bits += width
        table[key] = following
        width += following == 1 << width
        following += 1
        if following > _LAST:
            held |= _CLEAR << bits
            bits += width
            table, following, width = {}, _FIRST, 9
        out += (held & (1 << (bits & ~7)) - 1).to_bytes(bits >> 3, "little")
        held, bits = held >> (bits & ~7), bits & 7
        prefix = pixel
    held |= prefix << bits
    bits += width
    width += following == 1 << width  # the reader's table is one behind
    held |= _END << bits
    bits += width
    return bytes(out + held.to_bytes((bits + 7) // 8, "little"))


def _blocks(data: bytes) -> Iterator[bytes]:
    """`data` in blocks of up to 255 bytes, each behind its length."""
    for first in range(0, len(data), 255):
        block = data[first : first + 255]
        yield bytes([len(block)]) + block
