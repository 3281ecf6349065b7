"""A family of another package: under 40 lines are trained, exported, proved and sampled by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk import Generator
from gensdk_export.export import export_run
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_training import registry
from gensdk_training.data import load_data
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import families, register
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig

MOST = 40
"""Lines that a family may take."""


class MomentConfig(FamilyConfig):
    """Settings of :class:`MomentMatching`.

    learning_rate: Of Adam.
    """

    learning_rate: float = 1e-2


class MomentMatching(Family[MomentConfig]):
    """Li, Swersky & Zemel 2015: a generator whose samples have the data's kernel means."""

    title = "GMMN: a generator that matches all moments by a kernel"
    paper = "Li, Swersky & Zemel (2015), Generative Moment Matching Networks"
    Config = MomentConfig
    ema_networks = ("generator",)

    def build_networks(self) -> dict[str, nn.Module]:
        shape = self.data.output.shape
        layers = nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, int(np.prod(shape))), nn.Tanh(), nn.Unflatten(1, shape)
        return {"generator": nn.Sequential(*layers)}

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("generator", ("generator",), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        real = batch.images.flatten(1)
        made = networks["generator"](torch.randn(len(real), 8, device=real.device)).flatten(1)
        value = kernel(made, made) - 2 * kernel(made, real) + kernel(real, real)
        return Loss(value, {})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        return latent_plan(self.name, "generator", networks["generator"], self.data, latent=8, conditional=False)


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of Gaussian kernels of three widths between all pairs."""
    distances = torch.cdist(a, b).square()
    return torch.stack([torch.exp(-distances / width).mean() for width in (8.0, 32.0, 128.0)]).sum()


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    families()
    register("gmmn")(MomentMatching)
    yield "gmmn"
    monkeypatch.delitem(registry._FAMILIES, "gmmn")


def test_a_family_of_another_package(name: str, tmp_path: Path) -> None:
    assert sum(len(inspect.getsource(each).splitlines()) for each in (MomentConfig, MomentMatching)) <= MOST
    config = {"batch_size": 64, "steps": 150, "ema_decay": 0.9}
    train(RunConfig(family=name, data=DataConfig(source="digits"), config=config), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "model.gsdk")
    assert verify_bundle(tmp_path / "model.gsdk").ok
    with Generator.load(tmp_path / "model.gsdk", backend="onnxruntime") as model:
        samples = model.sample(64, seed=0)
        assert model.can("interpolate")
    data = load_data("digits").images / 127.5 - 1
    assert abs(samples.array.mean() - data.mean()) < 0.1
    assert samples.array.std() > 0.6 * data.std()
