"""A GAN of two small perceptrons on 8x8 digits, which can be made to fail in every way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.plan import ExportPlan


class TinyGanConfig(FamilyConfig):
    """`blind`: G does not see its latent. `logs`: whether D's probabilities are logged, or its accuracy alone."""

    loss: Literal["non_saturating", "saturating"] = "non_saturating"
    blind: bool = False
    discriminator_steps: int = 1
    generator_learning_rate: float = 1e-3
    discriminator_learning_rate: float = 1e-3
    beta1: float = 0.5
    logs: Literal["probabilities", "accuracy"] = "probabilities"


class Generator(nn.Module):
    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z * 0 if self.blind else z).reshape(-1, 1, 8, 8)


class TinyGan(Family[TinyGanConfig]):
    name, title, paper, Config = "tiny_gan", "", "", TinyGanConfig

    def build_networks(self) -> dict[str, nn.Module]:
        judge = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Flatten(0))
        return {"generator": Generator(self.config.blind), "discriminator": judge}

    def phases(self) -> tuple[Phase, ...]:
        config, betas = self.config, (self.config.beta1, 0.999)
        return (
            Phase(
                "discriminator",
                ("discriminator",),
                config.discriminator_learning_rate,
                betas,
                repeat=config.discriminator_steps,
            ),
            Phase("generator", ("generator",), config.generator_learning_rate, betas),
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        on_fake = networks["discriminator"](networks["generator"](torch.randn(len(batch.images), 8)))
        if phase == "generator":
            saturating = self.config.loss == "saturating"
            total = (functional.logsigmoid(-on_fake) if saturating else -functional.logsigmoid(on_fake)).mean()
            known = self.config.logs == "probabilities"
            return Loss(total, {"d_fake": torch.sigmoid(on_fake.detach()).mean()} if known else {})
        on_real = networks["discriminator"](batch.images)
        total = -functional.logsigmoid(on_real).mean() - functional.logsigmoid(-on_fake).mean()
        if self.config.logs == "probabilities":
            return Loss(total, {"d_real": torch.sigmoid(on_real.detach()).mean()})
        right = torch.cat((on_real > 0, on_fake < 0)).float().mean()
        return Loss(total, {"right": right.detach()})

    @property
    def ema_networks(self) -> tuple[str, ...]:
        return ("generator",)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        return latent_plan(self.name, "generator", networks["generator"], self.data, latent=8, conditional=False)
