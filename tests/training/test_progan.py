"""Laws of progressive growing: when it grows, that nothing jumps as it does, and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gensdk_export.export import export_run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_training.families.progan import (
    Equalized,
    Generator,
    Progan,
    ProganConfig,
    batch_deviation,
    pixel_norm,
)
from gensdk_training.family import DataInfo
from gensdk_training.networks.strided import halvings
from gensdk_training.run import load_run, train
from support.tiny import tiny_run

DATA = DataInfo(name="x", channels=1, height=16, width=16, count=1)
LEVELS = 3


def _networks(seed: int = 0, **config: Any) -> tuple[Progan, dict[str, Any]]:
    settings = {"channels": 4, "latent": 5, "hold_steps": 3, "fade_steps": 4, **config}
    family = Progan(ProganConfig.from_dict(settings, what="config"), DATA)
    torch.manual_seed(seed)
    return family, family.build_networks()


def _doubled(images: Tensor) -> Tensor:
    return functional.interpolate(images, scale_factor=2.0, mode="nearest")


def test_growth_follows_from_the_step_and_never_jumps() -> None:
    config = ProganConfig(hold_steps=3, fade_steps=4)
    growth = [config.growth(step, LEVELS) for step in range(30)]
    assert growth[:4] == [0, 0, 0, pytest.approx(0.2)]
    assert growth[7:10] == [1, 1, 1]
    assert growth[14:] == [2.0] * 16
    assert np.diff(growth).min() >= 0
    assert np.diff(growth).max() <= 0.2 + 1e-12
    assert ProganConfig(hold_steps=0, fade_steps=0).growth(0, LEVELS) == 2
    assert ProganConfig(hold_steps=5, fade_steps=0).growth(5, LEVELS) == 1


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64, 128, 256])
@pytest.mark.parametrize("steps", [1, 2, 10, 300, 2000, 12_345])
@pytest.mark.parametrize(
    "stage", [{}, {"hold_steps": 400}, {"fade_steps": 5}, {"hold_steps": 7000, "fade_steps": 100}]
)
def test_whatever_the_steps_the_last_one_is_of_full_size(side: int, steps: int, stage: dict[str, int]) -> None:
    levels = halvings(side, side, family="progan") + 1
    config = ProganConfig(steps=steps, **stage)
    growth = [config.growth(step, levels) for step in range(steps)]
    assert growth[-1] == levels - 1
    assert growth == sorted(growth)
    if steps > 200:
        assert growth[0] == 0, "it begins at the smallest size"
        full = sum(value == levels - 1 for value in growth) / steps
        assert full >= 1 / (2 * levels) or stage, "and is trained there too"


def test_defaults_share_all_steps_and_set_ones_that_fit_are_kept() -> None:
    assert ProganConfig(steps=2000).stage(LEVELS) == (400, 400)
    assert ProganConfig(steps=3600).stage(5) == (400, 400)
    assert ProganConfig(steps=100, hold_steps=20, fade_steps=29).stage(LEVELS) == (20, 29)
    assert ProganConfig(steps=100, hold_steps=20, fade_steps=30).stage(LEVELS) == (16, 24)
    assert ProganConfig(steps=100, hold_steps=0, fade_steps=300).stage(LEVELS) == (0, 40)


def test_what_is_shortened_is_said_and_belongs_to_the_run() -> None:
    family, _ = _networks(steps=8)
    assert family.notes() == (
        "hold_steps 3 and fade_steps 4 need at least 15 steps to reach 16x16, and this run has 8: "
        "shortened to 1 and 2",
    )
    assert family.depends_on_steps
    family, _ = _networks(steps=15)
    assert family.notes() == ()
    assert not family.depends_on_steps, "it may go on beyond its end"
    family = Progan(ProganConfig(), DATA)
    assert family.notes() == ()
    assert family.depends_on_steps


def test_a_run_that_did_not_reach_the_full_size_says_so_wherever_it_goes(tmp_path: Path) -> None:
    run = tiny_run("progan", steps=10, checkpoint_every=3, keep_checkpoints=10)
    train(run, tmp_path / "run", progress=False, tensorboard=False)
    assert load_run(tmp_path / "run").provenance.unfinished is None
    early = load_run(tmp_path / "run", step=3)
    assert early.provenance.unfinished == (
        "step 3 of 10; grown to 4x4, of which 33% has faded in, not to 8x8: images are enlarged ones; train on to "
        "the end of its steps"
    )
    report = export_run(tmp_path / "run", tmp_path / "early.gsdk", step=3)
    assert any("grown to 4x4" in warning for warning in report.warnings)
    with Bundle.open(tmp_path / "early.gsdk") as bundle:
        assert "grown to 4x4" in bundle.read("README.md").decode()
        assert "grown to 4x4" in (bundle.manifest.provenance.unfinished or "")


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_alpha_zero_is_the_smaller_network_and_one_the_larger(level: int) -> None:
    _, networks = _networks()
    generator, critic = networks["generator"], networks["critic"]
    z, tiny = torch.randn(4, 5), 1e-7
    larger = generator(z, float(level))
    torch.testing.assert_close(generator(z, level - 1 + tiny), _doubled(generator(z, level - 1.0)))
    torch.testing.assert_close(generator(z, level - tiny), larger, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        critic(larger, level - 1 + tiny), critic(functional.avg_pool2d(larger, 2), level - 1.0)
    )
    torch.testing.assert_close(critic(larger, level - tiny), critic(larger, float(level)), atol=1e-4, rtol=1e-4)


def test_real_images_fade_as_generated_ones() -> None:
    family, _ = _networks()
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(family.shown(images, 2.0, LEVELS), images)
    half = functional.avg_pool2d(images, 2)
    torch.testing.assert_close(family.shown(images, 1.0, LEVELS), half)
    torch.testing.assert_close(family.shown(images, 1.5, LEVELS), (images + _doubled(half)) / 2)
    assert family.shown(images, 0.25, LEVELS).shape == (3, 1, 8, 8)


def test_batch_deviation_knows_the_batch_but_not_its_order() -> None:
    x = torch.randn(7, 3, 4, 4, dtype=torch.float64)
    found = batch_deviation(x)
    assert found.shape == (7, 4, 4, 4)
    torch.testing.assert_close(batch_deviation(x[torch.randperm(7)])[:, 3], found[:, 3])
    torch.testing.assert_close(found[0, 3, 0, 0], x.std(dim=0, unbiased=False).mean())
    assert batch_deviation(x[:1].expand(7, -1, -1, -1))[0, 3, 0, 0] < 1e-3


def test_pixel_norm_and_equalized_layers_keep_the_scale() -> None:
    x = 7 * torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(pixel_norm(x).square().mean(dim=1), torch.ones(2, 5, 5), atol=1e-4, rtol=1e-4)
    torch.manual_seed(0)
    layer = Equalized(64, 64, 3)
    out = functional.leaky_relu(layer(torch.randn(8, 64, 12, 12)), 0.0)[:, :, 1:-1, 1:-1].detach()
    assert 0.8 < float(out.square().mean()) < 1.2, "He's constant keeps the second moment behind a ReLU"
    assert abs(float(layer.weight.detach().std()) - 1) < 0.05


def test_what_has_grown_so_far_is_exported_and_averaged() -> None:
    family, networks = _networks()
    _, other = _networks(seed=1)
    family.begin_step(networks, 7)
    for name, network in networks.items():
        other[name].load_state_dict(network.state_dict())
    generator = other["generator"]
    assert isinstance(generator, Generator)
    assert generator.growth == 1.0
    z = torch.randn(2, 5)
    small = generator(z).detach()
    assert small.shape == (2, 1, 8, 8)
    module = family.export_plan(other).modules["generator"]
    torch.testing.assert_close(module(z).detach(), _doubled(small).clamp(-1, 1))
