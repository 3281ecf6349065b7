"""Encoders and decoders between images and flat codes, that the autoencoders and BiGAN share."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from gensdk_training.family import DataInfo, FamilyConfig
from gensdk_training.networks.dense import linears
from gensdk_training.networks.labelled_latent import LabelledLatent
from gensdk_training.networks.strided import down_stack, halvings, up_stack, widths


class CoderConfig(FamilyConfig):
    """Settings of an encoder and a decoder. The defaults suit MNIST and smaller grey images.

    architecture: Linear layers (mlp), for any size, or strided convolutions (conv).
    latent: Values in a code.
    hidden: Features of the encoder's linear layers; the decoder has them in reverse. For mlp.
    channels: Features after the first halving of the image, doubling with each further one. For conv.
    """

    architecture: Literal["mlp", "conv"] = "mlp"
    latent: Annotated[int, Field(ge=1, le=4096)] = 32
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=8)] = (
        512,
        256,
    )
    channels: Annotated[int, Field(ge=1, le=65536)] = 32


def check_size(config: CoderConfig, data: DataInfo, family: str) -> None:
    """Raises :class:`InputError` for images that the convolutions can't halve."""
    if config.architecture == "conv":
        halvings(data.height, data.width, family=f"{family} with architecture=conv")


class ImageEncoder(nn.Module):
    """An image, and a label as an `embedding`, to `outputs` values."""

    def __init__(
        self, config: CoderConfig, data: DataInfo, *, outputs: int, classes: int | None = None, embedding: int = 0
    ) -> None:
        super().__init__()
        if config.architecture == "mlp":
            features = data.channels * data.height * data.width
            self.body: nn.Module = nn.Flatten()
            hidden = config.hidden
        else:
            times = halvings(data.height, data.width, family="architecture=conv")
            stack = widths(config.channels, times)
            features = stack[-1] * (data.height >> times) * (data.width >> times)
            self.body = nn.Sequential(down_stack(data.channels, stack, normalize=True), nn.Flatten())
            hidden = ()
        self.labelled = LabelledLatent(features, classes=classes, embedding=embedding)
        self.head = linears(self.labelled.size, *hidden, outputs)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to [B, outputs]."""
        values: Tensor = self.head(self.labelled(self.body(images), label))
        return values


class ImageDecoder(nn.Module):
    """A code, and a label as an `embedding`, to raw values of an image, of any size; the caller bounds them."""

    def __init__(
        self, config: CoderConfig, data: DataInfo, *, classes: int | None = None, embedding: int = 0
    ) -> None:
        super().__init__()
        shape = (data.channels, data.height, data.width)
        self.labelled = LabelledLatent(config.latent, classes=classes, embedding=embedding)
        if config.architecture == "mlp":
            layers = linears(self.labelled.size, *reversed(config.hidden), math.prod(shape))
            self.body: nn.Module = nn.Sequential(layers, nn.Unflatten(1, shape))
        else:
            times = halvings(data.height, data.width, family="architecture=conv")
            self.body = up_stack(self.labelled.size, widths(config.channels, times)[::-1], shape)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] to raw values [B, C, H, W]."""
        raw: Tensor = self.body(self.labelled(z, label))
        return raw
