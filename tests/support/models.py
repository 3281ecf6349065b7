"""Model descriptions for tests of the runtime; the sessions behind them are fakes or small numpy functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gensdk_runtime.backends.base import Feeds, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.fake import FakeSession, GraphFunction
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.fields import Role
from gensdk_runtime.spec.latent import LatentSpec
from gensdk_runtime.spec.model import (
    AscentSpec,
    AutoregressiveSpec,
    DiffusionSpec,
    FeedforwardSpec,
    ModelSpec,
    ScheduleSpec,
)
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.settings import AscentSettings, DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

IMAGE = ImageSpec(channels=1, height=4, width=6)
LATENT = (2, 2, 3)
SCHEDULE = ScheduleSpec(num_train_timesteps=100)


def tensor(name: str, role: Role, *shape: int | str, dtype: Any = "float32", **extra: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, role=role, **extra)


def image_tensor(name: str, role: Role = "image", image: ImageSpec = IMAGE) -> TensorSpec:
    return tensor(name, role, "batch", *image.shape, value_range=image.value_range)


def label_tensor(*shape: str) -> TensorSpec:
    return tensor("label", "condition", *shape, dtype="int64")


def feedforward_model(classes: int | None = None, max_batch: int = 8) -> ModelSpec:
    inputs = [tensor("z", "noise", "batch", 5, distribution="normal")]
    inputs += [label_tensor("batch")] if classes else []
    graph = GraphSpec(name="generator", inputs=tuple(inputs), outputs=(image_tensor("image"),))
    return ModelSpec(
        name="ff",
        family="test",
        program=FeedforwardSpec(graph="generator"),
        graphs=(graph,),
        output=IMAGE,
        conditions=label_conditions(classes),
        max_batch=max_batch,
    )


def diffusion_model(classes: int | None = None, max_batch: int = 8, *, lockstep: bool = False) -> ModelSpec:
    """`lockstep`: with a step graph of the first contract, which has one step for all samples."""
    time = [
        tensor("timestep", "timestep", 1, dtype="int64") if lockstep else tensor("timestep", "timestep", "batch")
    ]
    time += [label_tensor("guidance", "batch")] if classes else []
    step = _step("step", time, classes, lockstep=lockstep)
    return _diffusion(DiffusionSpec(graph="step", schedule=SCHEDULE), [step], classes, max_batch)


def sharing_model(classes: int | None = None, max_batch: int = 8, *, lockstep: bool = False) -> ModelSpec:
    """A diffusion model with all the graphs that spare it work."""
    passes = ("guidance", "batch") if classes else ("batch",)
    rows: int | str = ("labels" if classes else 1) if lockstep else "rows"
    times = (
        tensor("timestep", "timestep", 1, dtype="int64") if lockstep else tensor("timestep", "timestep", "rows")
    )
    time = [tensor("embedding", "coefficient", *(passes if classes or not lockstep else (1,)), 5)]
    features = [tensor("deep_features", "state", *passes, 2, 3)]
    embedding = GraphSpec(
        name="embedding",
        inputs=(times, *([label_tensor(str(rows))] if classes else [])),
        outputs=(tensor("embedding", "coefficient", rows, 5),),
    )
    full = _step("step", time, classes, gives=features, lockstep=lockstep)
    shallow = _step("shallow_step", [*time, *features], classes, lockstep=lockstep)
    program = DiffusionSpec(
        graph="step", embedding_graph="embedding", shallow_graph="shallow_step", schedule=SCHEDULE
    )
    return _diffusion(program, [full, embedding, shallow], classes, max_batch)


def latent_model(classes: int | None = None, max_batch: int = 8, *, preview: Any = None) -> ModelSpec:
    """A diffusion model in a latent space, with a decoder and an encoder."""
    time = [tensor("timestep", "timestep", "batch"), *([label_tensor("guidance", "batch")] if classes else [])]
    step = _step("step", time, classes, lockstep=False, shape=LATENT)
    latents = tensor("latent", "state", "batch", *LATENT)
    decoder = GraphSpec(name="decoder", inputs=(latents,), outputs=(image_tensor("image"),))
    encoder = GraphSpec(name="encoder", inputs=(image_tensor("image"),), outputs=(latents,))
    program = DiffusionSpec(
        graph="step",
        decoder="decoder",
        encoder="encoder",
        latent=LatentSpec(shape=LATENT, preview=preview),
        schedule=SCHEDULE,
        defaults=DiffusionSettings(clip_sample=False),
    )
    return _diffusion(program, [step, decoder, encoder], classes, max_batch)


def _step(
    name: str,
    time: Sequence[TensorSpec],
    classes: int | None,
    *,
    lockstep: bool,
    gives: Sequence[TensorSpec] = (),
    shape: tuple[int, int, int] = IMAGE.shape,
) -> GraphSpec:
    each = () if lockstep else ("batch",)
    of_image: dict[str, Any] = {"value_range": IMAGE.value_range} if shape == IMAGE.shape else {}
    inputs = [
        tensor("sample", "state", "batch", *shape, **of_image),
        tensor("previous_x0", "state", "batch", *shape, **of_image),
        *time,
        tensor("noise", "noise", "batch", *shape, distribution="normal"),
        tensor("coefficients", "coefficient", *each, 8),
        *([tensor("guidance_weights", "coefficient", "guidance", *each)] if classes else []),
    ]
    made = [tensor(name, "state", "batch", *shape, **of_image) for name in ("next_sample", "next_previous_x0")]
    outputs = (*made, *gives)
    return GraphSpec(name=name, inputs=tuple(inputs), outputs=outputs)


def _diffusion(
    program: DiffusionSpec, graphs: Sequence[GraphSpec], classes: int | None, max_batch: int
) -> ModelSpec:
    return ModelSpec(
        name="diffusion",
        family="test",
        program=program,
        graphs=tuple(graphs),
        output=IMAGE,
        conditions=label_conditions(classes),
        max_batch=max_batch,
    )


def autoregressive_model(classes: int | None = None, max_batch: int = 8) -> ModelSpec:
    label = (label_tensor("batch"),) if classes else ()
    channels, _, width = IMAGE.shape
    row = GraphSpec(
        name="row",
        inputs=(
            tensor("row", "image", "batch", channels, width),
            tensor("cache", "state", "batch", 3, width),
            *label,
        ),
        outputs=(tensor("context", "state", width, "batch", 7), tensor("next_cache", "state", "batch", 3, width)),
    )
    pixel = GraphSpec(
        name="pixel",
        inputs=(
            tensor("pixel", "image", "batch", channels),
            tensor("context", "state", "batch", 7),
            tensor("uniform", "noise", "batch", channels, distribution="uniform"),
            tensor("cache", "state", "batch", 2),
            *label,
        ),
        outputs=(
            tensor("next_pixel", "image", "batch", channels, value_range=(-1.0, 1.0)),
            tensor("next_cache", "state", "batch", 2),
        ),
    )
    likelihood = GraphSpec(
        name="likelihood",
        inputs=(tensor("image", "image", "batch", *IMAGE.shape), *label),
        outputs=(tensor("log_likelihood", "state", "batch"),),
    )
    return ModelSpec(
        name="ar",
        family="test",
        program=AutoregressiveSpec(row_graph="row", pixel_graph="pixel", likelihood_graph="likelihood", levels=17),
        graphs=(row, pixel, likelihood),
        output=IMAGE,
        conditions=label_conditions(classes),
        max_batch=max_batch,
    )


def sequence_model(classes: int | None = None, max_batch: int = 8) -> ModelSpec:
    """Images row after row, each of as many tokens as it has pixels; token 16 ends an image."""
    label = (label_tensor("batch"),) if classes else ()
    channels, height, width = IMAGE.shape
    spec = SequenceSpec(
        step_graph="step",
        likelihood_graph="likelihood",
        decode_graph="decode",
        length=height,
        channels=width,
        levels=17,
        stop=16,
        axis=1,
    )
    step = GraphSpec(
        name="step",
        inputs=(
            tensor("token", "state", "batch", width, dtype="int64"),
            tensor("position", "timestep", 1, dtype="int64"),
            tensor("uniform", "noise", "batch", width, distribution="uniform"),
            tensor("temperature", "coefficient", "batch"),
            tensor("top_k", "coefficient", "batch", dtype="int64"),
            tensor("top_p", "coefficient", "batch"),
            tensor("cache", "state", 3, "batch", 2),
            *label,
        ),
        outputs=(
            tensor("next_token", "state", "batch", width, dtype="int64"),
            tensor("next_cache", "state", 3, "batch", 2),
        ),
    )
    likelihood = GraphSpec(
        name="likelihood",
        inputs=(image_tensor("image"), tensor("lengths", "condition", "batch", dtype="int64"), *label),
        outputs=(tensor("log_likelihood", "coefficient", "batch"),),
    )
    decode = GraphSpec(
        name="decode",
        inputs=(tensor("tokens", "state", "batch", "elements", width, dtype="int64"),),
        outputs=(tensor("image", "image", "batch", channels, "elements", width, value_range=IMAGE.value_range),),
    )
    return ModelSpec(
        name="sequence",
        family="test",
        program=spec,
        graphs=(step, likelihood, decode),
        output=IMAGE,
        conditions=label_conditions(classes),
        max_batch=max_batch,
    )


def ascent_model(classes: int | None = None, max_batch: int = 8) -> ModelSpec:
    """Climbs from noise to images; `classes` are told, and change nothing."""
    graph = GraphSpec(
        name="gradient",
        inputs=(image_tensor("variable", "state"), tensor("channels", "coefficient", 3)),
        outputs=(tensor("objective", "state", "batch"), tensor("gradient", "state", "batch", *IMAGE.shape)),
    )
    program = AscentSpec(
        objectives={"layer": "gradient"},
        maximize=True,
        normalize=True,
        project="range",
        keep="last",
        defaults=AscentSettings(learning_rate=0.1, num_inference_steps=6, jitter=1),
    )
    return ModelSpec(
        name="ascent",
        family="test",
        program=program,
        graphs=(graph,),
        output=IMAGE,
        conditions=label_conditions(classes),
        max_batch=max_batch,
    )


MODELS: dict[str, Callable[..., ModelSpec]] = {
    "ascent": ascent_model,
    "feedforward": feedforward_model,
    "diffusion": diffusion_model,
    "diffusion in lockstep": partial(diffusion_model, lockstep=True),
    "sharing": sharing_model,
    "sharing in lockstep": partial(sharing_model, lockstep=True),
    "latent": latent_model,
    "autoregressive": autoregressive_model,
    "sequence": sequence_model,
}


def generator(
    model: ModelSpec,
    functions: Mapping[str, GraphFunction] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Generator:
    """A generator whose graphs are fakes, but for those in `functions`."""
    sessions: dict[str, Session] = {
        graph.name: FakeSession(graph, (functions or {}).get(graph.name), backend="fake", precision="fp32")
        for graph in model.graphs
    }
    return Generator.from_sessions(model, sessions, files)


def nan_images(feeds: Feeds) -> dict[str, Array]:
    """A generator graph that has lost its numbers, as FP16 overflow does."""
    return {"image": np.full((len(feeds["z"]), *IMAGE.shape), np.nan, np.float32)}
