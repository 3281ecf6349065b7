"""Image files that are cut, damaged or made to harm: one exception, little memory, nothing filled up."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import MAX_PIXELS, CorruptImageError, check_pixels, decode, read_header
from gensdk_runtime.media.image_frames import frames
from support.image_bytes import exif, png, png_chunk, tiff

NOISE = np.random.default_rng(8).integers(1, 256, (24, 40, 3)).astype(np.uint8)


def by_pillow(image: np.ndarray, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(image)
    (picture.quantize(64) if form == "GIF" else picture).save(file, form, **options)
    return file.getvalue()


def animated(form: str) -> bytes:
    file = io.BytesIO()
    parts = [Image.fromarray(np.roll(NOISE, 3 * k, axis=1)) for k in range(3)]
    parts[0].save(file, form, save_all=True, append_images=parts[1:], duration=50)
    return file.getvalue()


WHOLE = {
    "png": png(NOISE),
    "interlaced png": png(NOISE, interlaced=True),
    "jpeg": by_pillow(NOISE, "JPEG"),
    "progressive jpeg": by_pillow(NOISE, "JPEG", progressive=True),
    "grey jpeg": by_pillow(NOISE[..., 0], "JPEG"),
    "bmp": by_pillow(NOISE, "BMP"),
    "webp": by_pillow(NOISE, "WEBP"),
    "lossless webp": by_pillow(NOISE, "WEBP", lossless=True),
    "tiff": tiff(NOISE, strip_rows=5),
    "big-endian tiff": tiff(NOISE, order=">"),
    "lzw tiff": by_pillow(NOISE, "TIFF", compression="tiff_lzw"),
    "deflate tiff": by_pillow(NOISE, "TIFF", compression="tiff_adobe_deflate"),
    "jpeg tiff": by_pillow(NOISE, "TIFF", compression="jpeg"),
    "gif": by_pillow(NOISE, "GIF"),
}
ANIMATED = {form: animated(form) for form in ("GIF", "WEBP", "PNG")}
ENDS = {"gif": 2, "tiff": 20, "png": 4, "interlaced png": 4}
"""Bytes behind the last pixel, whose loss costs nothing: the end of a table, the check of an empty chunk."""


@pytest.mark.parametrize("name", WHOLE)
def test_no_cut_file_passes_as_whole(name: str) -> None:
    data = WHOLE[name]
    assert decode(data, 3).shape == (*NOISE.shape[:2], 3)
    for keep in range(len(data) - ENDS.get(name, 0)):
        with pytest.raises(CorruptImageError):
            decode(data[:keep], 3)


@pytest.mark.parametrize("name", WHOLE)
def test_an_application_that_fills_cut_files_up_does_not_change_that(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = WHOLE[name]
    assert decode(data, 3).shape == (*NOISE.shape[:2], 3)
    for keep in range(8, len(data) - 8, max(1, len(data) // 50)):
        with pytest.raises(CorruptImageError):
            decode(data[:keep], 3)


def test_an_application_with_another_limit_of_pixels_does_not_change_what_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("png", "jpeg", "bmp"):
        assert decode(WHOLE[name], 3).shape == (*NOISE.shape[:2], 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(CorruptImageError, match="30000x30000 is not a size that is read"):
        decode(huge_png(), 3)


def huge_png(side: int = 30000) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_size(name: str, height: int, width: int) -> bytes:
    """A whole file whose header claims another size."""
    data = bytearray(WHOLE[name])
    if name == "jpeg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif name == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif name == "tiff":
        for tag, value in ((256, width), (257, height)):
            at = data.index(struct.pack("<HHI", tag, 3, 1))
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
    elif name == "gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif name == "webp":
        at = data.index(b"\x9d\x01\x2a") + 3
        data[at : at + 4] = struct.pack("<HH", width, height)
    else:
        return huge_png(height)
    return bytes(data)


@pytest.mark.parametrize("name", ["png", "jpeg", "bmp", "tiff", "gif", "webp"])
def test_huge_sizes_are_refused_before_memory_is_taken(name: str) -> None:
    side = 16000 if name == "webp" else 30000
    data = with_size(name, side, side)
    with pytest.raises(CorruptImageError):
        decode(data, 3)
    if name != "webp":  # whose bytes are compared with the size first
        header = read_header(data)
        assert (header.height, header.width) == (side, side)
        with pytest.raises(InputError, match=rf"x.img: {side}x{side} is more than {MAX_PIXELS} pixels"):
            check_pixels(header, "x.img")


def test_a_header_that_two_parsers_read_differently() -> None:
    """FF 01 is a marker without a length: a parser that skips one sees the first size, libjpeg the second."""
    data = with_size("jpeg", 30000, 30000)
    small = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 8, 8, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    for marker in (
        b"\xff\x01",
        b"\xff\xd0",
        b"\xff\xf0",
        b"\xff\x02",
        b"\xff\xd9",
        b"\xff\xd8",
        b"\xff\xde",
        b"\xff\xff",
    ):
        for hidden in (small, struct.pack(">H", len(small) + 2) + small):
            with pytest.raises(CorruptImageError):
                decode(data[:2] + marker + hidden + data[2:], 3)
            with pytest.raises(CorruptImageError):
                decode(WHOLE["jpeg"][:2] + hidden + data[2:], 3)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restarts"])
def test_a_cut_jpeg_with_an_end_set_behind_is_not_filled_with_grey(kind: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    options = {"progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 2}}.get(kind, {})
    data = by_pillow(image[..., 0] if kind == "grey" else image, "JPEG", quality=80, **options)
    begin = data.index(b"\xff\xda")
    end = data.index(b"\xff\xc4", begin) if kind == "progressive" else len(data)  # of the first scan
    for share in (0.2, 0.4, 0.6):
        keep = begin + int(share * (end - begin))
        with pytest.raises(CorruptImageError, match="lower part is missing"):
            decode(data[:keep] + b"\xff\xd9", 3)
        with pytest.raises(CorruptImageError):
            decode(data[:keep] + b"\xff\xd9ftypmp42" + bytes(1000), 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_that_ends_in_that_grey_is_whole(options: dict[str, object], channels: int) -> None:
    image = np.full((200, 120, 3), 128, np.uint8)
    image[:70] = np.random.default_rng(1).integers(0, 256, (70, 120, 3))
    for part in (image, image[71:], image[:120]):
        data = by_pillow(part[..., 0] if channels == 1 else part, "JPEG", **options)
        assert (decode(data, channels)[-1] == 128).all()


def test_rows_that_are_missing_are_not_black() -> None:
    for interlaced in (False, True):
        whole = png(NOISE, interlaced=interlaced)
        assert np.array_equal(decode(whole, 3), NOISE)
    black = np.zeros_like(NOISE)
    for rows in (0, 1, 23):
        for image in (NOISE, black, NOISE[..., :1]):
            with pytest.raises(CorruptImageError, match=r"rows are missing|can't be decoded"):
                decode(png(image, rows=rows), 3)
    for bits in (1, 8, 16):
        assert not decode(png(black[..., :1], bits=bits), 1).any()
    assert not decode(png(black, interlaced=True), 3).any()
    taller = with_size("tiff", 30, 40)
    with pytest.raises(CorruptImageError, match="parts of the picture are missing"):
        decode(taller, 3)


def test_scans_without_end_are_refused() -> None:
    """Each costs a pass over the whole picture, and takes a few bytes."""
    data = WHOLE["progressive jpeg"]
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(CorruptImageError, match="so many scans"):
        decode(data[:-2] + last * 300 + b"\xff\xd9", 3)


def test_tiffs_of_huge_tiles_and_odd_codes_are_refused() -> None:
    tile = {322: (4, [1 << 20]), 323: (4, [1 << 20]), 324: (4, [8]), 325: (4, [100])}
    with pytest.raises(CorruptImageError, match="not a size that is read"):
        decode(tiff(NOISE, extra=tile), 3)
    with pytest.raises(CorruptImageError, match="compressed as group4 is not read; save it as PNG"):
        decode(by_pillow(NOISE[..., 0] > 128, "TIFF", compression="group4"), 3)


def test_odd_metadata_is_no_damage_whatever_the_application_makes_of_warnings() -> None:
    data = tiff(NOISE, extra={33432: (3, [1] * 8)})
    at = data.index(struct.pack("<HHI", 33432, 3, 8))
    odd = data[: at + 4] + struct.pack("<II", 1 << 20, 8) + data[at + 12 :]
    before = list(warnings.filters)
    assert np.array_equal(decode(odd, 3), NOISE)  # the suite makes errors of warnings
    assert read_header(odd).height == 24
    assert list(warnings.filters) == before
    looped = png(NOISE, before=((b"acTL", struct.pack(">II", 0, 0)),))
    assert np.array_equal(decode(looped, 3), NOISE)


@pytest.mark.parametrize("form", ANIMATED)
def test_cut_animations_end_with_an_error(form: str) -> None:
    data = ANIMATED[form]
    whole = [frame.image for frame in frames(data, 3)]
    assert len(whole) == 3
    for keep in range(0, len(data) - 16, max(1, len(data) // 60)):
        found: list[np.ndarray] = []
        with pytest.raises(CorruptImageError):
            found.extend(frame.image for frame in frames(data[:keep], 3))
        assert all(np.array_equal(one, other) for one, other in zip(found, whole, strict=False))


@pytest.mark.parametrize("rows", [None, 5])
def test_a_header_that_comes_late_hides_no_missing_rows(rows: int | None) -> None:
    data = png(NOISE, rows=rows)
    late = data[:8] + png_chunk(b"tEXt", b"a\0b") + data[8:]
    with pytest.raises(CorruptImageError, match="does not begin with its header"):
        decode(late, 3)


def test_too_many_frames_are_refused_before_the_first() -> None:
    count = struct.pack(">II", 1 << 30, 0)
    control = struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 25, 0, 0)
    data = png(NOISE, before=((b"acTL", count), (b"fcTL", control)))
    with pytest.raises(CorruptImageError, match="over 10000 frames of 40x24 are more than is read"):
        next(frames(data, 3))


CHILD = """
import random, resource, sys, time
from pathlib import Path
from gensdk_runtime.media.image_files import CorruptImageError, decode, read_header
from gensdk_runtime.media.image_frames import frames

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
seeds = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
draw, tried, good = random.Random(int(sys.argv[2])), 0, 0
end = time.monotonic() + 3
while time.monotonic() < end:
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(min(len(data), draw.choice([40, 300, 1 << 30])))
        way = draw.random()
        if way < 0.7:
            data[at] = draw.choice([0, 1, 0xFF, 0x7F, draw.randrange(256)])
        elif way < 0.8:
            del data[at : at + draw.choice([1, 4, 60])]
        else:
            data[at : at + 4] = draw.choice([b"\\xff" * 4, b"\\x7f\\xff\\xff\\xff", bytes(4)])
        data = data or bytearray(1)
    for work in (read_header, lambda d: decode(d, 3), lambda d: [frame for frame in frames(d, 3)]):
        try:
            work(bytes(data))
            good += 1
        except CorruptImageError:
            pass
    tried += 1
status = Path("/proc/self/status")
if status.exists():  # ru_maxrss begins with the size of the process that forked this one
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (10 if sys.platform == "darwin" else 0)
print(tried, good, peak >> 10)
"""


@pytest.mark.parametrize("seed", range(2))
def test_damaged_bytes_raise_nothing_else_and_take_little_memory(seed: int, tmp_path: Path) -> None:
    for number, data in enumerate((*WHOLE.values(), *ANIMATED.values(), png(NOISE, before=((b"eXIf", exif(6)),)))):
        (tmp_path / f"{number:02}").write_bytes(data)
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(seed)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    tried, good, mebibytes = map(int, ran.stdout.split())
    assert tried > 20
    assert good > 20
    assert mebibytes < 2000  # a picture of the most pixels, in four channels, and what is made of it
