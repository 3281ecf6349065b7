"""What DeepDream climbs, over any classifier: the energy of a layer, and a plan with a gradient graph for each.

Mordvintsev, Olah & Tyka 2015, "Inceptionism: Going Deeper into Neural Networks".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import AscentSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, TensorSpec
from gensdk_training.graphs.input_gradient import InputGradient, gradient_graph
from gensdk_training.plan import ExportPlan


class Energy(nn.Module):
    """The objective of one layer: ``1/2 sum_c w_c sum_hw f_c^2`` of its features, or ``sum_c w_c f_c`` of
    logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, channels: Tensor) -> Tensor:
        """`image` [B, C, H, W] and the weights `channels` [K] to [B]."""
        features = self.network(image)
        if features.dim() == 2:
            return torch.sum(features * channels, dim=1)
        return torch.sum(features.square().sum(dim=(2, 3)) * channels, dim=1) / 2


@dataclass(frozen=True)
class DreamLayer:
    """`network`: images [B, C, H, W] of any size to features [B, `channels`, h, w] or logits [B, `channels`]."""

    network: nn.Module
    channels: int


def dream_plan(
    name: str,
    family: str,
    layers: Mapping[str, DreamLayer],
    *,
    image: ImageSpec,
    source: SourceSpec,
    defaults: AscentSettings,
    max_batch: int = 64,
) -> ExportPlan:
    """A gradient graph ``gradient_NAME`` for each of `layers`; the first is the default.

    They stay float32: rounding moves features near zero through a ReLU's edge, where the gradient jumps.
    """
    shape = (source.channels, HEIGHT, WIDTH)
    graphs = {
        key: gradient_graph(f"gradient_{key}", shape, (_weights(layer.channels),)) for key, layer in layers.items()
    }
    program = AscentSpec(
        objectives={key: graph.name for key, graph in graphs.items()},
        maximize=True,
        normalize=True,
        project="range",
        keep="last",
        defaults=defaults,
    )
    model = ModelSpec(
        name=name,
        family=family,
        program=program,
        graphs=tuple(graphs.values()),
        output=image,
        conditions=(source,),
        max_batch=max_batch,
    )
    modules = {graphs[key].name: InputGradient(Energy(layer.network)).eval() for key, layer in layers.items()}
    return ExportPlan(model=model, modules=modules)


def _weights(width: int) -> TensorSpec:
    return TensorSpec(name="channels", dtype="float32", shape=(width,), role="coefficient")
