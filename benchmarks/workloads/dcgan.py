"""DCGAN's generator at its paper's size: z of 100, 64x64 images, 64 channels before the last layer."""

from __future__ import annotations

import torch

from gensdk_training.families.dcgan import Dcgan, DcganConfig
from gensdk_training.family import DataInfo
from workloads import Model
from workloads.batch_norms import calibrate_batch_norms

IMAGES = DataInfo(name="images", channels=3, height=64, width=64, count=1)


def build() -> Model:
    """One graph: z to images."""
    family = Dcgan(DcganConfig(), IMAGES)
    networks = family.build_networks()
    calibrate_batch_norms(networks["generator"], (torch.randn(32, family.config.latent) for _ in range(2)))
    return Model(family.export_plan(networks), networks["generator"])
