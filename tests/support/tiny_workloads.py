"""The smallest workloads of the comparison, one for each kind of program."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from workloads import Model

from gensdk_runtime.spec.model import ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_training.families.dcgan import Dcgan, DcganConfig
from gensdk_training.families.pixelcnn import PixelCnn, PixelCnnConfig
from gensdk_training.family import DataInfo
from gensdk_training.graphs.diffusion_plan import diffusion_plan

IMAGES = DataInfo(name="tiny", channels=1, height=8, width=8, count=1)


class Denoiser(nn.Module):
    """Two convolutions, shifted by the time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x) + timestep.reshape(-1, 1, 1, 1) / 1000))


def diffusion() -> Model:
    denoiser = Denoiser()
    image = ImageSpec(channels=1, height=8, width=8)
    plan = diffusion_plan(denoiser, image, ScheduleSpec(), name="tiny-diffusion", family="test")
    return Model(plan, denoiser.eval())


def generator() -> Model:
    family = Dcgan(DcganConfig(latent=6, generator_channels=4, discriminator_channels=4), IMAGES)
    networks = family.build_networks()
    for weight in networks["generator"].parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.3)
    return Model(family.export_plan(networks), networks["generator"].eval())


def pixels() -> Model:
    family = PixelCnn(PixelCnnConfig(layers=2, channels=8, head_channels=8, first_kernel=3), IMAGES)
    networks = family.build_networks()
    return Model(family.export_plan(networks), networks["pixelcnn"].eval())
