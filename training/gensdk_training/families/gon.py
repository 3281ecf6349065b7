"""GON: an autoencoder without an encoder: the latent is the gradient of the loss at the origin.

Paper: Bond-Taylor & Willcocks 2021, "Gradient Origin Networks" (ICLR; arXiv 2007.02798).

Idea: ``z = -grad_(z0) L(x, F(z0))`` at ``z0 = 0`` (eq. 6), then ``min_F L(x, F(z))`` (eq. 7): one gradient step
from the origin is the encoder. Training differentiates through that gradient, so it needs second derivatives, and
smooth activations (SiLU); afterwards first derivatives are enough. L is half the squared error, summed over the
image.

Networks: `decoder`, linear layers with SiLU and a final tanh; beside it the running mean and covariance of z.
Exports: ``sampler``, standard normal noise n through the Gaussian fitted to z, to the image; ``encoder``, the one
gradient step, its z as the n that the sampler makes z of; and ``inversion``, the gradient with respect to n, for
:meth:`Generator.invert` to go on from there where more steps are asked for.

It does not: use the implicit (coordinate) networks of the paper's section 5.2, or its variational form, whose
latents have a prior; the fitted Gaussian takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.spec.model import AscentSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase
from gensdk_training.graphs.input_gradient import InputGradient, WithAutograd, gradient_graph, target_input
from gensdk_training.graphs.latent_sampler import latent_plan, with_inversion
from gensdk_training.networks.latent_gaussian import LatentGaussian, LatentMoments
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class GonConfig(FamilyConfig):
    """Settings of :class:`Gon`.

    latent: Values in z.
    hidden: Features of the decoder's linear layers.
    """

    latent: Annotated[int, Field(ge=1, le=4096)] = 32
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=8)] = (
        256,
        512,
    )
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class Decoder(nn.Module):
    """F: z to an image, smooth in z."""

    def __init__(self, config: GonConfig, data: DataInfo) -> None:
        super().__init__()
        shape = (data.channels, data.height, data.width)
        sizes = (config.latent, *config.hidden, prod(shape))
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.body = nn.Sequential(*layers[:-1], nn.Unflatten(1, shape))
        self.moments = LatentMoments(config.latent)

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, Z] to images [B, C, H, W] in [-1, 1]."""
        return torch.tanh(self.body(z))


class SquaredError(nn.Module):
    """L: half the squared error of each image, summed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """`z` [B, Z] and `target` [B, C, H, W] to [B]."""
        return torch.sum((self.network(z) - target).square(), dim=(1, 2, 3)) / 2


class Sampler(nn.Module):
    """Noise through the fitted Gaussian to an image."""

    def __init__(self, gaussian: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.gaussian = gaussian
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, Z] standard normal to images [B, C, H, W]."""
        return cast(Tensor, self.decoder(self.gaussian(z)))


class OriginGradient(WithAutograd):
    """The encoder: ``z = -grad L`` at the origin, as the noise that `gaussian` makes this z of."""

    def __init__(self, decoder: nn.Module, gaussian: LatentGaussian) -> None:
        super().__init__()
        self.gradient = InputGradient(SquaredError(decoder))
        self.gaussian = gaussian

    def forward(self, image: Tensor) -> Tensor:
        """`image` [B, C, H, W] in [-1, 1] to [B, Z]."""
        mean = self.gaussian.get_buffer("mean")
        _, gradient = self.gradient(torch.zeros_like(mean).expand(image.shape[0], -1), image)
        return self.gaussian.whitened(-gradient)


@register("gon")
class Gon(Family[GonConfig]):
    """GON."""

    title = "GON: an autoencoder whose encoder is one gradient of its decoder"
    paper = "Bond-Taylor & Willcocks (2021), Gradient Origin Networks"
    Config = GonConfig
    ema_networks = ("decoder",)

    def build_networks(self) -> dict[str, nn.Module]:
        """`decoder`."""
        return {"decoder": Decoder(self.config, self.data)}

    def phases(self) -> tuple[Phase, ...]:
        """One."""
        return (Phase("decoder", ("decoder",), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Squared error at ``z = -grad L(0)``, for each pixel and channel, mean over the batch."""
        decoder = cast(Decoder, networks["decoder"])
        origin = torch.zeros(len(batch.images), self.config.latent, device=batch.images.device, requires_grad=True)
        error = SquaredError(decoder)
        (gradient,) = torch.autograd.grad(error(origin, batch.images).sum(), origin, create_graph=True)
        decoder.moments.update(-gradient)
        total = error(-gradient, batch.images).mean() * 2 / batch.images[0].numel()
        return Loss(total, {"latent_norm": gradient.detach().norm(dim=1).mean()})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``sampler``, ``encoder`` and ``inversion``; the decoder may be half precision in all three."""
        decoder, size = cast(Decoder, networks["decoder"]), self.config.latent
        gaussian = decoder.moments.gaussian()
        sampler = Sampler(gaussian, decoder)
        plan = latent_plan(self.name, "sampler", sampler, self.data, latent=size, conditional=False)
        latent = TensorSpec(name="latent", dtype="float32", shape=("batch", size), role="state")
        image = target_input(self.data.image, "image")
        gradient = gradient_graph("inversion", (size,), (target_input(self.data.image),))
        spec = AscentSpec(
            objectives={"squared_error": gradient.name},
            decoder="sampler",
            encoder="encoder",
            defaults=AscentSettings(learning_rate=0.05, lr_schedule="linear", num_inference_steps=0),
        )
        modules = {
            GraphSpec(name="encoder", inputs=(image,), outputs=(latent,)): OriginGradient(decoder, gaussian),
            gradient: InputGradient(SquaredError(sampler)),
        }
        half = {
            "sampler": ("network.decoder",),
            "encoder": ("gradient.objective.network",),
            "inversion": ("objective.network.decoder",),
        }
        return with_inversion(plan, spec, modules, half=half)
