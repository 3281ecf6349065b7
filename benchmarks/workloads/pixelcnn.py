"""Gated PixelCNN on images of MNIST's size: 7x7, then 3x3, in 10 layers of 64 features.

As large as the network that the bounds were set with, whose 784 passes take about 19 s on two cores. The family's
default, 7 layers of 20 features, is a toy beside published ones, and there is little to save in its passes.
"""

from __future__ import annotations

from gensdk_training.families.pixelcnn import PixelCnn, PixelCnnConfig
from gensdk_training.family import DataInfo
from workloads import Model

MNIST = DataInfo(name="mnist", channels=1, height=28, width=28, count=60000)


def build() -> Model:
    """Row, pixel and likelihood graphs; the network is the parallel pass over whole images."""
    family = PixelCnn(PixelCnnConfig(layers=10, channels=64), MNIST)
    networks = family.build_networks()
    return Model(family.export_plan(networks), networks["pixelcnn"].eval())
