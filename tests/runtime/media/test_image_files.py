"""Image files by their values: formats, samples, orientation and transparency, from bytes made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gensdk_runtime.media.image_files import (
    CorruptImageError,
    Header,
    decode,
    file_header,
    read_header,
)
from gensdk_runtime.media.image_pixels import to_channels
from gensdk_runtime.media.image_reader import UnclearDepthError
from gensdk_runtime.media.images import SUFFIXES, encode_image
from support.image_bytes import exif, packed, png, png_chunk, tiff, turned

RNG = np.random.default_rng(3)
PNG_KINDS = [(bits, 1) for bits in (1, 2, 4, 8, 16)] + [(bits, c) for bits in (8, 16) for c in (2, 3, 4)]


def picture(height: int, width: int, channels: int, top: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (height, width, channels)).astype(np.uint16)


def eight(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of so many bits as 0 to 255: the standard's scaling, and the upper byte of 16."""
    return (samples >> 8 if bits == 16 else samples * (255 // (2**bits - 1))).astype(np.uint8)


def shown(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H, W, 1 to 4] with other channels, by the formulas: over white, and BT.601 rounded."""
    values = image.astype(np.float64)
    colour, alpha = (values[..., :-1], values[..., -1:]) if image.shape[2] in (2, 4) else (values, None)
    if channels == 4:
        full = np.full_like(values[..., :1], 255) if alpha is None else alpha
        return np.concatenate([np.broadcast_to(colour, (*image.shape[:2], 3)), full], axis=2).astype(np.uint8)
    if alpha is not None:
        colour = np.rint((colour * alpha + 255 * (255 - alpha)) / 255)
    if channels == 3:
        return np.broadcast_to(colour, (*image.shape[:2], 3)).astype(np.uint8)
    return np.rint(colour @ [0.299, 0.587, 0.114])[..., None].astype(np.uint8) if colour.shape[2] == 3 else colour


def alike(found: np.ndarray, wanted: np.ndarray, channels: int) -> bool:
    """Equal, but for the rounding of grey."""
    return bool((np.abs(found.astype(int) - wanted.astype(int)) <= (channels == 1)).all())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(PNG_KINDS),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    orientation=st.integers(1, 8),
    behind=st.booleans(),
    interlaced=st.booleans(),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 1000),
)
def test_any_png_is_what_was_put_into_it(
    kind: tuple[int, int],
    size: tuple[int, int],
    orientation: int,
    behind: bool,
    interlaced: bool,
    channels: int,
    seed: int,
) -> None:
    bits, samples = kind
    stored = picture(*size, samples, 2**bits, seed)
    stored[0, 0] = 2**bits - 1  # so that no depth is in doubt
    turn = ((b"eXIf", exif(orientation)),)
    data = png(
        stored, bits=bits, interlaced=interlaced, before=() if behind else turn, after=turn if behind else ()
    )
    wanted = turned(eight(stored, bits), orientation)
    assert read_header(data) == Header(*wanted.shape[:2], grey=samples < 3, alpha=samples in (2, 4))
    found = decode(data, channels)
    assert found.shape == (*wanted.shape[:2], channels)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert alike(found, shown(wanted, channels), channels)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    bits=st.sampled_from([1, 2, 4, 8]),
    alphas=st.lists(st.integers(0, 255), max_size=16),
    orientation=st.sampled_from([1, 6]),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 1000),
)
def test_a_palette_with_transparency_lies_on_white(
    bits: int, alphas: list[int], orientation: int, channels: int, seed: int
) -> None:
    numbers = picture(5, 9, 1, 2**bits, seed)
    palette = picture(2**bits, 3, 1, 256, seed + 1)[..., 0].astype(np.uint8)
    alphas = alphas[: 2**bits]
    before = ((b"tRNS", bytes(alphas)),) if alphas else ()
    data = png(numbers, bits=bits, palette=palette, before=(*before, (b"eXIf", exif(orientation))))
    alpha = np.array([*alphas, *[255] * (2**bits - len(alphas))], np.uint8)
    image = np.concatenate([palette, alpha[:, None]], axis=1)[numbers[..., 0]]
    wanted = turned(image, orientation)
    assert read_header(data).alpha == bool(alphas)
    assert alike(decode(data, channels), shown(wanted, channels), channels)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from([(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 1000),
)
def test_the_one_transparent_colour_of_a_png_lies_on_white(
    kind: tuple[int, int], channels: int, seed: int
) -> None:
    bits, samples = kind
    stored = picture(6, 7, samples, 2**bits, seed)
    stored[0, 0] = 2**bits - 1
    clear = stored[3, 4]
    if bits == 16:  # its neighbour, in the lower byte alone, is not transparent
        stored[2, 2] = clear ^ 1
    data = png(stored, bits=bits, before=((b"tRNS", clear.astype(">u2").tobytes()),))
    alpha = np.where((stored == clear).all(axis=2, keepdims=True), 0, 255).astype(np.uint8)
    wanted = np.concatenate([eight(stored, bits), alpha], axis=2)
    assert read_header(data).alpha
    assert alike(decode(data, channels), shown(wanted, channels), channels)
    assert (decode(data, 3)[3, 4] == 255).all()


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_fewer_bits_in_samples_of_16_are_scaled_as_the_file_declares(samples: int, bits: int) -> None:
    colours = samples - (samples in (2, 4))
    stored = picture(5, 5, samples, 2**bits)
    stored[0, 0], stored[0, 1] = 0, 2**bits - 1
    if samples != colours:
        stored[..., -1] = 65535
    says = ((b"sBIT", bytes([bits] * samples)),)
    wanted = np.rint(stored[..., :colours] * (255 / (2**bits - 1)))
    left = decode(png(stored, bits=16, before=says), 1 if colours == 1 else 3)
    assert np.abs(left - wanted).max() <= 1
    assert (left[0, 0], left[0, 1]) == (0, 255) if colours == 1 else (left[0, 1] == 255).all()
    spread = stored.copy()  # as the standard wants them: at the upper end, the lower filled with their first bits
    spread[..., :colours] = stored[..., :colours] << 16 - bits | stored[..., :colours] >> 2 * bits - 16
    right = decode(png(spread, bits=16, before=says), 1 if colours == 1 else 3)
    assert np.abs(right - wanted).max() <= 1


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize(("largest", "bits"), [(4095, 12), (1023, 10), (16383, 14), (300, 9), (255, 8)])
def test_fewer_bits_of_which_the_file_says_nothing_are_asked_for(samples: int, largest: int, bits: int) -> None:
    stored = picture(5, 5, samples, largest + 1)
    stored[0, 0], stored[0, 1] = 0, largest
    if samples in (2, 4):
        stored[..., -1] = 65535
    data = png(stored, bits=16)
    with pytest.raises(UnclearDepthError, match=f"end at {largest}, as those of {bits} bits do") as caught:
        decode(data, 3)
    assert caught.value.largest == largest
    found = decode(data, 3, depth=bits)
    assert not found[0, 0].any()
    assert np.abs(found[0, 1] - 255 * largest / (2**bits - 1)).max() <= 1
    assert (decode(data, 3, depth=16) == shown(eight(stored, 16), 3)).all()
    with pytest.raises(CorruptImageError, match=f"reach {largest}, which is more than 7 bits hold"):
        decode(data, 3, depth=7)


def test_dark_pictures_that_came_from_eight_bits_and_black_ones_are_not_in_doubt() -> None:
    dark = picture(5, 5, 3, 12)
    assert (decode(png(dark * 257, bits=16), 3) == dark).all()
    assert not decode(png(dark * 0, bits=16), 3).any()
    assert not decode(png(dark[..., :1] * 0, bits=16), 1).any()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    order=st.sampled_from("<>"),
    kind=st.sampled_from([(8, 1), (8, 2), (8, 3), (8, 4), (16, 1), (16, 3), (16, 4), (1, 1), (4, 1)]),
    orientation=st.integers(1, 8),
    channels=st.sampled_from([1, 3, 4]),
    strip_rows=st.sampled_from([None, 1, 2]),
    seed=st.integers(0, 1000),
)
def test_any_tiff_is_what_was_put_into_it(
    order: str, kind: tuple[int, int], orientation: int, channels: int, strip_rows: int | None, seed: int
) -> None:
    bits, samples = kind
    stored = picture(5, 8, samples, 2**bits, seed)
    stored[0, 0] = 2**bits - 1
    stored = stored if bits == 16 else stored.astype(np.uint8)
    data = tiff(stored, order=order, bits=bits, orientation=orientation, strip_rows=strip_rows)
    wanted = turned(eight(stored, bits), orientation)
    assert read_header(data) == Header(*wanted.shape[:2], grey=samples < 3, alpha=samples in (2, 4))
    assert alike(decode(data, channels), shown(wanted, channels), channels)


def test_tiffs_of_other_depths_are_scaled_by_what_they_declare() -> None:
    twelve = picture(4, 6, 1, 4096)
    twelve[0, 0] = 4095
    wanted = np.rint(twelve * (255 / 4095))
    assert np.abs(decode(tiff(twelve, bits=12), 1) - wanted).max() <= 1
    with pytest.raises(UnclearDepthError):
        decode(tiff(twelve), 1)
    assert np.abs(decode(tiff(twelve, extra={281: (3, [4095])}), 1) - wanted).max() <= 1
    floats = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6, 1)
    for order in "<>":
        assert np.array_equal(decode(tiff(floats, order=order), 1), np.rint(floats * 255))
    wide = floats * 200 - 100
    with pytest.raises(CorruptImageError, match="floats from -100 to 100, expected 0 to 1; scale them"):
        decode(tiff(wide), 1)
    bounds = {340: (11, [-100.0]), 341: (11, [100.0])}
    assert np.abs(decode(tiff(wide, extra=bounds), 1) - np.rint(floats * 255)).max() <= 1
    floats[1, 1] = np.nan
    with pytest.raises(CorruptImageError, match="floats from nan"):
        decode(tiff(floats), 1)
    for odd in (twelve.astype(np.int16), twelve.astype(np.uint32)):
        with pytest.raises(CorruptImageError, match="samples of kind I are not read"):
            decode(tiff(odd), 1)


def test_white_may_be_zero_and_pages_are_counted() -> None:
    grey = picture(3, 4, 1).astype(np.uint8)
    assert np.array_equal(decode(tiff(grey, photometric=0), 1), 255 - grey)
    several = tiff(grey, pages=3)
    assert read_header(several).frames == 2  # more than one
    assert np.array_equal(decode(several, 1), grey)


def test_inks_become_colours() -> None:
    inks = picture(4, 5, 4).astype(np.uint8)
    share = inks.astype(np.float64) / 255
    wanted = np.rint(255 * (1 - share[..., :3]) * (1 - share[..., 3:]))
    assert np.abs(decode(tiff(inks, photometric=5), 3) - wanted).max() <= 1


@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_of_inks_are_adobes_which_are_inverted(progressive: bool) -> None:
    """Pillow writes them as Adobe does, 255 for no ink; a flat colour survives JPEG."""
    file = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(file, "JPEG", quality=95, progressive=progressive)
    assert np.abs(decode(file.getvalue(), 3).astype(int) - [255, 0, 0]).max() <= 3


def jpeg(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **{"quality": 95, "subsampling": 0, **options})
    return file.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """What survives JPEG within a few levels."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3, columns * 2, 90 + rows + columns], axis=2).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("way", ["jpeg", "webp", "webp with alpha"])
def test_photographs_are_upright(orientation: int, way: str) -> None:
    image = smooth(40, 64)
    file = io.BytesIO()
    tag = b"Exif\0\0" + exif(orientation)
    if way == "jpeg":
        Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=0, exif=tag)
    else:
        given = np.dstack([image, np.full((40, 64), 255, np.uint8)]) if "alpha" in way else image
        Image.fromarray(given).save(file, "WEBP", lossless=True, exif=tag)
    wanted = turned(image, orientation)
    header = read_header(file.getvalue())
    assert (header.height, header.width) == wanted.shape[:2]
    assert np.abs(decode(file.getvalue(), 3).astype(int) - wanted).max() <= (12 if way == "jpeg" else 0)


@pytest.mark.parametrize("damage", [b"", b"MM\0*", b"XX" * 20, exif(6)[:-8], exif(9), exif(0)])
def test_a_photograph_with_damaged_exif_is_a_photograph(damage: bytes) -> None:
    image = smooth(24, 32)
    data = jpeg(image, exif=b"Exif\0\0" + damage)
    assert read_header(data) == Header(24, 32)
    assert np.abs(decode(data, 3).astype(int) - image).max() <= 12


def test_a_motion_photograph_is_whole() -> None:
    """A film stands behind the picture's end, or another picture."""
    data = jpeg(smooth(64, 64))
    for tail in (b"\0\0\0\x18ftypmp42" + bytes(5000), data, b"\xff" * 9, b"\0"):
        assert np.array_equal(decode(data + tail, 3), decode(data, 3))
        assert read_header(data + tail) == Header(64, 64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_written_is_read(suffix: str, channels: int) -> None:
    image = np.broadcast_to(smooth(21, 34)[..., :1], (21, 34, channels)).copy()
    image[..., 1:3] //= 2
    found = decode(encode_image(image, suffix, {}), channels)
    wanted = (
        to_channels(to_channels(image, 3), 4) if channels == 4 and suffix in (".jpg", ".jpeg", ".bmp") else image
    )
    assert np.abs(found.astype(int) - wanted).max() <= (25 if suffix in (".jpg", ".jpeg") else 0)


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_bitmaps_of_palettes(depth: int) -> None:
    numbers = picture(5, 7, 1, 2**depth).astype(np.uint8)
    palette = picture(2**depth, 4, 1)[..., 0].astype(np.uint8)
    rows = [packed(line, depth) for line in numbers[::-1]]
    body = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)
    begin = 54 + palette.size
    head = struct.pack(
        "<2sIIIIiiHHIIiiII", b"BM", begin + len(body), 0, begin, 40, 7, 5, 1, depth, 0, 0, 0, 0, 0, 0
    )
    data = head + palette.tobytes() + body
    assert read_header(data) == Header(5, 7)
    assert np.array_equal(decode(data, 3), palette[numbers[..., 0], 2::-1])


def test_a_header_is_read_from_the_beginning_of_a_photograph(tmp_path: Path) -> None:
    turn = b"Exif\0\0" + exif(6)
    for name, data in {
        "small.jpg": jpeg(smooth(24, 32), exif=turn),
        "profile.jpg": jpeg(smooth(24, 32), exif=turn, icc_profile=bytes(200_000)),
        "late.png": png(picture(24, 32, 3), after=((b"tEXt", bytes(100_000)), (b"eXIf", exif(6)))),
        "grey.tif": tiff(picture(24, 32, 1).astype(np.uint8), orientation=6),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert file_header(tmp_path / name) == read_header(data)
        assert file_header(tmp_path / name).height == 32


def test_a_profile_changes_nothing() -> None:
    image = picture(4, 4, 3)
    chunk = (b"iCCP", b"p\0\0" + zlib.compress(bytes(200)))
    assert np.array_equal(decode(png(image, before=(chunk,)), 3), image)
    assert png_chunk(*chunk) in png(image, before=(chunk,))
