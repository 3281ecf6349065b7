"""Mu-law: the published formulas, and the laws of a code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.mu_law import compress, decode, decoding_table, encode, expand, thresholds

levels_of = pytest.mark.parametrize("levels", [2, 3, 16, 255, 256, 65536])
amplitudes = arrays(np.float32, 50, elements=st.floats(-1, 1, width=32))


@levels_of
def test_a_code_comes_back_from_its_amplitude(levels: int) -> None:
    codes = np.arange(levels)
    np.testing.assert_array_equal(encode(decode(codes, levels), levels), codes)
    assert decode(codes, levels).dtype == np.float32
    assert (decode(codes, levels)[[0, -1]] == [-1, 1]).all()
    np.testing.assert_allclose(decoding_table(levels), -decoding_table(levels)[::-1], atol=1e-7)
    assert (np.diff(decoding_table(levels)) > 0).all()


@given(amplitudes)
def test_compression_is_undone(x: np.ndarray) -> None:
    np.testing.assert_allclose(expand(compress(x)), x, atol=1e-12)
    np.testing.assert_allclose(compress(-x), -compress(x))
    assert np.abs(compress(x)).max() <= 1


@given(amplitudes)
def test_no_amplitude_is_off_by_more_than_half_a_step_of_what_is_compressed(x: np.ndarray) -> None:
    off = compress(decode(encode(x))) - compress(x)
    assert np.abs(off).max() <= 1 / 255 + 1e-6
    order = np.argsort(x)
    assert (np.diff(encode(x)[order]) >= 0).all()


def test_the_formula_is_the_published_one() -> None:
    """ITU-T G.711 and WaveNet's equation in section 2.2, by hand."""
    for x, compressed in ((1.0, 1.0), (0.5, np.log(1 + 127.5) / np.log(256)), (-0.1, -np.log(26.5) / np.log(256))):
        assert compress(np.array(x)) == pytest.approx(compressed)
        assert encode(np.array([x])).tolist() == [int((compressed + 1) / 2 * 255 + 0.5)]
    assert encode(np.array([0.0, 5.0, -5.0])).tolist() == [128, 255, 0]
    assert 20 * np.log10(decode(np.array([128]))[0]) == pytest.approx(-81.3, abs=0.1)


@levels_of
def test_tables_for_other_libraries_are_the_same_code(levels: int) -> None:
    x = np.concatenate([np.linspace(-1.1, 1.1, 999, dtype=np.float32), thresholds(levels)])
    codes = torch.bucketize(torch.from_numpy(x), torch.from_numpy(thresholds(levels).copy()), right=True)
    np.testing.assert_array_equal(codes.numpy(), encode(x, levels))
    with pytest.raises(ValueError, match="read-only"):
        decoding_table(levels)[0] = 0


def test_what_is_no_amplitude_and_no_code_is_refused() -> None:
    for attempt, message in (
        (lambda: encode(np.array([np.nan])), "got NaN"),
        (lambda: decode(np.array([256])), "from 0 to 255"),
        (lambda: decode(np.array([-1])), "from 0 to 255"),
        (lambda: decode(np.array([0.5])), "whole numbers"),
        (lambda: encode(np.zeros(1), 1), "2 to 65536 levels"),
    ):
        with pytest.raises(InputError, match=message):
            attempt()
    assert decode(np.zeros(0, np.int64)).shape == (0,)
