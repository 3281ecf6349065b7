"""The graph of every model that turns one latent, and a label where there are classes, into a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.kinds import OutputSpec
from gensdk_runtime.spec.model import AscentSpec, FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.family import DataInfo, PointsInfo
from gensdk_training.plan import ExportPlan


class LatentSampler(nn.Module):
    """The exported module: z and label through `network`, which gives images in [-1, 1], or scaled points.

    `points`: the statistics that bring points back into the units of the data, always in float32.
    """

    center: Tensor

    def __init__(self, network: nn.Module, points: PointsInfo | None = None) -> None:
        super().__init__()
        self.network = network
        self.scale = None if points is None else points.scale
        if points is not None:
            self.register_buffer("center", torch.tensor(points.center))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`z` [B, Z] standard normal, `label` int64 [B] or none, to images [B, C, H, W] or points [B, D]."""
        made = cast(Tensor, self.network(z) if label is None else self.network(z, label))
        return made if self.scale is None else self.center + self.scale * made


def latent_graph(name: str, output: OutputSpec, *, latent: int, conditional: bool) -> GraphSpec:
    """The signature of :class:`LatentSampler`: ``z`` (and ``label``) to a sample."""
    z = TensorSpec(name="z", dtype="float32", shape=("batch", latent), role="noise", distribution="normal")
    label = TensorSpec(name="label", dtype="int64", shape=("batch",), role="condition")
    out = TensorSpec(
        name=output.tensor,
        dtype=output.dtype,
        shape=("batch", *output.shape),
        role=output.role,
        value_range=output.value_range,
    )
    return GraphSpec(name=name, inputs=(z, label) if conditional else (z,), outputs=(out,))


def images_graph(name: str, image: ImageSpec, output: TensorSpec, *, conditional: bool = False) -> GraphSpec:
    """The signature of a graph that takes ``image`` [B, C, H, W] (and ``label``), such as an encoder."""
    images = TensorSpec(
        name="image", dtype="float32", shape=("batch", *image.shape), role="image", value_range=image.value_range
    )
    label = TensorSpec(name="label", dtype="int64", shape=("batch",), role="condition")
    return GraphSpec(name=name, inputs=(images, label) if conditional else (images,), outputs=(output,))


class FromImages(nn.Module):
    """The exported module of an encoder or classifier: images and label through `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1], `label` int64 [B] or none, to [B, ...]."""
        return cast(Tensor, self.network(images) if label is None else self.network(images, label))


def with_encoder(plan: ExportPlan, encoder: nn.Module, data: DataInfo, *, latent: int) -> ExportPlan:
    """`plan` with a graph ``encoder``: images, and the label where the model has classes, to the latent."""
    code = TensorSpec(name="latent", dtype="float32", shape=("batch", latent), role="state")
    labelled = plan.model.num_classes is not None
    return _with_images_graph(plan, encoder, images_graph("encoder", data.image, code, conditional=labelled))


def with_classifier(plan: ExportPlan, classifier: nn.Module, data: DataInfo, *, classes: int) -> ExportPlan:
    """`plan` with a graph ``classifier``: images to logits."""
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", classes), role="state")
    return _with_images_graph(plan, classifier, images_graph("classifier", data.image, logits))


def _with_images_graph(plan: ExportPlan, network: nn.Module, graph: GraphSpec) -> ExportPlan:
    """`plan` with one more graph, of the name that its program knows it by."""
    program = plan.model.program.model_copy(update={graph.name: graph.name})
    model = plan.model.model_copy(update={"program": program, "graphs": (*plan.model.graphs, graph)})
    return ExportPlan(
        model=ModelSpec.from_dict(model.model_dump(mode="json"), what="export plan"),  # checked as a whole
        modules={**plan.modules, graph.name: FromImages(network).eval()},
        half={**plan.half, graph.name: ("network",)},
    )


def latent_plan(
    family: str, graph: str, network: nn.Module, data: DataInfo, *, latent: int, conditional: bool
) -> ExportPlan:
    """The plan of a family with the one graph `graph` over `network`, all of it open to half precision."""
    output = data.output
    model = ModelSpec(
        name=f"{data.name}-{family}",
        family=family,
        program=FeedforwardSpec(graph=graph),
        graphs=(latent_graph(graph, output, latent=latent, conditional=conditional),),
        output=output,
        conditions=label_conditions(data.num_classes, data.class_names) if conditional else (),
    )
    return ExportPlan(
        model=model, modules={graph: LatentSampler(network, data.points).eval()}, half={graph: ("network",)}
    )


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
