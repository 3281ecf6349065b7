"""Variational autoencoder: images through a narrow random code; sampling decodes codes from the prior.

Paper: Kingma & Welling 2014, "Auto-Encoding Variational Bayes" (arXiv 1312.6114).

Idea: an encoder gives mean and variance of a Gaussian q(z|x), a decoder the mean of p(x|z), and both maximize
a lower bound of log p(x), the ELBO: ``-ELBO = -E_q log p(x|z) + beta KL(q(z|x) || N(0, 1))`` (the paper's
eq. 10; beta as in Higgins et al. 2017, beta-VAE). The reconstruction term is a Bernoulli likelihood with the
grey values in [0, 1] as soft targets, or a Gaussian one with a fixed `sigma`. A class label enters both
networks as an embedding.

Networks: `encoder` and `decoder`, of linear layers ("mlp"), or of strided convolutions with batch norm
("conv") for images from about 32x32 up.
Exports: one graph, ``decoder``: z and the label to the mean image. The encoder stays behind.

It does not: sample the pixels of p(x|z) (images are its mean), learn sigma, or use a learned prior or a
hierarchy of codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.layers.dense import linears
from gensdk_training.layers.latent_sampler import LabelledLatent, latent_plan
from gensdk_training.layers.strided import down_stack, halvings, up_stack, widths
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

Likelihood = Literal["bernoulli", "gaussian"]


class VaeConfig(FamilyConfig):
    """Settings of :class:`Vae`. The defaults suit MNIST and smaller grey images.

    `latent` values in a code; `architecture` "mlp" with layers of `hidden` features (the decoder has them in
    reverse) or "conv" with `channels` features after the first halving. `beta` weighs the KL term. `sigma` is
    the standard deviation of the Gaussian likelihood, for values in [-1, 1]. `conditional` uses the labels of
    the data, each an `embedding` of so many values.
    """

    architecture: Literal["mlp", "conv"] = "mlp"
    latent: Annotated[int, Field(ge=1, le=4096)] = 32
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=8)] = (512, 256)
    channels: Annotated[int, Field(ge=1)] = 32
    likelihood: Likelihood = "bernoulli"
    sigma: Annotated[float, Field(gt=0)] = 0.2
    beta: Annotated[float, Field(ge=0)] = 1.0
    conditional: bool = False
    embedding: Annotated[int, Field(ge=1, le=1024)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class Encoder(nn.Module):
    """q(z|x): an image, and a label, to mean and log variance of each value of the code."""

    def __init__(self, config: VaeConfig, data: DataInfo, classes: int | None) -> None:
        super().__init__()
        if config.architecture == "mlp":
            features = data.channels * data.height * data.width
            self.body: nn.Module = nn.Flatten()
            hidden = config.hidden
        else:
            times = halvings(data.height, data.width, family="vae with architecture=conv")
            outputs = widths(config.channels, times)
            features = outputs[-1] * (data.height >> times) * (data.width >> times)
            self.body = nn.Sequential(down_stack(data.channels, outputs, normalize=True), nn.Flatten())
            hidden = ()
        self.labelled = LabelledLatent(features, classes=classes, embedding=config.embedding)
        self.head = linears(self.labelled.size, *hidden, 2 * config.latent)

    def forward(self, images: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`images` [B, C, H, W] in [-1, 1] to (mean, log variance), each [B, latent]."""
        mean, log_variance = self.head(self.labelled(self.body(images), label)).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """p(x|z): a code, and a label, to raw values: logits (Bernoulli) or the mean before tanh (Gaussian)."""

    def __init__(self, config: VaeConfig, data: DataInfo, classes: int | None) -> None:
        super().__init__()
        shape = (data.channels, data.height, data.width)
        self.labelled = LabelledLatent(config.latent, classes=classes, embedding=config.embedding)
        if config.architecture == "mlp":
            body = linears(self.labelled.size, *reversed(config.hidden), math.prod(shape))
            self.body: nn.Module = nn.Sequential(body, nn.Unflatten(1, shape))
        else:
            times = halvings(data.height, data.width, family="vae with architecture=conv")
            self.body = up_stack(self.labelled.size, widths(config.channels, times)[::-1], shape)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] to raw values [B, C, H, W]."""
        raw: Tensor = self.body(self.labelled(z, label))
        return raw


class MeanImage(nn.Module):
    """The mean of p(x|z) as an image in [-1, 1]."""

    def __init__(self, decoder: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = likelihood

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] to images [B, C, H, W]."""
        return mean_image(self.decoder(z, label), self.likelihood)


