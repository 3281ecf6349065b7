"""Gated PixelCNN on images of MNIST's size, with the family's default depth and width (zoo: 7x7, then 3x3)."""

from __future__ import annotations

from gensdk_training.families.pixelcnn import PixelCnn, PixelCnnConfig
from gensdk_training.family import DataInfo
from workloads import Model

MNIST = DataInfo(name="mnist", channels=1, height=28, width=28, count=60000)


def build() -> Model:
    """Row, pixel and likelihood graphs; the network is the parallel pass over whole images."""
    family = PixelCnn(PixelCnnConfig(), MNIST)
    networks = family.build_networks()
    return Model(family.export_plan(networks), networks["pixelcnn"].eval())
