"""AnoGAN: a GAN of normal images tells how far another image is from the nearest one that it can make.

Paper: Schlegl, Seeböck, Waldstein, Schmidt-Erfurth & Langs 2017, "Unsupervised Anomaly Detection with Generative
Adversarial Networks to Guide Marker Discovery" (arXiv 1703.05921); the encoder is that of f-AnoGAN (Schlegl,
Seeböck, Waldstein, Langs & Schmidt-Erfurth 2019, Medical Image Analysis 54).

Idea: ``z* = argmin_z |x - G(z)|_1 + lambda |f(x) - f(G(z))|_1``, f the last features of D, lambda 0.1 (eq. 3 to
6); the score of x is the same at z*. The search is gradient steps in the runtime, many images at once. The encoder
E starts it, or takes its place: ``min_E |x - G(E(x))|^2 + kappa |f(x) - f(G(E(x)))|^2``, each a mean (izi_f, eq. 4
of the second paper).

Networks: `generator` and `discriminator` of :mod:`gensdk_training.families.dcgan`, and `encoder`, of strided
convolutions. Train it on normal images alone.
Exports: ``generator``, ``encoder`` (image to z), ``features`` (image to f(x), once for each image) and
``inversion``, the gradient of the objective with respect to z.

It does not: weigh both terms as ``(1 - lambda)`` and ``lambda``, train E after G has ended (here it follows G step
by step), or use f-AnoGAN's WGAN-GP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.spec.model import AscentSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.families.dcgan import Dcgan, DcganConfig
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase
from gensdk_training.graphs.input_gradient import InputGradient, gradient_graph, target_input
from gensdk_training.graphs.latent_sampler import latent_plan, with_inversion
from gensdk_training.networks.gan_networks import ConvDiscriminator
from gensdk_training.networks.strided import down_stack, halvings, widths
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated


class AnoganConfig(FamilyConfig):
    """Settings of :class:`Anogan`; those of the GAN as in DCGAN.

    latent: Values in z, standard normal.
    generator_channels: Features before the generator's last layer, doubling towards its first.
    discriminator_channels: Features after the discriminator's first layer, doubling with each halving.
    encoder_channels: Features after the encoder's first layer, doubling with each halving.
    spectral_norm: Whether the discriminator's weights are divided by their norm, in place of batch norms.
    encoder_learning_rate: Step size of the encoder's optimizer.
    feature_weight: lambda: weight of the features' distance in an anomaly score.
    encoder_feature_weight: kappa: weight of the features' distance in the encoder's loss.
    inversion_steps: Steps of Adam that look for z, at a rate that falls to 0: at a constant one the search does
        not come to rest, and rounding moves scores by a percent.
    """

    latent: Annotated[int, Field(ge=1, le=4096)] = 32
    generator_channels: Annotated[int, Field(ge=1, le=65536)] = 64
    discriminator_channels: Annotated[int, Field(ge=1, le=65536)] = 64
    encoder_channels: Annotated[int, Field(ge=1, le=65536)] = 32
    spectral_norm: bool = False
    generator_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    encoder_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    feature_weight: Annotated[float, Field(ge=0)] = 0.1
    encoder_feature_weight: Annotated[float, Field(ge=0)] = 1.0
    inversion_steps: Annotated[int, Field(ge=1, le=10_000)] = 100


class Encoder(nn.Module):
    """E: an image to the z that makes it."""

    def __init__(self, config: AnoganConfig, data: DataInfo) -> None:
        super().__init__()
        times = halvings(data.height, data.width, family="anogan")
        outputs = widths(config.encoder_channels, times)
        size = outputs[-1] * (data.height >> times) * (data.width >> times)
        self.body = nn.Sequential(down_stack(data.channels, outputs, normalize=True), nn.Flatten())
        self.head = nn.Linear(size, config.latent)

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to z [B, latent]."""
        return cast(Tensor, self.head(self.body(images)))


class Features(nn.Module):
    """f: what D has of an image before its last layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] to [B, F]."""
        return cast(Tensor, self.network(images).flatten(1))


