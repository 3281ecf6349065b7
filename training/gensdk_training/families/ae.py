"""AE: a plain autoencoder, which can't be sampled well, and shows why a VAE is worth its prior.

Paper: Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks" (Science 313).

Idea: ``min E ||x - D(E(x))||^2`` over encoder E and decoder D, the code being smaller than the image. Nothing asks
the codes to fill their space, so most points between and around them decode to no image at all.

Networks: `encoder` and `decoder`, as those of the family vae. The decoder keeps the running mean and standard
deviation of each value of the codes: the exported latent is the code less its mean, in standard deviations.
Exports: ``decoder``: z to the image, for reconstruction and to walk between the codes of images; and
``encoder``. Sampling decodes N(0, 1) for z, a Gaussian with the codes' own mean and spread: the best that can be
said about them one value at a time, and still not where the codes lie. Samples are expected to be bad.

It does not: have a prior or a likelihood, take labels, add noise to its input, or ask for sparse codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_training.family import Batch, DataInfo, Family, Loss, Phase, network_of
from gensdk_training.graphs.latent_sampler import latent_plan, with_encoder
from gensdk_training.networks.coder import CoderConfig, ImageDecoder, ImageEncoder, check_size
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

SMALLEST_SPREAD = 1e-4
"""Of a code's value: one that never changes is not blown up."""


class AeConfig(CoderConfig):
    """Settings of :class:`Ae`, beside those of :class:`CoderConfig`.

    momentum: How far each batch moves the running statistics of the codes.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.02


class CodeDecoder(ImageDecoder):
    """D, with the running `mean` and `variance` of the codes [latent] that it was trained on."""

    mean: Tensor
    variance: Tensor

    def __init__(self, config: AeConfig, data: DataInfo) -> None:
        super().__init__(config, data)
        self.momentum = config.momentum
        self.register_buffer("mean", torch.zeros(config.latent))
        self.register_buffer("variance", torch.ones(config.latent))

    def note(self, codes: Tensor) -> None:
        """Moves the statistics towards those of `codes` [B, latent], around the running mean."""
        codes = codes.detach().float()
        self.mean.lerp_(codes.mean(dim=0), self.momentum)
        self.variance.lerp_((codes - self.mean).square().mean(dim=0), self.momentum)

    @property
    def spread(self) -> Tensor:
        """The standard deviation of each value of the codes, [latent]."""
        return self.variance.sqrt().clamp_min(SMALLEST_SPREAD)


class Standardized(nn.Module):
    """Encoder and decoder as they are exported: around codes of mean 0 and standard deviation 1."""

    mean: Tensor
    spread: Tensor

    def __init__(self, network: nn.Module, decoder: CodeDecoder, *, decodes: bool) -> None:
        super().__init__()
        self.network = network
        self.decodes = decodes
        self.register_buffer("mean", decoder.mean.detach().clone())
        self.register_buffer("spread", decoder.spread.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        """z [B, latent] to images [B, C, H, W] in [-1, 1], or images to z."""
        if self.decodes:
            return torch.tanh(self.network(self.mean + self.spread * values))
        code: Tensor = self.network(values)
        return (code - self.mean) / self.spread


@register("ae")
class Ae(Family[AeConfig]):
    """Autoencoder."""

    title = "autoencoder: good reconstructions, no prior, so hardly any good samples"
    paper = "Hinton & Salakhutdinov (2006), Reducing the Dimensionality of Data with Neural Networks"
    Config = AeConfig
    ema_networks = ("encoder", "decoder")

    def check(self) -> None:
        """Raises :class:`InputError` where the size of the data doesn't go with the config."""
        check_size(self.config, self.data, "ae")

    def build_networks(self) -> dict[str, nn.Module]:
        """`encoder` and `decoder`."""
        return {
            "encoder": ImageEncoder(self.config, self.data, outputs=self.config.latent),
            "decoder": CodeDecoder(self.config, self.data),
        }

    def phases(self) -> tuple[Phase, ...]:
        """One phase: both networks."""
        return (Phase("reconstruction", ("encoder", "decoder"), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """``||x - D(E(x))||^2``, summed over an image of values in [-1, 1], the mean over the batch."""
        codes = networks["encoder"](batch.images)
        decoder = networks["decoder"]
        if decoder.training and isinstance(decoder, CodeDecoder):
            decoder.note(codes)
        error = (batch.images - torch.tanh(decoder(codes))).square()
        return Loss(error.flatten(1).sum(dim=1).mean(), {"rmse": error.detach().mean().sqrt()})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``decoder`` and ``encoder``, all of which may be half precision."""
        decoder, latent = network_of(networks, "decoder", CodeDecoder), self.config.latent
        image = Standardized(decoder, decoder, decodes=True)
        plan = latent_plan(self.name, "decoder", image, self.data, latent=latent, conditional=False)
        code = Standardized(networks["encoder"], decoder, decodes=False)
        return with_encoder(plan, code, self.data, latent=latent)
