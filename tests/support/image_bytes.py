"""Image files made by hand from the standards, so that what is in them does not depend on any decoder."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's, by the number of channels."""


def settings_in(path: Path) -> dict[str, Any]:
    """The settings that a PNG carries, as any reader of PNG finds them."""
    with Image.open(path) as image:
        found: dict[str, Any] = json.loads(image.text["gensdk"])  # type: ignore[attr-defined]
    return found


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: np.ndarray,
    *,
    bits: int = 8,
    palette: np.ndarray | None = None,
    before: tuple[tuple[bytes, bytes], ...] = (),
    after: tuple[tuple[bytes, bytes], ...] = (),
    interlaced: bool = False,
    rows: int | None = None,
) -> bytes:
    """A PNG of `samples` [H, W, C], each of `bits`; with `palette` [n, 3] they are its numbers.

    `before` and `after`: further chunks before and behind the pixels. `rows`: how many are written, all if None.
    """
    height, width, channels = samples.shape
    kind = 3 if palette is not None else COLOUR_TYPES[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    parts = [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header)]
    if palette is not None:
        parts.append(png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    parts += [png_chunk(*chunk) for chunk in before]
    passes = [samples[:rows]]
    if interlaced:
        starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        passes = [samples[top::down, left::right] for left, top, right, down in starts]
    lines = b"".join(b"\0" + packed(line, bits) for part in passes if part.size for line in part)
    parts.append(png_chunk(b"IDAT", zlib.compress(lines)))
    parts += [png_chunk(*chunk) for chunk in after]
    return b"".join((*parts, png_chunk(b"IEND", b"")))


def packed(line: np.ndarray, bits: int) -> bytes:
    """Samples of a row [W, C], big end first, filled up to whole bytes."""
    values = line.reshape(-1)
    if bits == 16:
        return values.astype(">u2").tobytes()
    if bits == 8:
        return values.astype(np.uint8).tobytes()
    digits = (values[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.astype(np.uint8)).tobytes()


def exif(orientation: int) -> bytes:
    """The body of a PNG's eXIf chunk, or what follows ``Exif`` in a JPEG."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """How a picture [H, W, C] that is stored as it is has to be shown (EXIF 2.3, tag 274)."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a[::-1].transpose(1, 0, 2),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }[orientation](image)


def tiff(
    samples: np.ndarray,
    *,
    order: str = "<",
    bits: int | None = None,
    photometric: int | None = None,
    orientation: int = 1,
    extra: dict[int, tuple[int, list[int]]] | None = None,
    pages: int = 1,
    strip_rows: int | None = None,
) -> bytes:
    """An uncompressed TIFF 6.0 of `samples` [H, W, C], in the byte order `order`; `extra`: tag to (type, values).

    Alpha, where there are 2 or 4 channels, is unassociated. Signed and floating samples are told as such.
    """
    height, width, channels = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    rows = strip_rows or height
    strips = []
    for top in range(0, height, rows):
        part = samples[top : top + rows]
        if bits in (1, 2, 4, 12):
            strips.append(b"".join(packed(line.astype(np.int64), bits) for line in part))
        else:
            strips.append(part.astype(part.dtype.newbyteorder(order)).tobytes())
    body = b"".join(strips)
    offsets = list(np.cumsum([8, *map(len, strips)])[:-1])
    tags: dict[int, tuple[int, list[int]]] = {
        256: (3, [width]),
        257: (3, [height]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [photometric if photometric is not None else (2 if channels >= 3 else 1)]),
        273: (4, offsets),
        274: (3, [orientation]),
        277: (3, [channels]),
        278: (3, [rows]),
        279: (4, [len(strip) for strip in strips]),
    }
    if channels in (2, 4) and photometric != 5:
        tags[338] = (3, [2])
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    if kind != 1:
        tags[339] = (3, [kind] * channels)
    tags |= extra or {}
    first = 8 + len(body)
    out = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, first) + body
    for page in range(pages):
        values, entries = b"", b""
        at = len(out) + 2 + 12 * len(tags) + 4
        for tag, (type_, numbers) in sorted(tags.items()):
            form = {3: "H", 4: "I", 11: "f", 12: "d"}[type_]
            raw = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
            entries += struct.pack(f"{order}HHI", tag, type_, len(numbers))
            if len(raw) <= 4:
                entries += raw.ljust(4, b"\0")
            else:
                entries += struct.pack(f"{order}I", at + len(values))
                values += raw + b"\0" * (len(raw) % 2)
        following = at + len(values) if page + 1 < pages else 0
        out += struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + values
    return out
