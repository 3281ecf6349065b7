"""Laws of grey levels: levels and values are inverse, and the inverse CDF draws what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
