"""Tiles cover an image, their weights add up to one, and what a tile can't see is not used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gensdk_runtime.methods.tiles import Axis, smallest_tile, translate_tiles
from gensdk_runtime.spec.signature import SourceSpec


@given(
    units=st.integers(1, 300),
    multiple=st.sampled_from([1, 2, 8]),
    margin=st.integers(0, 20),
    more=st.integers(0, 100),
    scale=st.integers(1, 3),
)
def test_weights_add_up_to_one_and_leave_out_the_margin(
    units: int, multiple: int, margin: int, more: int, scale: int
) -> None:
    tile = smallest_tile(margin, multiple) + more * multiple
    axis = Axis.of(units * multiple, tile, margin, multiple)
    assert axis.starts[0] == 0
    assert axis.size == units * multiple
    assert all(start % multiple == 0 for start in axis.starts)
    total = np.zeros(axis.size * scale)
    for index, start in enumerate(axis.starts):
        weights = axis.weights(index, scale)
        total[start * scale : (start + axis.length) * scale] += weights
        if index > 0:
            assert not weights[: margin * scale].any()
        if index + 1 < len(axis.starts):
            assert not weights[len(weights) - margin * scale :].any()
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@given(size=st.integers(1, 500), tile=st.integers(2, 60), margin=st.integers(0, 20))
def test_tiles_that_see_too_little_still_cover_everything(size: int, tile: int, margin: int) -> None:
    axis = Axis.of(size, tile, margin)
    total = np.zeros(axis.size)
    for index, start in enumerate(axis.starts):
        weights = axis.weights(index, 1)
        assert (weights >= 0).all()
        total[start : start + axis.length] += weights
    assert axis.size == size
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (300, 517), (129, 128), (128, 500), (131, 97)])
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_put_together_is_the_whole(height: int, width: int, multiple: int, scale: int) -> None:
    """With a model that repeats pixels, and spoils the margin of every tile that does not lie at the border."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    spec = SourceSpec(channels=3, height=64, width=64, multiple=multiple, scale=scale, margin=6)

    def enlarge(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert tiles.shape[1] % multiple == tiles.shape[2] % multiple == 0
        enlarged: NDArray[np.float32] = tiles.transpose(0, 3, 1, 2).astype(np.float32)
        enlarged = enlarged.repeat(scale, axis=2).repeat(scale, axis=3)
        edge = spec.margin * scale
        for place, tile in enumerate(enlarged):
            if place > 0:
                tile[:, :, :edge] = -1e6
            if place + 1 < len(enlarged):
                tile[:, :, -edge:] = 1e6
        return enlarged

    def to_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.rint(images).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)

    result = translate_tiles(image, enlarge, tile=96, spec=spec, to_bytes=to_bytes)
    np.testing.assert_array_equal(result, image.repeat(scale, axis=0).repeat(scale, axis=1))
