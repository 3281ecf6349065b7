"""Diffusion in one graph: a Scan over the steps, with the solver's table and the time embeddings as constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from gensdk_export.one_call.parts import Files, Part
from gensdk_export.proof import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.programs.base import Shape
from gensdk_runtime.programs.diffusion_graphs import CARRY
from gensdk_runtime.programs.solvers import SolverTable
from gensdk_runtime.spec.manifest import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec

MAX_EMBEDDING_BYTES = 8 * 2**20
"""The time embeddings of all steps and labels are stored if they take no more; else each step computes its own."""


def draw_steps(
    main: Part,
    inputs: Mapping[str, str],
    model: ModelSpec,
    files: Files,
    *,
    table: SolverTable,
    settings: DiffusionSettings,
) -> str:
    """Adds the sampler to `main`; its images [B, C, H, W].

    The first step's ``previous_x0``, and noise where the solver adds none, are multiplied by zero: what is at hand
    stands in for them.
    """
    assert isinstance(model.program, DiffusionSpec)  # noqa: S101 - the caller has its table
    image: Shape = ("batch", *model.output.shape)
    rows = table.coefficients.astype(np.float32)
    body = Part("steps", prefix="steps.")
    starts, labels, weights = [inputs["latents"]] * len(CARRY), None, None
    if "label" in inputs:
        labels = body.keep("label", "int64", ("guidance", "batch"))
        weights = body.constant(guidance_weights(settings.guidance_scale))
        starts = [_label_passes(main, inputs["label"], settings.guidance_scale, model), *starts]
    feeds = {name: body.input(name, "float32", image) for name in CARRY.values()}
    feeds["coefficients"] = body.input("coefficients", "float32", rows.shape[1:])
    sequences = [main.constant(rows)]
    feeds["noise"] = feeds["sample"]
    if "noise" in inputs:
        feeds["noise"] = body.input("noise", "float32", image)
        sequences.append(inputs["noise"])
    timed, times = _time(body, labels, model, files, table.timesteps)
    sequences.append(main.constant(times))
    if weights is not None:
        feeds["guidance_weights"] = weights
    done = body.inline(onnx.load_from_string(files[model.program.graph]), feeds | timed)
    for name in CARRY:
        body.output(name, done[name], "float32", image)
    return main.scan(body, starts, sequences)[-len(CARRY)]


def guidance_weights(scale: float) -> NDArray[np.float32]:
    """[G]: Ho & Salimans (2022), eq. 6, with the scale counted as diffusers does."""
    return np.array([scale, 1.0 - scale] if scale != 1.0 else [1.0], np.float32)


def _label_passes(main: Part, label: str, scale: float, model: ModelSpec) -> str:
    """Labels [G, B] as the step graph takes them: with the half that has none, unless the scale is 1."""
    labels = main.add("Unsqueeze", label, main.constant(np.array([0], np.int64)))
    if scale == 1.0:
        return labels
    none = main.constant(np.array([[model.num_classes]], np.int64))
    return main.add("Concat", labels, main.add("Expand", none, main.add("Shape", labels)), axis=0)


def _time(
    body: Part, labels: str | None, model: ModelSpec, files: Files, timesteps: NDArray[np.int64]
) -> tuple[dict[str, str], NDArray[np.int64] | NDArray[np.float32]]:
    """What the step graph takes of time and `labels` [G, B], and the constant [S, ...] that it comes from."""
    assert isinstance(model.program, DiffusionSpec)  # noqa: S101 - as above
    if model.program.embedding_graph is None:
        timed = {"timestep": body.input("timestep", "int64", (1,))}
        return timed | ({} if labels is None else {"label": labels}), timesteps[:, None]
    graph = model.graph(model.program.embedding_graph)
    features = int(graph.outputs[0].shape[-1])
    distinct = 1 if model.num_classes is None else model.num_classes + 1
    if len(timesteps) * distinct * features * 4 <= MAX_EMBEDDING_BYTES:
        known = _embeddings(graph, files[graph.name], timesteps, distinct)
        row = body.input("embeddings", "float32", known.shape[1:])
        return {"embedding": row if labels is None else body.add("Gather", row, labels, axis=0)}, known
    feeds = {"timestep": body.input("timestep", "int64", (1,))}
    if labels is not None:
        feeds["label"] = body.add("Reshape", labels, body.constant(np.array([-1], np.int64)))
    value = body.inline(onnx.load_from_string(files[graph.name]), feeds)["embedding"]
    if labels is not None:
        last = body.constant(np.array([features], np.int64))
        value = body.add("Reshape", value, body.add("Concat", body.add("Shape", labels), last, axis=0))
    return {"embedding": value}, timesteps[:, None]


def _embeddings(graph: GraphSpec, file: bytes, timesteps: NDArray[np.int64], distinct: int) -> NDArray[np.float32]:
    """[S, L, F]: the embedding of each time step and label, or [S, 1, F] for a model without classes."""
    labels = {"label": np.arange(distinct)} if graph.input("label") is not None else {}
    with create_backend("onnxruntime").open(graph, MemoryGraph(file), precision="fp32") as session:
        steps = [session.run({"timestep": timesteps[i : i + 1], **labels}) for i in range(len(timesteps))]
    return np.stack([outputs["embedding"] for outputs in steps])
