"""What any diffusion model exports: its step graph, and what its denoiser lets the step be spared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.diffusion_graphs import GUIDANCE_SCALE
from gensdk_runtime.spec.conditions import PromptSpec, label_conditions, prompt_conditions
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec, PredictionType, ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.graphs.autoencoder import NETWORK, Autoencoder
from gensdk_training.graphs.diffusion_step import (
    Asked,
    Contexts,
    DiffusionStep,
    EmbeddedStep,
    ShallowStep,
    TimeEmbedding,
    context_graph,
    embedding_graph,
    step_graph,
)
from gensdk_training.networks.denoiser import EmbeddingDenoiser, SharingDenoiser
from gensdk_training.plan import ExportPlan

HALF = ("denoiser",)


@dataclass(frozen=True)
class TextConditioning:
    """What makes a diffusion model listen to texts.

    `encoder` maps tokens int64 [N, length], as `prompt` describes them, to `contexts`, one tensor float32 [N, ...]
    for each, of the shapes given by name. `files`: the vocabulary, by its name in the bundle. `half`: submodules
    of the encoder that FP16 turns to half precision. `guided_inside`: the denoiser takes the guidance scale [N]
    behind the contexts, as :class:`DiffusionSpec` says.
    """

    encoder: nn.Module
    prompt: PromptSpec
    contexts: Contexts
    files: Mapping[str, bytes]
    half: tuple[str, ...] = ()
    guided_inside: bool = False

    @property
    def told(self) -> Contexts:
        """What the denoiser is given of it, in this order."""
        return {**self.contexts, **({GUIDANCE_SCALE: ()} if self.guided_inside else {})}

    @property
    def conditions(self) -> tuple[PromptSpec, ...]:
        """What samples are asked for: there is nothing to lead away from where the denoiser guides itself."""
        return (self.prompt,) if self.guided_inside else prompt_conditions(self.prompt)


def diffusion_plan(
    denoiser: nn.Module,
    image: ImageSpec,
    schedule: ScheduleSpec,
    *,
    name: str,
    family: str,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    null_class: bool = True,
    prediction_type: PredictionType = "epsilon",
    defaults: DiffusionSettings | None = None,
    text: TextConditioning | None = None,
    share_features: int = 0,
    autoencoder: Autoencoder | None = None,
) -> ExportPlan:
    """The plan of a model around `denoiser`, which this switches to eval mode.

    Graph ``step`` holds guidance, denoiser and solver update. An :class:`EmbeddingDenoiser` has a graph
    ``embedding`` besides, always in float32. `text`: a graph ``text_encoder`` too, whose contexts the denoiser is
    given behind its label. `share_features` > 0: a graph ``shallow_step`` too, which computes so many of the top
    level's blocks anew; :class:`InputError` unless the denoiser has as many and can share. `autoencoder`: the
    denoiser works on its latents, and `image` is what its decoder makes: a graph ``decoder``, and ``encoder``
    where it has one. By default such a model clips no estimate of x_0. `null_class`: the denoiser takes the class
    `num_classes` as none.
    """
    asked = Asked(num_classes is not None, {} if text is None else text.told)
    denoiser.eval()
    if share_features and not isinstance(denoiser, SharingDenoiser):
        raise InputError(f"share_features={share_features} needs a denoiser with deep features; leave it out")
    sampled = image if autoencoder is None else _as_image(autoencoder.shape)
    if isinstance(denoiser, EmbeddingDenoiser):
        graphs, modules = _embedded(denoiser, sampled, asked, depth=share_features)
    else:
        graphs = (step_graph(sampled, asked=asked),)
        modules = {"step": DiffusionStep(denoiser, conditional=asked.conditional)}
    half: dict[str, tuple[str, ...]] = {graph.name: HALF for graph in graphs if graph.name != "embedding"}
    if text is not None:
        graphs = (*graphs, context_graph(text.prompt, text.contexts))
        modules["text_encoder"] = text.encoder
        half["text_encoder"] = text.half
    if autoencoder is not None:
        around = autoencoder.modules()
        graphs = (*map(_of_latents, graphs), *autoencoder.graphs(image))
        modules |= around
        half |= dict.fromkeys(around, (NETWORK,))
        defaults = defaults or DiffusionSettings(clip_sample=False)
    program = DiffusionSpec(
        graph="step",
        embedding_graph="embedding" if "embedding" in modules else None,
        context_graph="text_encoder" if "text_encoder" in modules else None,
        shallow_graph="shallow_step" if "shallow_step" in modules else None,
        decoder="decoder" if "decoder" in modules else None,
        encoder="encoder" if "encoder" in modules else None,
        latent=None if autoencoder is None else autoencoder.latent,
        guided_inside=text is not None and text.guided_inside,
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
        conditions=(
            *label_conditions(num_classes, class_names, null_class=null_class),
            *(() if text is None else text.conditions),
        ),
    )
    evaluated = {name: module.eval() for name, module in modules.items()}
    return ExportPlan(model, evaluated, half, files={} if text is None else text.files)


def _as_image(shape: tuple[int, int, int]) -> ImageSpec:
    """Latents of this shape, as steps see images."""
    channels, height, width = shape
    return ImageSpec(channels=channels, height=height, width=width)


def _of_latents(step: GraphSpec) -> GraphSpec:
    """The signature of a step over latents, of whose values nothing is known."""
    latents = {"role": "state", "value_range": None}
    outputs = tuple(
        each.model_copy(update=latents) if each.name == "next_previous_x0" else each for each in step.outputs
    )
    return step.model_copy(update={"outputs": outputs})


def _embedded(
    denoiser: EmbeddingDenoiser, image: ImageSpec, asked: Asked, *, depth: int
) -> tuple[tuple[GraphSpec, ...], dict[str, nn.Module]]:
    """Graphs and modules of a denoiser with an embedding, and with deep features where `depth` > 0."""
    size = denoiser.embedding_size
    features = None
    modules: dict[str, nn.Module] = {"embedding": TimeEmbedding(denoiser)}
    graphs = [embedding_graph(size, conditional=asked.conditional)]
    if depth and isinstance(denoiser, SharingDenoiser):
        if not 1 <= depth <= denoiser.max_depth:
            raise InputError(f"expected share_features from 1 to {denoiser.max_depth}, got {depth}")
        features = denoiser.features(image.height, image.width, depth=depth)
        modules["shallow_step"] = ShallowStep(denoiser, depth=depth)
        graphs.append(step_graph(image, asked=asked, name="shallow_step", embedding=size, takes=features))
    modules["step"] = EmbeddedStep(denoiser, depth=depth)
    graphs.insert(0, step_graph(image, asked=asked, embedding=size, gives=features))
    return tuple(graphs), modules
