"""The embedded digits DCGAN: its family and recipe, the weights of the bundle, and one class of digits."""

from __future__ import annotations

from typing import cast

import torch
from recipes import RECIPES
from torch import Tensor, nn

from gensdk_training.family import DataInfo
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.registry import get_family
from workloads import Model
from workloads.digits_ddpm import DIGITS
from workloads.embedded import embedded_weights

CLASS = 3
"""gensdk draws a class for each sample from its seed, which peers know nothing of: here all are of one."""


class OneClass(nn.Module):
    """z [N, 32] to images [N, 1, 8, 8] of the class CLASS."""

    label: Tensor

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("label", torch.tensor([CLASS]), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """The generator with the class for each row of `z`."""
        return cast(Tensor, self.generator(z, self.label.expand(z.shape[0])))


def build() -> Model:
    """One graph from z to images; the bundle's batch norms are part of its convolutions, and here too."""
    recipe = RECIPES["digits-dcgan"]
    family_type = get_family(recipe.family)
    family = family_type(family_type.Config(**recipe.config), DIGITS)
    generator = without_norms(family.build_networks()["generator"])
    shapes = {key: weight.shape for key, weight in generator.state_dict().items()}
    generator.load_state_dict(embedded_weights("digits-dcgan", shapes))
    network = OneClass(generator).eval()
    data: DataInfo = DIGITS.model_copy(update={"num_classes": None})
    plan = latent_plan("dcgan", "generator", network, data, latent=recipe.config["latent"], conditional=False)
    return Model(plan, network)


def without_norms(network: nn.Module) -> nn.Module:
    """`network` without its batch norms: the convolutions before them have their scales, and biases for the
    rest."""
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.BatchNorm2d):
                before = layers[place - 1]
                assert isinstance(before, nn.Conv2d | nn.ConvTranspose2d)
                before.bias = nn.Parameter(torch.zeros(before.out_channels))
                layers[place] = nn.Identity()
    return network
