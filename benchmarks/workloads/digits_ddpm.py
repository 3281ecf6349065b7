"""The embedded digits DDPM: its family and recipe, and the weights of the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import onnx
import torch
from recipes import RECIPES
from torch import Tensor, nn

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_training.family import DataInfo
from gensdk_training.registry import get_family
from workloads import Model

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
    networks["denoiser"].load_state_dict(embedded_weights(networks["denoiser"].state_dict()))
    return Model(family.export_plan(networks), Unlabelled(networks["denoiser"], 10).eval())


def embedded_weights(wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the embedded bundle under the U-Net's own names, found in its ONNX files.

    A graph calls a weight ``denoiser.`` or the like and then its name; an inner layer of the same name has more
    before it. Raises KeyError where one is missing.
    """
    stored: dict[str, Tensor] = {}
    with Bundle.open("digits-ddpm") as bundle:
        for name in bundle.manifest.model.program.graphs:
            graph = onnx.load_from_string(bundle.graph_source(name, "fp32").read()).graph
            for tensor in graph.initializer:
                stored[tensor.name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    found = {}
    for key, weight in wanted.items():
        names = [name for name in stored if name.endswith(f".{key}") and stored[name].shape == weight.shape]
        if not names:
            raise KeyError(f"the embedded digits-ddpm has no weight {key!r} of shape {list(weight.shape)}")
        found[key] = stored[min(names, key=len)]
    return found
