"""Bytes to floats of a value range and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensdk_runtime.media.value_range import to_floats, to_uint8

BYTES = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1)


@given(width=st.floats(1e-3, 1e4), shift=st.floats(-100, 100))
def test_every_byte_comes_back(width: float, shift: float) -> None:
    value_range = shift * width, (shift + 1.0) * width
    assert np.array_equal(to_uint8(to_floats(BYTES, value_range), value_range), BYTES)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_the_ends_are_the_ends(value_range: tuple[float, float]) -> None:
    floats = to_floats(BYTES, value_range)
    assert floats.shape == (2, 1, 8, 16)
    assert floats.dtype == np.float32
    np.testing.assert_allclose((floats.min(), floats.max()), value_range, atol=1e-6)
    out = np.full((2, 1, 8, 16), np.nan, np.float32)
    assert to_floats(BYTES, value_range, out=out) is out
    np.testing.assert_array_equal(out, floats)


def test_what_lies_outside_is_clipped_and_halves_go_to_the_even_byte() -> None:
    floats = np.array([-9.0, 0.5, 1.5, 300.0], np.float32).reshape(1, 4, 1, 1)
    assert to_uint8(floats, (0.0, 255.0)).ravel().tolist() == [0, 0, 2, 255]
