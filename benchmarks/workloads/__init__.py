"""What is measured: models by name, each as torch modules and as a gensdk bundle of the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from gensdk_training.plan import ExportPlan


@dataclass(frozen=True)
class Case:
    """One size of a workload: `batch` images at once; `steps` of the sampler, None where it has none."""

    batch: int
    steps: int | None = None


@dataclass(frozen=True)
class Model:
    """What a workload's function builds.

    `plan` is what gensdk exports. `network` is what a PyTorch user would call, over the same weights: of a
    diffusion model (x [N, C, H, W], timestep [N] or [1]) to eps, of an autoregressive one images [N, C, H, W] to
    logits [N, C, H, W, levels], of others the generator.
    """

    plan: ExportPlan
    network: nn.Module


@dataclass(frozen=True)
class Workload:
    """A model to measure. `source` is ``module:function``, and the function builds its :class:`Model`."""

    name: str
    title: str
    source: str
    cases: tuple[Case, ...]


_ALL = (
    Workload(
        "cifar10-unet",
        "diffusers' UNet2DModel of google/ddpm-cifar10-32 (35.7 M parameters), 3x32x32, DDIM, random weights",
        "workloads.cifar10_unet:build",
        (Case(1, 10), Case(8, 5)),
    ),
    Workload(
        "digits-ddpm",
        "the embedded digits DDPM's U-Net (0.2 M parameters), 1x8x8, DDIM, trained",
        "workloads.digits_ddpm:build",
        (Case(1, 10), Case(8, 10), Case(64, 10)),
    ),
    Workload(
        "pix2pix-256",
        "pix2pix's U-Net generator (54.4 M parameters), 3x256x256, random weights",
        "workloads.pix2pix:build",
        (Case(1), Case(4)),
    ),
    Workload(
        "dcgan-64",
        "DCGAN's generator (3.6 M parameters), 3x64x64, random weights",
        "workloads.dcgan:build",
        (Case(1), Case(64)),
    ),
    Workload(
        "pixelcnn-28",
        "gated PixelCNN, 10 layers of 64 features, 1x28x28, 17 grey levels, random weights",
        "workloads.pixelcnn:build",
        (Case(1), Case(64)),
    ),
)

WORKLOADS = {workload.name: workload for workload in _ALL}

DIGITS_DCGAN = Workload(
    "digits-dcgan",
    "the embedded digits DCGAN's generator (0.05 M parameters), 1x8x8, one class, trained",
    "workloads.digits_dcgan:build",
    (Case(1), Case(8), Case(64)),
)
"""For the first day on a GPU: what the smallest call costs. It is no part of the comparison on processors, where
`dcgan-64` stands for generators."""
