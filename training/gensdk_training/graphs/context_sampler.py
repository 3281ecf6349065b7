"""The two graphs of a model that makes samples from noise and from what an encoder makes of a condition."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gensdk_runtime.spec.kinds import ConditionSpec
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.family import DataInfo
from gensdk_training.graphs.latent_sampler import LatentSampler
from gensdk_training.plan import ExportPlan

EMBEDDING = "embedding"


def context_plan(
    family: str,
    data: DataInfo,
    conditions: Sequence[ConditionSpec],
    encoder: GraphSpec,
    networks: tuple[nn.Module, nn.Module],
    *,
    latent: int,
    half: Sequence[str],
) -> ExportPlan:
    """The plan of a family with a graph ``generator`` over z and an embedding, which the graph `encoder` makes of
    conditions, once for each that differs.

    `networks`: the encoder, and the generator, (z [B, latent], embedding) to samples; `half`: the parts of the
    encoder that FP16 turns to half precision.
    """
    listener, generator = networks
    output = data.output
    z = TensorSpec(name="z", dtype="float32", shape=("batch", latent), role="noise", distribution="normal")
    made = TensorSpec(
        name=output.tensor,
        dtype=output.dtype,
        shape=("batch", *output.shape),
        role=output.role,
        value_range=output.value_range,
    )
    graph = GraphSpec(name="generator", inputs=(z, *encoder.outputs), outputs=(made,))
    model = ModelSpec(
        name=f"{data.name}-{family}",
        family=family,
        program=FeedforwardSpec(graph=graph.name, context_graph=encoder.name),
        graphs=(graph, encoder),
        output=output,
        conditions=tuple(conditions),
    )
    return ExportPlan(
        model=model,
        modules={graph.name: LatentSampler(generator, data.points).eval(), encoder.name: listener.eval()},
        half={graph.name: ("network",), encoder.name: tuple(half)},
    )
