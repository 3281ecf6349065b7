"""Each scheduler of diffusers that is taken, beside a small U-Net: the same states at each step, the same images.

From the same noise, in float32, along diffusers' own loop. What the networks are given at each step is compared,
and with it the time steps that they are told.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gensdk_export.importers.diffusers.known_schedulers import SCHEDULERS
from support.diffusers_loops import Case, cases, make_unet, measure

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CASES = list(cases())


def small_unet(**settings: object) -> torch.nn.Module:
    """A tenth as strong at its end: it is as random, and rounding stays what it is over 20 steps."""
    unet: torch.nn.Module = make_unet(**settings)
    with torch.no_grad():
        unet.conv_out.weight.mul_(0.1)  # type: ignore[operator, union-attr]
    return unet


def test_each_scheduler_is_tried() -> None:
    assert {case.scheduler for case in CASES} == set(SCHEDULERS)


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_states_and_images(case: Case, steps: int, tmp_path: Path) -> None:
    apart = measure(case, small_unet(), tmp_path / "model", steps)
    assert apart.times < 1e-2  # fractions, by logarithms in float32
    assert apart.steps < 1e-3
    assert apart.image < 1e-2
