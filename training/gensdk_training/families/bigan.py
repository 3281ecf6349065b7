"""BiGAN: a GAN that learns the way back too; its encoder is trained by the game itself.

Papers: Donahue, Krähenbühl & Darrell 2017, "Adversarial Feature Learning" (arXiv 1605.09782); Dumoulin et al.
2017, "Adversarially Learned Inference" (ALI, arXiv 1606.00704), which has the same game with a random encoder.

Idea: D sees pairs of image and latent. ``min_{G,E} max_D E_x log D(x, E(x)) + E_z log(1 - D(G(z), z))`` (BiGAN's
eq. 3). At the optimum both kinds of pairs are alike, and E is the inverse of G (theorem 2). As in the paper's
section 3.5, G and E are trained with the labels swapped, which does not saturate. An encoder makes completion of
missing pixels possible: ``x <- m x + (1 - m) G(E(x))``.

Networks: `generator` and `encoder` of linear layers ("mlp") or strided convolutions ("conv"), and `discriminator`:
features of the image, and z, through linear layers with LeakyReLU 0.2. z is N(0, 1) (the paper: uniform).
Exports: ``generator``: z to the image; and ``encoder``: an image to z.

It does not: reconstruct pixel by pixel (nothing in the game compares x with G(E(x)): expect the same kind of
image, not the same image), take labels, or draw from a distribution over z as ALI does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gensdk_training.family import Batch, DataInfo, Family, Loss, Phase
from gensdk_training.graphs.latent_sampler import latent_plan, with_encoder
from gensdk_training.losses.adversarial import towards
from gensdk_training.networks.coder import CoderConfig, ImageDecoder, ImageEncoder, check_size
from gensdk_training.networks.strided import down_stack, halvings, widths
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated


class BiganConfig(CoderConfig):
    """Settings of :class:`Bigan`, beside those of :class:`CoderConfig`.

    discriminator_channels: Features after the discriminator's first convolution, doubling with each halving. For
        conv.
    discriminator_hidden: Features of the discriminator's linear layers.
    spectral_norm: Whether all weights of the discriminator are divided by their norm.
    learning_rate: Step size of the optimizer of generator and encoder.
    """

    discriminator_channels: Annotated[int, Field(ge=1, le=65536)] = 32
    discriminator_hidden: Annotated[int, Field(ge=1, le=65536)] = 256
    spectral_norm: bool = True
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class Generator(ImageDecoder):
    """G: z to an image."""

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] to images [B, C, H, W] in [-1, 1]."""
        return torch.tanh(super().forward(z, label))


class PairDiscriminator(nn.Module):
    """D: an image and a latent to the logit of "an image with its code"."""

    def __init__(self, config: BiganConfig, data: DataInfo) -> None:
        super().__init__()
        wrap = spectral_norm if config.spectral_norm else _plain
        if config.architecture == "mlp":
            features = data.channels * data.height * data.width
            self.features: nn.Module = nn.Flatten()
        else:
            times = halvings(data.height, data.width, family="architecture=conv")
            stack = widths(config.discriminator_channels, times)
            features = stack[-1] * (data.height >> times) * (data.width >> times)
            convolutions = down_stack(data.channels, stack, normalize=False, wrap=wrap)
            self.features = nn.Sequential(convolutions, nn.Flatten())
        hidden = config.discriminator_hidden
        self.head = nn.Sequential(
            wrap(nn.Linear(features + config.latent, hidden)),
            nn.LeakyReLU(0.2),
            wrap(nn.Linear(hidden, hidden)),
            nn.LeakyReLU(0.2),
            wrap(nn.Linear(hidden, 1)),
        )

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] and `z` [B, latent] to logits [B]."""
        logits: Tensor = self.head(torch.cat((self.features(images), z), dim=1))
        return logits.flatten()


def _plain(module: nn.Module) -> nn.Module:
    return module


@register("bigan")
class Bigan(Family[BiganConfig]):
    """Bidirectional GAN."""

    title = "BiGAN: a GAN with an adversarially trained encoder, which completes missing pixels"
    paper = "Donahue, Krähenbühl & Darrell (2017), Adversarial Feature Learning"
    Config = BiganConfig
    ema_networks = ("generator", "encoder")

    def check(self) -> None:
        """Raises :class:`InputError` where the size of the data doesn't go with the config."""
        check_size(self.config, self.data, "bigan")

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator`, `encoder` and `discriminator`."""
        return {
            "generator": Generator(self.config, self.data),
            "encoder": ImageEncoder(self.config, self.data, outputs=self.config.latent),
            "discriminator": PairDiscriminator(self.config, self.data),
        }

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, then `coder`: generator and encoder together."""
        config, betas = self.config, (self.config.beta1, self.config.beta2)
        return (
            Phase("discriminator", ("discriminator",), config.discriminator_learning_rate, betas),
            Phase("coder", ("generator", "encoder"), config.learning_rate, betas),
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """``-log D(x, E(x)) - log(1 - D(G(z), z))``; for G and E with the labels swapped. In nats, means."""
        images = batch.images
        z = torch.randn(len(images), self.config.latent, device=images.device)
        with torch.set_grad_enabled(phase == "coder"):
            fake, codes = networks["generator"](z), networks["encoder"](images)
        # In one batch, so that both kinds of pairs meet the same D.
        logits = networks["discriminator"](torch.cat((images, fake)), torch.cat((codes, z)))
        on_real, on_fake = logits.chunk(2)
        learns = phase == "discriminator"
        total = towards("vanilla", on_real, real=learns) + towards("vanilla", on_fake, real=not learns)
        if learns:
            return Loss(total, {"d_real": torch.sigmoid(on_real.detach()).mean()})
        with torch.no_grad(), evaluated(networks["generator"]):
            rmse = (networks["generator"](codes) - images).square().mean().sqrt()
        return Loss(total, {"d_fake": torch.sigmoid(on_fake.detach()).mean(), "rmse": rmse})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``generator`` and ``encoder``, all of which may be half precision."""
        latent = self.config.latent
        plan = latent_plan(
            self.name, "generator", networks["generator"], self.data, latent=latent, conditional=False
        )
        return with_encoder(plan, networks["encoder"], self.data, latent=latent)
