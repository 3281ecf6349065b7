"""Laws of grey levels: levels and values are inverse, and the inverse CDF draws what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_training.networks.grey_levels import draw_level, level_of, value_of


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_and_values_are_inverse(levels: int) -> None:
    level = torch.arange(levels, dtype=torch.float32)
    values = value_of(level, levels)
    assert torch.equal(level_of(values, levels), level)
    assert (values[0].item(), values[-1].item()) == pytest.approx((-1.0, 1.0))


def test_inverse_cdf_draws_each_level_with_its_probability_and_never_an_impossible_one() -> None:
    p = torch.tensor([0.0, 0.25, 0.5, 0.0, 0.25, 0.0])
    uniform = (torch.arange(4000, dtype=torch.float32) / 4000).unsqueeze(1)
    drawn = draw_level(p.log().clamp(min=-1e4).expand(4000, -1), uniform)
    counts = np.bincount(drawn[:, 0].numpy().astype(int), minlength=6)
    assert counts.tolist() == pytest.approx((p * 4000).tolist(), abs=1)
    last = draw_level(torch.zeros(1, 17), torch.tensor([[np.nextafter(np.float32(1), np.float32(0))]]))
    assert last.item() == 16


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 40))
def test_no_level_without_probability_is_drawn_at_any_edge(data: st.DataObject, levels: int) -> None:
    """Wherever rounding has put the last cumulative probability; below it, all is as the inverse CDF says."""
    seed, scale = data.draw(st.integers(0, 2**32)), data.draw(st.sampled_from([0.1, 2.0, 20.0, 200.0]))
    none = torch.tensor(data.draw(st.lists(st.booleans(), min_size=levels, max_size=levels)))
    none[data.draw(st.integers(0, levels - 1))] = False
    logits = torch.randn(1, levels, generator=torch.Generator().manual_seed(seed)) * scale
    logits[0, none] = -1e4
    shares = torch.softmax(logits, dim=1)[0]
    edges = torch.cumsum(shares, dim=0)
    top = torch.tensor(1 - 2**-24)
    around = [torch.nextafter(edges, torch.tensor(way)) for way in (-1.0, 2.0)]
    uniform = torch.cat([torch.tensor([0.0, top]), edges, *around]).clamp(0, top)
    drawn = draw_level(logits.expand(len(uniform), -1), uniform[:, None])[:, 0].to(torch.int64)
    assert (shares[drawn] > 0).all()
    inside = uniform < edges[-1]
    expected = torch.searchsorted(edges, uniform[inside], right=True)
    assert torch.equal(drawn[inside], expected)
    assert torch.equal(drawn[~inside], (edges < edges[-1]).sum().expand(int((~inside).sum())))


def test_the_last_uniform_of_all_draws_no_impossible_level() -> None:
    """Of these levels the cumulative probabilities end below it, and the last one has none."""
    logits = torch.randn(4096, 17, generator=torch.Generator().manual_seed(0))
    logits[:, -1] = -1e4
    short = torch.cumsum(torch.softmax(logits, dim=1), dim=1)[:, -1] < 1 - 2**-24
    assert short.any()
    assert (draw_level(logits, torch.full((4096, 1), 1 - 2**-24)) < 16).all()
