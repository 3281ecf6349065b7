"""GLO: a generator by regression, with a learned latent for each image in place of an adversary.

Paper: Bojanowski, Joulin, Lopez-Paz & Szlam 2018, "Optimizing the Latent Space of Generative Networks" (arXiv
1707.05776).

Idea: ``min_G 1/N sum_i min_(z_i) loss(G(z_i), x_i)`` over the generator and all z_i together (eq. 2), z_i kept in
the unit ball, the loss being the L1 distance of Laplacian pyramids (eq. 3). Nothing plays against anything, and no
encoder is needed. What is sampled: a Gaussian fitted to the latents (section 3.2). An image that was not seen is
found by descent on z (section 3.3): :meth:`Generator.invert`.

Networks: `decoder`, of transposed convolutions as in DCGAN; `latents`, one row for each image of the data.
Exports: ``decoder``, standard normal z through the fitted Gaussian to the image, and ``inversion``, the gradient
of the loss with respect to z. The latents themselves stay behind: only their mean and covariance are exported.

It does not: start from PCA (as the paper does on large data), or use the sum of Laplacian and L2 loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.spec.model import AscentSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase, require_indices
from gensdk_training.graphs.input_gradient import InputGradient, gradient_graph, target_input
from gensdk_training.graphs.latent_sampler import latent_plan, with_inversion
from gensdk_training.losses.laplacian import laplacian_l1
from gensdk_training.networks.latent_gaussian import LatentGaussian
from gensdk_training.networks.strided import halvings, up_stack, widths
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class GloConfig(FamilyConfig):
    """Settings of :class:`Glo`.

    latent: Values in z, in the unit ball.
    channels: Features before the decoder's last layer, doubling towards its first.
    learning_rate: Step size of the decoder's optimizer.
    latent_rate: How many times as fast as the decoder the latents learn.
    inversion_steps: Steps of Adam that find the latent of an image, by default.
    """

    latent: Annotated[int, Field(ge=1, le=4096)] = 32
    channels: Annotated[int, Field(ge=1, le=65536)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    latent_rate: Annotated[float, Field(gt=0)] = 10.0
    inversion_steps: Annotated[int, Field(ge=1, le=10_000)] = 200


class Decoder(nn.Module):
    """G: a latent in the unit ball to an image."""

    def __init__(self, config: GloConfig, data: DataInfo) -> None:
        super().__init__()
        times = halvings(data.height, data.width, family="glo")
        self.body = up_stack(config.latent, widths(config.channels, times)[::-1], data.image.shape)

    def forward(self, latent: Tensor) -> Tensor:
        """`latent` [B, Z] to images [B, C, H, W] in [-1, 1]."""
        return torch.tanh(self.body(latent))


class Latents(nn.Module):
    """One latent for each image. Its weights are divided by `rate`, so that Adam moves latents as much faster."""

    def __init__(self, count: int, size: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.rows = nn.Embedding(count, size)
        nn.init.normal_(self.rows.weight, std=1 / (rate * size**0.5))

    def forward(self, indices: Tensor) -> Tensor:
        """int64 [B] to latents [B, Z] in the unit ball."""
        return in_ball(self.rate * self.rows(indices))

    def gaussian(self) -> LatentGaussian:
        """The Gaussian of all latents."""
        latents = in_ball(self.rate * self.rows.weight.detach())
        mean = latents.mean(dim=0)
        return LatentGaussian(mean, (latents - mean).T @ (latents - mean) / len(latents))


class SampledDecoder(nn.Module):
    """Noise through the fitted Gaussian, into the ball, to an image."""

    def __init__(self, gaussian: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.gaussian = gaussian
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, Z] standard normal to images [B, C, H, W] in [-1, 1]."""
        return cast(Tensor, self.decoder(in_ball(self.gaussian(z))))


class PyramidDistance(nn.Module):
    """How far the image of a z is from a target."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """`z` [B, Z] and `target` [B, C, H, W] to [B]."""
        return laplacian_l1(self.network(z), target)


def in_ball(latents: Tensor) -> Tensor:
    """``z / max(|z|, 1)`` for each row."""
    norms = latents.square().sum(dim=1, keepdim=True).clamp(min=1.0).sqrt()
    return latents / norms


@register("glo")
class Glo(Family[GloConfig]):
    """GLO."""

    title = "GLO: a generator by regression on learned latents, Laplacian pyramid loss"
    paper = "Bojanowski, Joulin, Lopez-Paz & Szlam (2018), Optimizing the Latent Space of Generative Networks"
    Config = GloConfig
    ema_networks = ("decoder", "latents")  # both: the Gaussian is fitted to the latents

    def check(self) -> None:
        """Raises :class:`InputError` for sizes that can't be halved."""
        halvings(self.data.height, self.data.width, family="glo")

    def notes(self) -> tuple[str, ...]:
        """Whether there are images that are never met: their latents stay what chance made them."""
        met, count = self.config.steps * self.config.batch_size, self.data.count
        if met >= count:
            return ()
        return (
            f"{self.config.steps} steps of {self.config.batch_size} meet {met} of {count} images; the latents of "
            "the others are not learnt: more steps, or fewer images",
        )

    def build_networks(self) -> dict[str, nn.Module]:
        """`decoder` and `latents`."""
        config = self.config
        return {
            "decoder": Decoder(config, self.data),
            "latents": Latents(self.data.count, config.latent, config.latent_rate),
        }

    def phases(self) -> tuple[Phase, ...]:
        """One: decoder and latents together."""
        return (Phase("regression", ("decoder", "latents"), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The distance of pyramids for each pixel and channel, mean over the batch."""
        made = networks["decoder"](networks["latents"](require_indices(batch)))
        total = laplacian_l1(made, batch.images).mean() / batch.images[0].numel()
        return Loss(total, {"squared_error": (made.detach() - batch.images).square().mean()})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``decoder``, all but the Gaussian open to half precision, and ``inversion`` in float32: the sign of a
        difference of images does not survive rounding."""
        gaussian = cast(Latents, networks["latents"]).gaussian()
        network = SampledDecoder(gaussian, networks["decoder"])
        plan = latent_plan(self.name, "decoder", network, self.data, latent=self.config.latent, conditional=False)
        graph = gradient_graph("inversion", (self.config.latent,), (target_input(self.data.image),))
        spec = AscentSpec(
            objectives={"pyramid": graph.name},
            decoder="decoder",
            start="noise",  # around the mean of the latents, which lie near the sphere, nothing was learnt
            defaults=AscentSettings(
                learning_rate=0.1, num_inference_steps=self.config.inversion_steps, patience=50
            ),
        )
        module = InputGradient(PyramidDistance(network))
        return with_inversion(plan, spec, {graph: module}, half={"decoder": ("network.decoder",)})
