"""The graphs around a diffusion model in a latent space: from its latents to images, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.spec.latent import LatentSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

NETWORK = "network"
"""The submodule that may be computed in half precision; the scaling around it stays float32."""


PREVIEWED = 64
"""Latents that a preview is fitted to."""


@dataclass(frozen=True)
class Autoencoder:
    """What is around a diffusion model that was trained on ``(z - shift) * scale``.

    `decoder` maps z [B, C, h, w] to images [B, C', H, W], about in the model's value range; `encoder` maps such
    images to z, the mean or the mode, where there is one. `shape`: (C, h, w). `preview` as in :class:`LatentSpec`,
    of what the diffusion model samples.
    """

    decoder: nn.Module
    shape: tuple[int, int, int]
    encoder: nn.Module | None = None
    scale: float = 1.0
    shift: float = 0.0
    preview: tuple[tuple[float, ...], ...] | None = None

    @property
    def latent(self) -> LatentSpec:
        """What a manifest says of it: scale and shift are in the graphs."""
        return LatentSpec(shape=self.shape, preview=self.preview)

    def modules(self) -> dict[str, nn.Module]:
        """The modules of its graphs, in eval mode, by the names of these."""
        found: dict[str, nn.Module] = {"decoder": LatentDecoder(self.decoder, self.scale, self.shift)}
        if self.encoder is not None:
            found["encoder"] = LatentEncoder(self.encoder, self.scale, self.shift)
        return {name: module.eval() for name, module in found.items()}

    def graphs(self, image: ImageSpec) -> tuple[GraphSpec, ...]:
        """The signatures of its graphs, for images of this kind."""
        latents = TensorSpec(name="latent", dtype="float32", shape=("batch", *self.shape), role="state")
        images = TensorSpec(
            name="image",
            dtype="float32",
            shape=("batch", *image.shape),
            role="image",
            value_range=image.value_range,
        )
        decoder = GraphSpec(name="decoder", inputs=(latents,), outputs=(images,))
        if self.encoder is None:
            return (decoder,)
        return decoder, GraphSpec(name="encoder", inputs=(images,), outputs=(latents,))


class LatentDecoder(nn.Module):
    """``decoder(latent / scale + shift)``, of latents as the diffusion model samples them."""

    def __init__(self, decoder: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.network, self.scale, self.shift = decoder, scale, shift

    def forward(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C', H, W]."""
        made: Tensor = self.network(latent / self.scale + self.shift)
        return made


class LatentEncoder(nn.Module):
    """``(encoder(image) - shift) * scale``."""

    def __init__(self, encoder: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.network, self.scale, self.shift = encoder, scale, shift

    def forward(self, image: Tensor) -> Tensor:
        """[B, C', H, W] to [B, C, h, w]."""
        made: Tensor = (self.network(image) - self.shift) * self.scale
        return made


@torch.no_grad()
def linear_preview(
    decoder: nn.Module, shape: tuple[int, int, int], *, scale: float, shift: float
) -> tuple[tuple[float, ...], ...]:
    """The preview of :class:`LatentSpec` that is nearest to what `decoder` makes, by least squares.

    Of made-up latents of mean 0 and variance 1, half of which all places of a latent share, as neighbours do. Made
    images are averaged over the pixels of each place. The same weights give the same preview.
    """
    generator, device = torch.Generator().manual_seed(0), next(decoder.parameters()).device
    flat = torch.randn(PREVIEWED, shape[0], 1, 1, generator=generator)
    latents = (flat + torch.randn(PREVIEWED, *shape, generator=generator)) * 0.5**0.5
    made = functional.adaptive_avg_pool2d(LatentDecoder(decoder, scale, shift)(latents.to(device)), shape[1:])
    places, pixels = (each.movedim(1, -1).flatten(0, 2).double().cpu() for each in (latents, made))
    biased = torch.cat((places, torch.ones(len(places), 1, dtype=torch.float64)), dim=1)
    fitted = torch.linalg.lstsq(biased, pixels).solution
    return tuple(tuple(row) for row in fitted.T.tolist())
