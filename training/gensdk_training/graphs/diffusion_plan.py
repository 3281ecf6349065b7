"""What any diffusion model exports: its step graph, and what its denoiser lets the step be spared."""

from __future__ import annotations

from torch import nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec, PredictionType, ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.graphs.diffusion_step import (
    DiffusionStep,
    EmbeddedStep,
    ShallowStep,
    TimeEmbedding,
    embedding_graph,
    step_graph,
)
from gensdk_training.networks.denoiser import EmbeddingDenoiser, SharingDenoiser
from gensdk_training.plan import ExportPlan

HALF = ("denoiser",)


def diffusion_plan(
    denoiser: nn.Module,
    image: ImageSpec,
    schedule: ScheduleSpec,
    *,
    name: str,
    family: str,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    prediction_type: PredictionType = "epsilon",
    defaults: DiffusionSettings | None = None,
    share_features: int = 0,
) -> ExportPlan:
    """The plan of a model around `denoiser`, which this switches to eval mode.

    Graph ``step`` holds guidance, denoiser and solver update. An :class:`EmbeddingDenoiser` has a graph
    ``embedding`` besides, always in float32. `share_features` > 0: a graph ``shallow_step`` too, which computes so
    many of the top level's blocks anew; :class:`InputError` unless the denoiser has as many and can share.
    """
    conditional = num_classes is not None
    denoiser.eval()
    if share_features and not isinstance(denoiser, SharingDenoiser):
        raise InputError(f"share_features={share_features} needs a denoiser with deep features; leave it out")
    if isinstance(denoiser, EmbeddingDenoiser):
        graphs, modules = _embedded(denoiser, image, conditional=conditional, depth=share_features)
    else:
        graphs = (step_graph(image, conditional=conditional),)
        modules = {"step": DiffusionStep(denoiser, conditional=conditional)}
    program = DiffusionSpec(
        graph="step",
        embedding_graph="embedding" if "embedding" in modules else None,
        shallow_graph="shallow_step" if "shallow_step" in modules else None,
        schedule=schedule,
        prediction_type=prediction_type,
        defaults=defaults or DiffusionSettings(),
    )
    model = ModelSpec(
        name=name,
        family=family,
        program=program,
        graphs=graphs,
        output=image,
        conditions=label_conditions(num_classes, class_names),
    )
    half = {graph.name: HALF for graph in graphs if graph.name != program.embedding_graph}
    return ExportPlan(model, {name: module.eval() for name, module in modules.items()}, half)


def _embedded(
    denoiser: EmbeddingDenoiser, image: ImageSpec, *, conditional: bool, depth: int
) -> tuple[tuple[GraphSpec, ...], dict[str, nn.Module]]:
    """Graphs and modules of a denoiser with an embedding, and with deep features where `depth` > 0."""
    size = denoiser.embedding_size
    features = None
    modules: dict[str, nn.Module] = {"embedding": TimeEmbedding(denoiser)}
    graphs = [embedding_graph(size, conditional=conditional)]
    if depth and isinstance(denoiser, SharingDenoiser):
        if not 1 <= depth <= denoiser.max_depth:
            raise InputError(f"expected share_features from 1 to {denoiser.max_depth}, got {depth}")
        features = denoiser.features(image.height, image.width, depth=depth)
        modules["shallow_step"] = ShallowStep(denoiser, depth=depth)
        graphs.append(
            step_graph(image, conditional=conditional, name="shallow_step", embedding=size, takes=features)
        )
    modules["step"] = EmbeddedStep(denoiser, depth=depth)
    graphs.insert(0, step_graph(image, conditional=conditional, embedding=size, gives=features))
    return tuple(graphs), modules
