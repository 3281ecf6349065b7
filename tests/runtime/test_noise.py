"""Laws of the counter-based noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import SampleKey, sample_keys

words = st.integers(0, 2**64 - 1)
shapes = st.lists(st.integers(1, 5), min_size=0, max_size=3)
draws = pytest.mark.parametrize("draw", [noise.normal, noise.uniform])


@draws
@given(seed=words, n=st.integers(1, 6), extra=st.integers(0, 6), stream=words, shape=shapes)
@settings(max_examples=50)
def test_head_of_a_larger_batch(draw, seed, n, extra, stream, shape) -> None:
    few, many = sample_keys(n, seed), sample_keys(n + extra, seed)
    np.testing.assert_array_equal(draw(few, stream, shape), draw(many, stream, shape)[:n])


@draws
@given(keys=st.lists(st.tuples(words, words), min_size=1, max_size=6), stream=words)
@settings(max_examples=50)
def test_each_row_depends_on_its_key_alone(draw, keys, stream) -> None:
    together = draw(sample_keys(len(keys), keys), stream, (3, 5))
    assert len(together) == len(keys)
    for row, key in zip(together, keys, strict=True):
        np.testing.assert_array_equal(draw([SampleKey(*key)], stream, (3, 5))[0], row)


@draws
def test_streams_seeds_and_positions_differ(draw) -> None:
    values = {
        (seed, position, stream): draw([SampleKey(seed, position)], stream, (4,)).tobytes()
        for seed in (0, 1, 2**64 - 1)
        for position in (0, 1, 2**64 - 1)
        for stream in (0, 1, 2**64 - 1)
    }
    assert len(set(values.values())) == len(values)


def test_distributions() -> None:
    keys = sample_keys(200, 7)
    z = noise.normal(keys, 0, (500,)).ravel()
    u = noise.uniform(keys, 0, (500,)).ravel()
    assert stats.kstest(z, "norm").pvalue > 0.001
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 0.01  # the two halves of one word


def test_values_never_change() -> None:
    """Stored results depend on these numbers; a change of them needs a new major version."""
    keys = sample_keys(2, 1234)
    np.testing.assert_allclose(noise.normal(keys, 3, (3,)), NORMAL, rtol=1e-6)
    np.testing.assert_array_equal(noise.uniform(keys, 3, (3,)), np.array(UNIFORM, np.float32))


NORMAL = [
    [0.6233189105987549, 0.3390679657459259, -0.02472090534865856],
    [-0.03908158093690872, 2.155322551727295, -0.15008817613124847],
]
UNIFORM = [
    [0.7774415612220764, 0.0792914628982544, 0.9989702701568604],
    [0.09793299436569214, 0.25288552045822144, 0.9826734066009521],
]


def test_no_seed_draws_one_and_reports_it() -> None:
    first, second = sample_keys(2, None), sample_keys(2, None)
    assert first != second
    assert sample_keys(2, list(first)) == first


@pytest.mark.parametrize(
    ("n", "seed", "message"),
    [
        (1, -1, "from 0 to"),
        (1, 2**64, "from 0 to"),
        (1, 1.5, "as an int, got float"),
        (1, True, "from 0 to"),
        (2, [1], "one seed for each of the 2 samples, got 1"),
        (1, [(1, 2, 3)], r"\(seed, position\) pair"),
        (1, ["a"], "as an int, got str"),
    ],
)
def test_refusals(n, seed, message) -> None:
    with pytest.raises(InputError, match=message):
        sample_keys(n, seed)
