"""A tiny diffusion model in the latent space of a tiny autoencoder, with random weights that matter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.model import ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_training.graphs.autoencoder import Autoencoder
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from gensdk_training.networks.unet import UNet, UNetShape
from gensdk_training.plan import ExportPlan

IMAGE = ImageSpec(channels=3, height=16, width=8, value_range=(0.0, 1.0))
SHAPE = (4, 4, 2)
SCALE, SHIFT = 0.4, 0.3
PREVIEW = ((0.1, 0.2, 0.0, -0.1, 0.5), (0.0, 0.3, 0.1, 0.0, 0.5), (0.2, 0.0, -0.2, 0.1, 0.4))


class Decoder(nn.Module):
    """Four times as high and wide; some values lie outside of the range of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(SHAPE[0], 16, 4, stride=4)
        self.norm = nn.GroupNorm(4, 16)
        self.last = nn.Conv2d(16, IMAGE.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = 0.5 + 0.5 * self.last(torch.nn.functional.silu(self.norm(self.first(z))))
        return made


class Encoder(nn.Module):
    """A quarter as high and wide."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(IMAGE.channels, 16, 4, stride=4)
        self.last = nn.Conv2d(16, SHAPE[0], 1)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.last(torch.nn.functional.silu(self.first(images)))
        return made


def latent_plan(*, num_classes: int | None = 3, encoder: bool = True, **options: Any) -> ExportPlan:
    shape = UNetShape(
        image_channels=SHAPE[0],
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        attention_levels=frozenset([1]),
        attention_heads=2,
        norm_groups=4,
        dropout=0.0,
        num_labels=None if num_classes is None else num_classes + 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = UNet(shape), Decoder(), Encoder()
        for network in networks:
            for weight in network.parameters():
                nn.init.normal_(weight, mean=0.02, std=0.6 / weight[0].numel() ** 0.5)
    denoiser, decoder, encodes = (network.eval() for network in networks)
    around = Autoencoder(decoder, SHAPE, encodes if encoder else None, scale=SCALE, shift=SHIFT, preview=PREVIEW)
    return diffusion_plan(
        denoiser,
        IMAGE,
        ScheduleSpec(num_train_timesteps=100),
        name="latent",
        family="test",
        num_classes=num_classes,
        autoencoder=around,
        **options,
    )
