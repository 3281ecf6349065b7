"""DDPM's CIFAR-10 U-Net as diffusers has it (google/ddpm-cifar10-32), under a step graph of ours.

Paper: Ho, Jain & Abbeel (2020), "Denoising Diffusion Probabilistic Models", appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from diffusers import UNet2DModel
from torch import Tensor, nn

from gensdk_runtime.spec.model import ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from workloads import Model
from workloads.diffusers_unet import DiffusersUNet

IMAGE = ImageSpec(channels=3, height=32, width=32)


def build_unet() -> nn.Module:
    """The U-Net with the configuration of google/ddpm-cifar10-32 and fresh weights."""
    make = cast(Callable[..., nn.Module], UNet2DModel)
    return make(
        sample_size=IMAGE.height,
        in_channels=IMAGE.channels,
        out_channels=IMAGE.channels,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    ).eval()


class Denoiser(nn.Module):
    """(x [N, 3, 32, 32], timestep [N] or [1]) to eps of x's shape."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Eps, as a plain tensor."""
        return cast(Tensor, self.unet(x, timestep, return_dict=False)[0])


def build() -> Model:
    """The embedding apart, and deep features shared on request; the network is diffusers' own, untouched."""
    unet = build_unet()
    plan = diffusion_plan(
        DiffusersUNet(unet), IMAGE, ScheduleSpec(), name="cifar10-unet", family="ddpm", share_features=1
    )
    return Model(plan, Denoiser(unet))
