"""The embedded digits DDPM: its family and recipe, and the weights of the bundle."""

from __future__ import annotations

from typing import cast

import torch
from recipes import RECIPES
from torch import Tensor, nn

from gensdk_training.family import DataInfo
from gensdk_training.registry import get_family
from workloads import Model
from workloads.embedded import embedded_weights

DIGITS = DataInfo(name="digits", channels=1, height=8, width=8, count=1438, num_classes=10)


class Unlabelled(nn.Module):
    """The U-Net as a model without classes: (x, timestep) to eps, with the label that means "none"."""

    none: Tensor

    def __init__(self, unet: nn.Module, classes: int) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("none", torch.tensor([classes]), persistent=False)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """X [N, 1, 8, 8] and timestep [N] or [1] to eps of x's shape."""
        return cast(Tensor, self.unet(x, timestep, self.none))


def build() -> Model:
    """The family's plan over the conditional U-Net, which is sampled without a label here."""
    recipe = RECIPES["digits-ddpm"]
    family_type = get_family(recipe.family)
    family = family_type(family_type.Config(**recipe.config), DIGITS)
    networks = family.build_networks()
    shapes = {key: weight.shape for key, weight in networks["denoiser"].state_dict().items()}
    networks["denoiser"].load_state_dict(embedded_weights("digits-ddpm", shapes))
    return Model(family.export_plan(networks), Unlabelled(networks["denoiser"], 10).eval())
