"""Variational autoencoder: images through a narrow random code; sampling decodes codes from the prior.

Paper: Kingma & Welling 2014, "Auto-Encoding Variational Bayes" (arXiv 1312.6114).

Idea: an encoder gives mean and variance of a Gaussian q(z|x), a decoder the mean of p(x|z), and both maximize
a lower bound of log p(x), the ELBO: ``-ELBO = -E_q log p(x|z) + beta KL(q(z|x) || N(0, 1))`` (the paper's
eq. 10; beta as in Higgins et al. 2017, beta-VAE). The reconstruction term is a Bernoulli likelihood with the
grey values in [0, 1] as soft targets, or a Gaussian one with a fixed `sigma`. A class label enters both
networks as an embedding.

Networks: `encoder` and `decoder`, of linear layers ("mlp"), or of strided convolutions with batch norm
("conv") for images from about 32x32 up.
Exports: ``decoder``: z and the label to the mean image; and ``encoder``: an image and the label to the mean of
q(z|x), for ``Generator.encode`` and ``reconstruct``.

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
from gensdk_training.family import Batch, DataInfo, Family, Loss, Phase, require_labels
from gensdk_training.graphs.latent_sampler import latent_plan, with_encoder
from gensdk_training.networks.coder import CoderConfig, ImageDecoder, ImageEncoder, check_size
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

Likelihood = Literal["bernoulli", "gaussian"]


class VaeConfig(CoderConfig):
    """Settings of :class:`Vae`, beside those of :class:`CoderConfig`.

    likelihood: How a pixel is modelled: as the probability of white, or as a Gaussian.
    sigma: Standard deviation of the Gaussian likelihood, for values in [-1, 1].
    beta: Weight of the KL term.
    embedding: Values that a label becomes. With conditional.
    """

    likelihood: Likelihood = "bernoulli"
    sigma: Annotated[float, Field(gt=0)] = 0.2
    beta: Annotated[float, Field(ge=0)] = 1.0
    conditional: bool = False
    embedding: Annotated[int, Field(ge=1, le=1024)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class Encoder(ImageEncoder):
    """q(z|x): an image, and a label, to mean and log variance of each value of the code."""

    def __init__(self, config: VaeConfig, data: DataInfo, classes: int | None) -> None:
        super().__init__(config, data, outputs=2 * config.latent, classes=classes, embedding=config.embedding)

    def forward(self, images: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """`images` [B, C, H, W] in [-1, 1] to (mean, log variance), each [B, latent]."""
        mean, log_variance = super().forward(images, label).chunk(2, dim=1)
        return mean, log_variance


class MeanCode(nn.Module):
    """The mean of q(z|x)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to [B, latent]."""
        mean: Tensor = self.encoder(images, label)[0]
        return mean


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
    ema_networks = ("encoder", "decoder")  # both: decoder and encoder are exported

    def check(self) -> None:
        """Raises :class:`InputError` where size or labels of the data don't go with the config."""
        config, data = self.config, self.data
        if config.conditional and data.num_classes is None:
            raise InputError(f"conditional needs labels, but {data.name!r} has none; set conditional=false")
        check_size(config, data, "vae")

    @property
    def _num_classes(self) -> int | None:
        return self.data.num_classes if self.config.conditional else None

    def build_networks(self) -> dict[str, nn.Module]:
        """`encoder` and `decoder`."""
        return {
            "encoder": Encoder(self.config, self.data, self._num_classes),
            "decoder": ImageDecoder(
                self.config, self.data, classes=self._num_classes, embedding=self.config.embedding
            ),
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

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``decoder`` and ``encoder``, all of which may be half precision."""
        plan = latent_plan(
            self.name,
            "decoder",
            MeanImage(networks["decoder"], self.config.likelihood),
            self.data,
            latent=self.config.latent,
            conditional=self.config.conditional,
        )
        return with_encoder(plan, MeanCode(networks["encoder"]), self.data, latent=self.config.latent)