class AnomalyScore(nn.Module):
    """``|x - G(z)|_1 + lambda |f(x) - f(G(z))|_1`` of each image."""

    def __init__(self, generator: nn.Module, features: nn.Module, weight: float) -> None:
        super().__init__()
        self.generator = generator
        self.features = features
        self.weight = weight

    def forward(self, z: Tensor, target: Tensor, target_features: Tensor) -> Tensor:
        """`z` [B, Z], x [B, C, H, W] and f(x) [B, F] to [B]."""
        made = self.generator(z)
        residual = (target - made).abs().sum(dim=(1, 2, 3))
        distance = (target_features - self.features(made)).abs().sum(dim=1)
        return cast(Tensor, residual + self.weight * distance)


@register("anogan")
class Anogan(Family[AnoganConfig]):
    """AnoGAN, with the encoder of f-AnoGAN."""

    title = "AnoGAN: anomaly scores and heat maps from a GAN of normal images; f-AnoGAN's encoder"
    paper = "Schlegl et al. (2017), Unsupervised Anomaly Detection with GANs to Guide Marker Discovery"
    Config = AnoganConfig
    ema_networks = ("generator", "discriminator", "encoder")

    def check(self) -> None:
        """Raises :class:`InputError` for sizes that can't be halved."""
        halvings(self.data.height, self.data.width, family="anogan")

    @property
    def _gan(self) -> Dcgan:
        """The game of generator and discriminator."""
        names = ("latent", "generator_channels", "discriminator_channels", "spectral_norm", "beta1")
        rates = ("generator_learning_rate", "discriminator_learning_rate")
        given = {name: getattr(self.config, name) for name in (*names, *rates)}
        return Dcgan(DcganConfig.model_validate(given), self.data)

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator`, `discriminator` and `encoder`."""
        return {**self._gan.build_networks(), "encoder": Encoder(self.config, self.data)}

    def phases(self) -> tuple[Phase, ...]:
        """Those of the GAN, then `encoder`."""
        return (*self._gan.phases(), Phase("encoder", ("encoder",), self.config.encoder_learning_rate))

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """DCGAN's losses, and izi_f for the encoder."""
        if phase != "encoder":
            return self._gan.loss(phase, networks, batch)
        features = Features(cast(ConvDiscriminator, networks["discriminator"]).body)
        codes = networks["encoder"](batch.images)
        # E learns the way back through G and D as they are used afterwards.
        with evaluated(networks["generator"], networks["discriminator"]):
            made = networks["generator"](codes)
            with torch.no_grad():
                wanted = features(batch.images)
            distance = (wanted - features(made)).square().mean()
        residual = (batch.images - made).square().mean()
        return Loss(residual + self.config.encoder_feature_weight * distance, {"residual": residual.detach()})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Four graphs. ``inversion`` stays float32: the sign of a difference does not survive rounding."""
        config, image = self.config, self.data.image
        generator = networks["generator"]
        features = Features(cast(ConvDiscriminator, networks["discriminator"]).body)
        plan = latent_plan(self.name, "generator", generator, self.data, latent=config.latent, conditional=False)
        times = halvings(image.height, image.width, family="anogan")
        last = widths(config.discriminator_channels, times)[-1]
        found = _state("features", last * (image.height >> times) * (image.width >> times))
        wanted = found.model_copy(update={"name": "target_features"})
        inversion = gradient_graph("inversion", (config.latent,), (target_input(image), wanted))
        given = target_input(image, "image")
        spec = AscentSpec(
            objectives={"score": inversion.name},
            decoder="generator",
            encoder="encoder",
            features="features",
            defaults=AscentSettings(
                learning_rate=0.05, lr_schedule="linear", num_inference_steps=config.inversion_steps, patience=30
            ),
        )
        modules = {
            GraphSpec(name="encoder", inputs=(given,), outputs=(_state("latent", config.latent),)): networks[
                "encoder"
            ],
            GraphSpec(name="features", inputs=(given,), outputs=(found,)): features,
            inversion: InputGradient(AnomalyScore(generator, features, config.feature_weight)),
        }
        half = {"generator": ("network",), "encoder": ("body",), "features": ("network",)}
        return with_inversion(plan, spec, modules, half=half)


def _state(name: str, size: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=("batch", size), role="state")
