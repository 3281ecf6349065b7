"""The graph of a model that makes the next frame of a still face from the sound around it."""

from __future__ import annotations

from torch import nn

from gensdk_runtime.spec.audio import AudioConditionSpec
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import TensorSpec
from gensdk_training.family import DataInfo
from gensdk_training.graphs.translator import translation_graph
from gensdk_training.plan import ExportPlan


def talker_plan(
    family: str, data: DataInfo, network: nn.Module, heard: AudioConditionSpec, *, half: tuple[str, ...]
) -> ExportPlan:
    """The plan of a family with one graph over `network`, (source, audio) to image, all of one size.

    `half`: the parts of the network that FP16 turns to half precision.
    """
    image = data.image
    source = SourceSpec(channels=image.channels, height=image.height, width=image.width)
    graph = translation_graph(source, image, conditional=False, any_size=False)
    audio = TensorSpec(
        name=heard.kind,
        dtype="float32",
        shape=("batch", heard.samples),
        role="condition",
        value_range=(-1.0, 1.0),
    )
    graph = graph.model_copy(update={"inputs": (*graph.inputs, audio)})
    model = ModelSpec(
        name=f"{data.name}-{family}",
        family=family,
        program=FeedforwardSpec(graph=graph.name),
        graphs=(graph,),
        output=image,
        conditions=(source, heard),
    )
    return ExportPlan(model=model, modules={graph.name: network.eval()}, half={graph.name: half})
