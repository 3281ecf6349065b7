"""Generators and discriminators of GANs, convolutional or of linear layers, by choice with labels.

The discriminators give one number for each sample without a final sigmoid: a logit, or a critic's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.family import DataInfo
from gensdk_training.networks.dense import linears
from gensdk_training.networks.labelled_latent import LabelledLatent
from gensdk_training.networks.strided import down_stack, halvings, up_stack, widths

Wrap = Callable[[nn.Module], nn.Module]


class ConvGenerator(nn.Module):
    """G: z, and a label, to an image, by transposed convolutions (Radford et al. 2015, section 3)."""

    def __init__(
        self, data: DataInfo, *, latent: int, channels: int, family: str, classes: int | None, embedding: int
    ) -> None:
        super().__init__()
        times = halvings(data.height, data.width, family=family)
        self.labelled = LabelledLatent(latent, classes=classes, embedding=embedding)
        self.body = up_stack(self.labelled.size, widths(channels, times)[::-1], data.image.shape)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] to images [B, C, H, W] in [-1, 1]."""
        return torch.tanh(self.body(self.labelled(z, label)))


class ConvDiscriminator(nn.Module):
    """D: an image, and a label as one more channel of it, to a number, by strided convolutions."""

    def __init__(
        self,
        data: DataInfo,
        *,
        channels: int,
        family: str,
        classes: int | None = None,
        normalize: bool = True,
        wrap: Wrap | None = None,
        packing: int = 1,
    ) -> None:
        super().__init__()
        times = halvings(data.height, data.width, family=family)
        outputs = widths(channels, times)
        core = (data.height >> times, data.width >> times)
        self.packing = packing
        self.embedding = nn.Embedding(classes, data.height * data.width) if classes else None
        inputs = packing * data.channels + (1 if classes else 0)
        self.body = down_stack(inputs, outputs, normalize=normalize, wrap=wrap)
        logit = nn.Conv2d(outputs[-1], 1, core)
        self.logit = wrap(logit) if wrap else logit

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to [B / packing]."""
        images = packed(images, self.packing)
        if self.embedding is not None and label is not None:
            channel = self.embedding(label).reshape(-1, 1, *images.shape[2:])
            images = torch.cat((images, channel), dim=1)
        logits: Tensor = self.logit(self.body(images))
        return logits.flatten()


class MlpGenerator(nn.Module):
    """G: z, and a label, to an image or a point, by linear layers with ReLU."""

    def __init__(
        self, data: DataInfo, *, latent: int, hidden: tuple[int, ...], classes: int | None, embedding: int
    ) -> None:
        super().__init__()
        self.shape = data.output.shape
        self.bounded = data.on_a_grid
        self.labelled = LabelledLatent(latent, classes=classes, embedding=embedding)
        self.body = linears(self.labelled.size, *hidden, math.prod(self.shape))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] to images [B, C, H, W] in [-1, 1], or to scaled points [B, D], which no tanh bounds."""
        raw: Tensor = self.body(self.labelled(z, label))
        return (torch.tanh(raw) if self.bounded else raw).reshape(-1, *self.shape)


class MlpDiscriminator(nn.Module):
    """D: an image or a point, and a label as that many more values, to a number, by linear layers."""

    def __init__(
        self,
        data: DataInfo,
        *,
        hidden: tuple[int, ...],
        classes: int | None = None,
        wrap: Wrap | None = None,
        packing: int = 1,
    ) -> None:
        super().__init__()
        features = math.prod(data.output.shape)
        self.packing = packing
        self.embedding = nn.Embedding(classes, features) if classes else None
        inputs = packing * features + (features if classes else 0)
        self.body = linears(inputs, *hidden, 1, slope=0.2, wrap=wrap)

    def forward(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """`samples` [B, ...] to [B / packing]."""
        flat = packed(samples, self.packing).flatten(1)
        if self.embedding is not None and label is not None:
            flat = torch.cat((flat, self.embedding(label)), dim=1)
        value: Tensor = self.body(flat)
        return value.flatten()


def packed(samples: Tensor, packing: int) -> Tensor:
    """`samples` [B, C, ...] in groups of `packing`, as channels of one: [B / packing, packing C, ...].

    PacGAN (Lin et al. 2018, section 3): a discriminator that sees several samples at once sees whether they vary.
    Raises :class:`InputError` where the batch can't be cut so.
    """
    if packing == 1:
        return samples
    if len(samples) % packing:
        raise InputError(f"a batch of {len(samples)} can't be packed in groups of {packing}; change batch_size")
    return samples.reshape(len(samples) // packing, packing * samples.shape[1], *samples.shape[2:])
