"""The graph of every model that turns an image, and a label where there are classes, into another image."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gensdk_runtime.programs.translation import result_axis
from gensdk_runtime.spec.conditions import SourceSpec, label_conditions
from gensdk_runtime.spec.fields import Axis
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, GraphSpec, TensorSpec
from gensdk_training.plan import ExportPlan

GRAPH = "translator"


class Translator(nn.Module):
    """The exported module: a source, and a label, through `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor, label: Tensor | None = None) -> Tensor:
        """`source` [B, C, H, W] in its value range, `label` int64 [B] or none, to images [B, C', s H, s W]."""
        return cast(Tensor, self.network(source) if label is None else self.network(source, label))


def translation_graph(source: SourceSpec, image: ImageSpec, *, conditional: bool, any_size: bool) -> GraphSpec:
    """The signature of :class:`Translator`; `any_size`: its height and width are named axes."""
    height: Axis = HEIGHT if any_size else source.height
    width: Axis = WIDTH if any_size else source.width
    out = (result_axis(height, source.scale), result_axis(width, source.scale))
    inputs = [
        TensorSpec(
            name="source",
            dtype="float32",
            shape=("batch", source.channels, height, width),
            role="image",
            value_range=source.value_range,
        )
    ]
    if conditional:
        inputs.append(TensorSpec(name="label", dtype="int64", shape=("batch",), role="condition"))
    result = TensorSpec(
        name="image",
        dtype="float32",
        shape=("batch", image.channels, *out),
        role="image",
        value_range=image.value_range,
    )
    return GraphSpec(name=GRAPH, inputs=tuple(inputs), outputs=(result,))


def translation_plan(
    family: str,
    name: str,
    network: nn.Module,
    source: SourceSpec,
    image: ImageSpec,
    *,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    any_size: bool = True,
) -> ExportPlan:
    """The plan of a family with one graph over `network`, all of it open to half precision.

    `num_classes`: domains that a label chooses from. `any_size`: the network is fully convolutional.
    """
    graph = translation_graph(source, image, conditional=num_classes is not None, any_size=any_size)
    model = ModelSpec(
        name=f"{name}-{family}",
        family=family,
        program=FeedforwardSpec(graph=GRAPH),
        graphs=(graph,),
        output=image,
        conditions=(source, *label_conditions(num_classes, class_names)),
    )
    return ExportPlan(model=model, modules={GRAPH: Translator(network).eval()}, half={GRAPH: ("network",)})
