"""The draw of one token beside a plain NumPy reference, and what comes of many draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from gensdk_training.graphs.sequence_steps import MOST_SORTED, draw_among, draw_token

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
NEAR = [0.0, 2.0**-32, 2.0**-24, 1e-7, 0.5, 1 - 1e-6, BELOW_ONE]


def reference(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The shares of one sample's tokens, float64 [V], one token after the other."""
    shares = np.exp((logits.astype(np.float64) - logits.max()) / np.float32(temperature))
    shares /= shares.sum()
    order = sorted(range(len(shares)), key=lambda token: -shares[token])
    least, together = 0.0, 0.0
    if top_p < 1:
        for token in order:
            if together >= top_p:
                break
            least, together = shares[token], together + shares[token]
    least = max(least, shares[order[min(top_k, len(order)) - 1]])
    kept = np.where(shares >= least, shares, 0.0)
    return np.asarray(kept / kept.sum())


def drawn(
    logits: Any, uniform: Any, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> list[int]:
    rows = torch.as_tensor(np.atleast_2d(np.asarray(logits, np.float32)))
    u = torch.as_tensor(np.asarray(uniform, np.float32).reshape(-1, 1))
    rows = rows.expand(len(u), -1)
    heat, share = torch.full((len(u),), temperature), torch.full((len(u),), top_p)
    count = torch.full((len(u),), top_k or rows.shape[1], dtype=torch.int64)
    among: list[int] = draw_among(rows, u, heat, count, share).squeeze(1).tolist()
    if top_k is None and top_p == 1:
        assert draw_token(rows, u, heat).squeeze(1).tolist() == among
    return among


@given(
    data=st.data(),
    temperature=st.sampled_from([0.05, 0.5, 1.0, 3.0, 100.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
)
@settings(max_examples=80, deadline=None)
def test_the_draw_is_the_inverse_cdf_of_what_is_kept(
    data: st.DataObject, temperature: float, top_p: float
) -> None:
    size = data.draw(st.sampled_from([2, 3, 17]))
    values = st.floats(-30, 30, width=16) | st.sampled_from([0.0, 1.0, -1e4, 1e4])
    logits = np.array(data.draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    top_k = data.draw(st.integers(1, size))
    u = data.draw(st.sampled_from(NEAR) | st.floats(0, BELOW_ONE, width=32))
    shares = reference(logits, temperature, top_k, top_p)
    (token,) = drawn(logits, u, temperature, top_k, top_p)
    upto = np.concatenate([[0.0], np.cumsum(shares)])
    # Tokens on the edge of the nucleus may fall on either side of it; the shares of the others then change too.
    edge = [
        np.sort(reference(logits, temperature, top_k, share) > 0).sum()
        for share in (top_p * (1 - 1e-5), min(1, top_p * (1 + 1e-5)))
    ]
    assume(edge[0] == edge[1])
    assert shares[token] > 0 or upto[token] == pytest.approx(u, abs=1e-6), "a token that was cut off"
    assert upto[token] - 2e-6 <= u <= upto[token + 1] + 2e-6


@pytest.mark.parametrize("size", [2, 3, 257, 5000])
def test_what_has_no_chance_is_never_drawn(size: int) -> None:
    """Sums of many shares are not 1, and a token behind the last one that has a chance is not drawn for that."""
    random = np.random.default_rng(size)
    for hidden in ([size - 1], [0], [0, size - 1], range(size // 2, size)):
        logits = random.normal(size=size).astype(np.float32)
        logits[list(hidden)] = -1e4
        if size == len(list(hidden)):
            logits[0] = 0.0
        tokens = drawn(logits, [*NEAR, *random.random(200, np.float32)])
        assert not set(tokens) & set(np.flatnonzero(logits == -1e4).tolist())


@pytest.mark.parametrize("u", NEAR)
def test_the_ends_of_the_uniform_numbers_are_tokens(u: float) -> None:
    for logits in ([0.0, 0.0], [0.0, 50.0, -50.0], [1e4, -1e4], [-1e4, 1e4], np.zeros(5000)):
        (token,) = drawn(logits, u)
        assert 0 <= token < len(logits)


@pytest.mark.parametrize("size", [2, 17, 5000])
def test_among_one_the_likeliest_is_drawn(size: int) -> None:
    random = np.random.default_rng(1)
    for _ in range(5):
        logits = random.normal(size=size)
        uniforms = [*NEAR, *random.random(20)]
        best = [int(logits.astype(np.float32).argmax())] * len(uniforms)
        assert drawn(logits, uniforms, 2.0, top_k=1) == best
        assert drawn(logits, uniforms, 2.0, top_p=1e-6) == best


def test_tokens_that_are_as_likely_as_the_last_are_kept_too() -> None:
    uniforms = np.linspace(0, 1, 300, endpoint=False)
    assert set(drawn([2.0, 1.0, 1.0, 0.0], uniforms, top_k=2)) == {0, 1, 2}
    assert set(drawn([1.0, 1.0, 1.0, 1.0], uniforms, top_k=1)) == {0, 1, 2, 3}
    assert set(drawn([3.0, 1.0, 1.0, 0.0], uniforms, top_p=0.8)) == {0, 1, 2}


def test_more_tokens_than_are_sorted() -> None:
    """A cut among the tokens that are sorted holds; one behind them cuts nothing."""
    size = MOST_SORTED + 500
    flat = np.linspace(0, 1e-3, size)
    shares = reference(flat.astype(np.float32), 1.0, size, 1.0)
    chosen = [0, 1, size // 2, size - 2, size - 1]
    middles = (np.cumsum(shares) - shares / 2)[chosen]
    assert drawn(flat, middles, top_k=size) == chosen
    assert drawn(flat, middles, top_p=0.9999) == chosen
    assert drawn(flat, [0.0], top_k=100) == [size - 100]
    assert drawn(flat, [0.0], top_k=MOST_SORTED) == [size - MOST_SORTED]
    assert drawn(flat, [0.0], top_k=MOST_SORTED + 1) == [0]
    steep = np.where(np.arange(size) < 50, 20.0, 0.0)
    assert max(drawn(steep, [*NEAR, 0.99], top_p=0.99)) < 50


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 4.0}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.8}],
    ids=str,
)
def test_many_draws_have_the_distribution(options: dict[str, Any]) -> None:
    random, count = np.random.default_rng(7), 40_000
    logits = random.normal(size=12).astype(np.float32)
    shares = reference(
        logits, options.get("temperature", 1.0), options.get("top_k", 12), options.get("top_p", 1.0)
    )
    found = np.bincount(drawn(logits, random.random(count, np.float32), **options), minlength=12)
    assert not found[shares == 0].any()
    expected = count * shares[shares > 0]
    statistic = float(((found[shares > 0] - expected) ** 2 / expected).sum())
    assert statistic < chi2.ppf(0.999, max(1, len(expected) - 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_give_no_token(bad: float) -> None:
    assert drawn([0.0, bad, 1.0], [0.0, 0.5, BELOW_ONE]) == [-1, -1, -1]
    logits = torch.tensor([[0.0, 1.0], [bad, 0.0]])
    fine, broken = draw_token(logits, torch.full((2, 1), 0.3), torch.ones(2)).squeeze(1).tolist()
    assert (fine in (0, 1), broken) == (True, -1)
