"""The graph of every model that turns one latent, and a label where there are classes, into an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from gensdk_runtime.manifest import AscentSpec, FeedforwardSpec, ModelSpec
from gensdk_runtime.signature import GraphSpec, ImageSpec, TensorSpec
from gensdk_training.family import DataInfo
from gensdk_training.plan import ExportPlan


class LabelledLatent(nn.Module):
    """concat(z, embedding(label)): how a label enters a generator or decoder.

    `size` counts what comes out: `latent` values, and `embedding` more where there are `classes`.
    """

    def __init__(self, latent: int, *, classes: int | None, embedding: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.size = latent + (embedding if classes else 0)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, latent] and `label` int64 [B] to [B, size]."""
        if self.embedding is None or label is None:
            return z
        return torch.cat((z, self.embedding(label)), dim=1)


class LatentSampler(nn.Module):
    """The exported module: z and label through `network`, which gives images in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, Z] standard normal, `label` int64 [B] or none, to images [B, C, H, W] in [-1, 1]."""
        return cast(Tensor, self.network(z) if label is None else self.network(z, label))


def latent_graph(name: str, image: ImageSpec, *, latent: int, conditional: bool) -> GraphSpec:
    """The signature of :class:`LatentSampler`: ``z`` (and ``label``) to ``image``."""
    z = TensorSpec(name="z", dtype="float32", shape=("batch", latent), role="noise", distribution="normal")
    label = TensorSpec(name="label", dtype="int64", shape=("batch",), role="condition")
    out = TensorSpec(
        name="image",
        dtype="float32",
        shape=("batch", *image.shape),
        role="image",
        value_range=image.value_range,
    )
    return GraphSpec(name=name, inputs=(z, label) if conditional else (z,), outputs=(out,))


def latent_plan(
    family: str, graph: str, network: nn.Module, data: DataInfo, *, latent: int, conditional: bool
) -> ExportPlan:
    """The plan of a family with the one graph `graph` over `network`, all of it open to half precision."""
    model = ModelSpec(
        name=f"{data.name}-{family}",
        family=family,
        program=FeedforwardSpec(graph=graph),
        graphs=(latent_graph(graph, data.image, latent=latent, conditional=conditional),),
        image=data.image,
        num_classes=data.num_classes if conditional else None,
        class_names=data.class_names if conditional else None,
    )
    return ExportPlan(model=model, modules={graph: LatentSampler(network).eval()}, half={graph: ("network",)})


def with_inversion(
    plan: ExportPlan,
    inversion: AscentSpec,
    modules: Mapping[GraphSpec, nn.Module],
    *,
    half: Mapping[str, tuple[str, ...]],
) -> ExportPlan:
    """`plan` with an inversion and the graphs that it needs beyond those of `plan`; `half` of all graphs."""
    graphs = (*plan.model.graphs, *modules)
    live = {graph.name: module.eval() for graph, module in modules.items()}
    return replace(
        plan,
        model=ModelSpec.model_validate({**dict(plan.model), "graphs": graphs, "inversion": inversion}),
        modules={**plan.modules, **live},
        half=half,
    )
