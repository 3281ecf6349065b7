"""Resizing and channels: means over areas, shapes, ranges, transparency."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.media.image_pixels import resize, resize_floats, to_channels

SIDES = st.integers(1, 40)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=SIDES,
    width=SIDES,
    down=st.integers(1, 6),
    across=st.integers(1, 6),
    channels=st.sampled_from([1, 3, 5]),
)
def test_a_whole_factor_is_the_mean_of_each_block(
    height: int, width: int, down: int, across: int, channels: int
) -> None:
    shape = (height * down, width * across, channels)
    image = np.random.default_rng(height).integers(0, 256, shape).astype(np.uint8)
    blocks = image.reshape(height, down, width, across, channels).mean(axis=(1, 3))
    assert np.abs(resize(image, height, width) - blocks).max() <= 1  # Pillow rounds some of them down
    floats = image.astype(np.float32)
    assert np.abs(resize_floats(floats, height, width) - blocks).max() < 0.01


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES, channels=st.sampled_from([1, 2, 3, 4]))
def test_a_flat_picture_stays_flat(
    height: int, width: int, new_height: int, new_width: int, channels: int
) -> None:
    image = np.full((height, width, channels), 77, np.uint8)
    if channels in (2, 4):
        image[..., -1] = 255
    for enlarge in ("bicubic", "bilinear"):
        found = resize(image, new_height, new_width, enlarge=enlarge)
        assert found.shape == (new_height, new_width, channels)
        assert found.dtype == np.uint8
        assert (found == image[0, 0]).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES)
def test_the_mean_is_kept_where_it_shrinks_and_turning_commutes(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    found = resize(image, new_height, new_width)
    if new_height <= height and new_width <= width:
        assert np.abs(found.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 4
    mirrored = resize(np.ascontiguousarray(image[:, ::-1]), new_height, new_width)
    coarse = height >= 8 * new_height or width >= 8 * new_width  # whole blocks first; of noise, that is the worst
    assert np.abs(mirrored[:, ::-1].astype(int) - found).max() <= (16 if coarse else 4)
    across = np.ascontiguousarray(image.transpose(1, 0, 2))  # bicubic values are clipped between the passes
    turned = resize(across, new_width, new_height, enlarge="bilinear").transpose(1, 0, 2).astype(int)
    assert np.abs(turned - resize(image, new_height, new_width, enlarge="bilinear")).max() <= 2


@pytest.mark.parametrize("enlarge", ["bicubic", "bilinear"])
def test_a_ramp_stays_a_ramp(enlarge: str) -> None:
    ramp = np.broadcast_to(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], (5, 25, 3))
    found = resize(np.ascontiguousarray(ramp), 10, 100, enlarge=enlarge)[:, 8:-8]  # type: ignore[arg-type]
    wanted = (np.arange(100) + 0.5) * 2.5 - 5
    assert np.abs(found - wanted[None, 8:-8, None]).max() <= 1


def test_what_is_invisible_does_not_bleed() -> None:
    """The green of transparent pixels is in no visible one."""
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., :3] = (0, 255, 0)
    image[:3] = (200, 0, 0, 255)
    for size in ((5, 5), (4, 4), (20, 20)):
        found = resize(image, *size)
        assert found[found[..., 3] > 40][:, 1].max() <= 3


def test_channels() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    grey = to_channels(colour, 1)
    assert np.abs(grey[..., 0] - colour @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert np.array_equal(to_channels(grey, 3), grey.repeat(3, axis=2))
    assert np.array_equal(to_channels(grey, 4)[..., :3], grey.repeat(3, axis=2))
    assert (to_channels(colour, 4)[..., 3] == 255).all()
    assert np.array_equal(to_channels(to_channels(colour, 4), 3), colour)
    clear = to_channels(colour, 4)
    clear[..., 3] = 0
    assert (to_channels(clear, 3) == 255).all()
    assert (to_channels(clear, 1) == 255).all()