def mean_image(raw: Tensor, likelihood: Likelihood) -> Tensor:
    """The decoder's raw values as an image in [-1, 1]; for Bernoulli ``2 sigmoid(raw) - 1 = tanh(raw / 2)``."""
    return torch.tanh(raw / 2 if likelihood == "bernoulli" else raw)


@register("vae")
class Vae(Family[VaeConfig]):
    """Variational autoencoder, by choice conditional on labels."""

    title = "variational autoencoder: MLP or convolutions, beta, Bernoulli or Gaussian likelihood"
    paper = "Kingma & Welling (2014), Auto-Encoding Variational Bayes"
    Config = VaeConfig

    def check(self) -> None:
        """Raises :class:`InputError` where size or labels of the data don't go with the config."""
        config, data = self.config, self.data
        if config.conditional and data.num_classes is None:
            raise InputError(f"conditional needs labels, but {data.name!r} has none; set conditional=false")
        if config.architecture == "conv":
            halvings(data.height, data.width, family="vae with architecture=conv")

    @property
    def _num_classes(self) -> int | None:
        return self.data.num_classes if self.config.conditional else None

    def build_networks(self) -> dict[str, nn.Module]:
        """`encoder` and `decoder`."""
        return {
            "encoder": Encoder(self.config, self.data, self._num_classes),
            "decoder": Decoder(self.config, self.data, self._num_classes),
        }

    def phases(self) -> tuple[Phase, ...]:
        """One phase: both networks."""
        return (Phase("elbo", ("encoder", "decoder"), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The batch's mean of reconstruction + beta KL, in nats an image."""
        reconstruction, kl = (term.mean() for term in self._terms(networks, batch))
        return Loss(
            reconstruction + self.config.beta * kl,
            {"reconstruction": reconstruction.detach(), "kl": kl.detach()},
        )

    def negative_elbo(self, networks: Mapping[str, nn.Module], batch: Batch) -> Tensor:
        """-ELBO of each image in nats, [B], with beta = 1 and one code drawn for each image."""
        reconstruction, kl = self._terms(networks, batch)
        return reconstruction + kl

    def negative_iwae(self, networks: Mapping[str, nn.Module], batch: Batch, *, samples: int = 64) -> Tensor:
        """A tighter bound of -log p(x) of each image in nats, [B].

        ``-log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)`` (Burda et al. 2016, eq. 8) with K = `samples` codes.
        """
        label = self._label(batch)
        mean, log_variance = networks["encoder"](batch.images, *label)
        weights = []
        for _ in range(samples):
            e = torch.randn_like(mean)
            z = mean + torch.exp(log_variance / 2) * e
            # log p(z) - log q(z|x); the constants of both Gaussians cancel.
            log_ratio = (e.square() + log_variance - z.square()).sum(dim=1) / 2
            weights.append(log_ratio - self._reconstruction(networks["decoder"](z, *label), batch.images))
        return math.log(samples) - torch.logsumexp(torch.stack(weights), dim=0)

    def _label(self, batch: Batch) -> tuple[Tensor, ...]:
        return (require_labels(batch),) if self.config.conditional else ()

    def _terms(self, networks: Mapping[str, nn.Module], batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstruction term and KL divergence of each image in nats, [B] each."""
        label = self._label(batch)
        mean, log_variance = networks["encoder"](batch.images, *label)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        kl = (torch.exp(log_variance) - 1 - log_variance + mean.square()).sum(dim=1) / 2
        return self._reconstruction(networks["decoder"](z, *label), batch.images), kl

    def _reconstruction(self, raw: Tensor, images: Tensor) -> Tensor:
        """``-log p(x|z)`` of each image in nats, [B], from the decoder's raw values."""
        if self.config.likelihood == "bernoulli":
            target = (images + 1) / 2
            nats = functional.binary_cross_entropy_with_logits(raw, target, reduction="none")
        else:
            sigma = self.config.sigma
            deviation = (images - mean_image(raw, "gaussian")) / sigma
            nats = deviation.square() / 2 + math.log(sigma * math.sqrt(2 * math.pi))
        return nats.flatten(1).sum(dim=1)

    @property
    def ema_networks(self) -> tuple[str, ...]:
        """Both: the decoder is exported, and the encoder goes with it for the ELBO."""
        return ("encoder", "decoder")

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``decoder``, all of which may be half precision."""
        return latent_plan(
            self.name,
            "decoder",
            MeanImage(networks["decoder"], self.config.likelihood),
            self.data,
            latent=self.config.latent,
            conditional=self.config.conditional,
        )
