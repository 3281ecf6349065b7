"""Animated images: every frame, composed, upright, with its time; whatever the format."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gensdk_runtime.media.gif import encode_gif
from gensdk_runtime.media.image_files import CorruptImageError, decode, read_header
from gensdk_runtime.media.image_frames import Frame, frame_count, frames
from support.image_bytes import exif, packed, png, png_chunk, tiff, turned

DURATIONS = [40, 100, 100, 1000]


def moving(count: int = 4, channels: int = 3) -> np.ndarray:
    """A square that moves over grey of growing brightness; the last two frames differ in a pixel."""
    images = np.empty((count, 18, 30, channels), np.uint8)
    for k in range(count):
        step = min(k, count - 2)
        images[k] = 20 + 30 * step
        images[k, 4:9, 5 + 3 * step : 10 + 3 * step] = [230, 60 * step, 10, 255][:channels]
        if channels == 4:
            images[k, ..., 3] = 255
            images[k, :, :3, 3] = 0
    images[-1, -1, -1, 0] += 9
    return images


def saved(images: np.ndarray, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    parts = [Image.fromarray(image) for image in images]
    parts[0].save(file, form, save_all=True, append_images=parts[1:], duration=DURATIONS, **options)
    return file.getvalue()


def apng(
    images: np.ndarray, *, extra: tuple[tuple[bytes, bytes], ...] = (), still: np.ndarray | None = None
) -> bytes:
    """An animated PNG by hand; with `still`, that is what viewers show that know no animation."""
    begin, chunks, number = png(images[0] if still is None else still), [], 0

    def control(image: np.ndarray, duration: int) -> bytes:
        nonlocal number
        number += 1
        return struct.pack(">IIIIIHHBB", number - 1, image.shape[1], image.shape[0], 0, 0, duration, 1000, 0, 0)

    header, rest = begin[:33], begin[33:-12]
    middle = [png_chunk(b"acTL", struct.pack(">II", len(images), 0)), *(png_chunk(*each) for each in extra)]
    if still is None:
        middle.append(png_chunk(b"fcTL", control(images[0], DURATIONS[0])))
    for k, image in enumerate(images):
        if k or still is not None:
            chunks.append(png_chunk(b"fcTL", control(image, DURATIONS[k])))
            number += 1
            chunks.append(png_chunk(b"fdAT", struct.pack(">I", number - 1) + png(image)[41:-16]))
    return header + b"".join(middle) + rest + b"".join(chunks) + begin[-12:]


def check(found: list[Frame], wanted: np.ndarray, tolerance: int = 0) -> None:
    assert [frame.duration for frame in found] == DURATIONS
    for frame, image in zip(found, wanted, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() <= tolerance


@pytest.mark.parametrize("way", ["webp", "lossy webp", "apng", "apng with a still picture"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_frame_is_given_whole_upright_and_with_its_time(way: str, orientation: int) -> None:
    images = moving()
    if way.endswith("webp"):
        data = saved(images, "WEBP", lossless=way == "webp", quality=95, exif=b"Exif\0\0" + exif(orientation))
    else:
        still = images[2] // 2 if way.endswith("picture") else None
        data = apng(images, extra=((b"eXIf", exif(orientation)),), still=still)
    wanted = np.stack([turned(image, orientation) for image in images])
    header = read_header(data)
    assert header.frames == frame_count(data) == 4
    assert (header.height, header.width) == wanted.shape[1:3]
    check(list(frames(data, 3)), wanted, tolerance=8 if way == "lossy webp" else 0)
    first = turned(images[2] // 2, orientation) if way.endswith("picture") else wanted[0]
    assert np.abs(decode(data, 3).astype(int) - first).mean() <= (8 if way == "lossy webp" else 0)


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_transparent_frames_lie_on_white(form: str) -> None:
    images = moving(channels=4)
    data = saved(images, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    wanted = images[..., :3].copy()
    wanted[images[..., 3] == 0] = 255
    assert read_header(data).alpha
    check(list(frames(data, 3)), wanted)
    assert all((frame.image[:, 0, 3] == 0).all() for frame in frames(data, 4))


def test_gifs_of_ours_come_back() -> None:
    images = moving()
    data = encode_gif(images, fps=12.5)
    found = list(frames(data, 3))
    assert read_header(data).frames == frame_count(data) == len(found) == 4
    assert [frame.duration for frame in found] == [80] * 4
    for frame, image in zip(found, images, strict=True):
        assert np.array_equal(frame.image, image)
    grey = encode_gif(images[..., :1], fps=10)
    assert read_header(grey).grey
    assert all(np.array_equal(f.image, image[..., :1]) for f, image in zip(frames(grey, 1), images, strict=True))


def test_gifs_that_store_what_changed_are_put_together() -> None:
    """A second frame of 6x5 pixels at (7, 3), with a colour that lets the first one through."""
    base = np.full((12, 20, 3), (0, 0, 255), np.uint8)
    gif = encode_gif(np.stack([base, base]), fps=10)
    second = gif.rindex(b"\x21\xf9")
    patch = np.full((5, 6, 3), (200, 10, 10), np.uint8)
    patch[0, 0] = (0, 255, 0)
    part = encode_gif(patch[None], fps=10)
    at = part.index(b"\x2c")
    flags = part[at + 9]  # a palette of its own, and the logarithm of its size
    palette = np.frombuffer(part, np.uint8, 3 << (flags & 7) + 1, at + 10).reshape(-1, 3)
    clear = int(np.flatnonzero((palette == (0, 255, 0)).all(axis=1))[0])
    control = b"\x21\xf9" + struct.pack("<BBHBB", 4, 5, 25, clear, 0)
    place = b"\x2c" + struct.pack("<HHHHB", 7, 3, 6, 5, flags)
    found = list(frames(gif[:second] + control + place + part[at + 10 :], 3))
    wanted = base.copy()
    wanted[3:8, 7:13] = (200, 10, 10)
    wanted[3, 7] = (0, 0, 255)
    assert [frame.duration for frame in found] == [100, 250]
    assert np.array_equal(found[0].image, base)
    assert np.array_equal(found[1].image, wanted)


def test_a_frame_that_sticks_out_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    gif = bytearray(encode_gif(moving(2), fps=10))
    at = gif.rindex(b"\x2c")
    gif[at + 1 : at + 9] = struct.pack("<HHHH", 60000, 60000, 5000, 5000)
    with pytest.raises(CorruptImageError, match="makes it 65000x65000"):
        list(frames(bytes(gif), 3))


@pytest.mark.parametrize("data", [png(moving(2)[0]), tiff(moving(2)[0], pages=3)])
def test_still_pictures_have_one_frame(data: bytes) -> None:
    """Pages of a TIFF are no animation; the header says that there are more."""
    (only,) = frames(data, 3)
    assert frame_count(data) == 1
    assert np.array_equal(only.image, moving(2)[0])
    assert only.duration == 0


def animated(pictures: list[np.ndarray], bits: int, clear: int) -> bytes:
    """Pictures in grey [H, W, 1] as an animated PNG, in which `clear` is transparent."""
    height, width, _ = pictures[0].shape
    control = struct.pack(">IIIIHHBB", width, height, 0, 0, 1, 25, 0, 0)
    later = []
    for number, picture in enumerate(pictures[1:]):
        lines = zlib.compress(b"".join(b"\0" + packed(line, bits) for line in picture))
        later.append((b"fcTL", struct.pack(">I", 2 * number + 1) + control))
        later.append((b"fdAT", struct.pack(">I", 2 * number + 2) + lines))
    first = ((b"acTL", struct.pack(">II", len(pictures), 0)), (b"tRNS", struct.pack(">H", clear)))
    before = (*first, (b"fcTL", struct.pack(">I", 0) + control))
    return png(pictures[0], bits=bits, before=before, after=tuple(later))


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_frames_of_any_depth_have_the_greys_of_still_pictures(bits: int) -> None:
    white = 2**bits - 1
    ramp = np.linspace(0, white, 12).astype(np.int64).reshape(3, 4, 1)
    clear = int(ramp[1, 1, 0])
    pictures = [ramp, ramp[::-1]]
    found = [frame.image for frame in frames(animated(pictures, bits, clear), 4)]
    for picture, image in zip(pictures, found, strict=True):
        grey = (picture >> 8 if bits == 16 else picture * 255 // white).astype(np.uint8)
        alpha = np.where(picture == clear, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(image, np.concatenate([grey, grey, grey, alpha], axis=2))
