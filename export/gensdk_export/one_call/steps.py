"""Diffusion in one graph: a Scan over the steps, with the solver's table and the time embeddings as constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from gensdk_export.one_call.parts import Files, Part, Shape
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.programs.diffusion_graphs import CARRY, is_lockstep
from gensdk_runtime.programs.solvers import SolverTable
from gensdk_runtime.programs.time_embeddings import TimeEmbeddings
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
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
    stands in for them. A row of coefficients stands for all samples, which are at one step.
    """
    step = model.graph(model.program_of(DiffusionSpec).graph)
    image: Shape = ("batch", *model.output.shape)
    rows = table.coefficients.astype(np.float32)
    rows = rows if is_lockstep(step) else rows[:, None]
    body = Part("steps", prefix="steps.")
    kept = _asked(main, inputs, model, files, settings.guidance_scale)
    feeds = {name: body.keep(name, each.dtype, each.shape) for name, each in kept.items()}
    starts = [*(each.value for each in kept.values()), *[inputs["latents"]] * len(CARRY)]
    labels, weights = feeds.pop("label", None), feeds.get("guidance_weights")
    feeds |= {name: body.input(name, "float32", image) for name in CARRY.values()}
    feeds["coefficients"] = body.input("coefficients", "float32", rows.shape[1:])
    sequences = [main.constant(rows)]
    feeds["noise"] = feeds["sample"]
    if "noise" in inputs:
        feeds["noise"] = body.input("noise", "float32", image)
        sequences.append(inputs["noise"])
    timed, times = _time(_Passes(body, feeds["sample"], labels, weights), model, files, table.timesteps)
    sequences.append(main.constant(times))
    done = body.inline(onnx.load_from_string(files[step.name]), feeds | timed)
    for name in CARRY:
        body.output(name, done[name], "float32", image)
    return main.scan(body, starts, sequences)[-len(CARRY)]


class _Kept(NamedTuple):
    """A value that all steps are given."""

    value: str
    dtype: str
    shape: Shape


def _asked(
    main: Part, inputs: Mapping[str, str], model: ModelSpec, files: Files, scale: float
) -> dict[str, _Kept]:
    """What samples are asked for, as all steps take it: ``guidance_weights``, ``label`` and contexts, each [G, B,
    ...]; nothing of a model that can't be asked."""
    program = model.program_of(DiffusionSpec)
    step, asked = model.graph(program.graph), inputs.get("label", inputs.get("prompt"))
    if asked is None:
        return {}
    count = main.add("Shape", asked, start=0, end=1)
    weights = _weights(main, count, scale, lockstep=is_lockstep(step))
    kept = {"guidance_weights": _Kept(weights, "float32", step.require_input("guidance_weights").shape)}
    if "label" in inputs:
        passes = _label_passes(main, inputs["label"], scale, model)
        kept["label"] = _Kept(passes, "int64", ("guidance", "batch"))
    if program.context_graph is not None:
        encoder = model.graph(program.context_graph)
        texts = [inputs["prompt"], *([inputs["negative_prompt"]] if scale != 1.0 else [])]
        rows = main.add("Concat", *texts, axis=0)
        made = main.inline(onnx.load_from_string(files[encoder.name]), {"prompt": rows})
        for each in encoder.outputs:
            sizes = main.constant(np.array([len(texts), -1, *each.shape[1:]], np.int64))
            value = main.add("Reshape", made[each.name], sizes)
            kept[each.name] = _Kept(value, "float32", step.require_input(each.name).shape)
    return kept


def _weights(main: Part, count: str, scale: float, *, lockstep: bool) -> str:
    """Guidance weights [G, B] for `count` samples, int64 [1], or [G] of a step graph of the first contract.

    Ho & Salimans (2022), eq. 6, with the scale counted as diffusers does.
    """
    weights = np.array([scale, 1.0 - scale] if scale != 1.0 else [1.0], np.float32)
    if lockstep:
        return main.constant(weights)
    passes = main.add("Concat", main.constant(np.array([len(weights)])), count, axis=0)
    return main.add("Expand", main.constant(weights[:, None]), passes)


def _label_passes(main: Part, label: str, scale: float, model: ModelSpec) -> str:
    """Labels [G, B] as the step graph takes them: with the half that has none, unless the scale is 1."""
    labels = main.add("Unsqueeze", label, main.constant(np.array([0], np.int64)))
    if scale == 1.0:
        return labels
    none = main.constant(np.array([[model.num_classes]], np.int64))
    return main.add("Concat", labels, main.add("Expand", none, main.add("Shape", labels)), axis=0)


@dataclass(frozen=True)
class _Passes:
    """The passes over a batch inside the `body` of the scan: ``sample`` [B, ...], where there are classes `labels`
    [G, B], and `weights` [G, B] where there are passes."""

    body: Part
    sample: str
    labels: str | None
    weights: str | None

    def each(self, row: str, size: int | None = None) -> str:
        """[1] as [B], or with `size` [1, F] as [B, F], or as [G, B, F]."""
        if size is None or self.weights is None:
            shape = self.body.add("Shape", self.sample, start=0, end=1)
        else:
            shape = self.body.add("Shape", self.weights)
        if size is not None:
            shape = self.body.add("Concat", shape, self.body.constant(np.array([size])), axis=0)
        return self.body.add("Expand", row, shape)


def _time(
    passes: _Passes, model: ModelSpec, files: Files, timesteps: NDArray[Any]
) -> tuple[dict[str, str], NDArray[Any]]:
    """What the step graph takes of time and labels, and the constant [S, ...] that it comes from."""
    program = model.program_of(DiffusionSpec)
    body, labels, lockstep = passes.body, passes.labels, is_lockstep(model.graph(program.graph))
    dtype = "int64" if lockstep else "float32"
    times = timesteps[:, None].astype(dtype)
    if program.embedding_graph is None:
        timestep = body.input("timestep", dtype, (1,))
        timed = {"timestep": timestep if lockstep else passes.each(timestep)}
        return timed | ({} if labels is None else {"label": labels}), times
    graph = model.graph(program.embedding_graph)
    features = int(graph.outputs[0].shape[-1])
    distinct = 1 if model.num_classes is None else model.num_classes + (model.null_class is not None)
    if len(timesteps) * distinct * features * 4 <= MAX_EMBEDDING_BYTES:
        known = _embeddings(graph, files[graph.name], timesteps, distinct)
        row = body.input("embeddings", "float32", known.shape[1:])
        if labels is not None:
            return {"embedding": body.add("Gather", row, labels, axis=0)}, known
        return {"embedding": row if lockstep else passes.each(row, features)}, known
    timestep = body.input("timestep", dtype, (1,))
    feeds = {"timestep": timestep}
    if labels is not None:
        feeds["label"] = body.add("Reshape", labels, body.constant(np.array([-1])))
        if not lockstep:
            feeds["timestep"] = body.add("Expand", timestep, body.add("Shape", feeds["label"]))
    value = body.inline(onnx.load_from_string(files[graph.name]), feeds)["embedding"]
    if labels is not None:
        last = body.constant(np.array([features]))
        value = body.add("Reshape", value, body.add("Concat", body.add("Shape", labels), last, axis=0))
    elif not lockstep:
        value = passes.each(value, features)
    return {"embedding": value}, times


def _embeddings(graph: GraphSpec, file: bytes, timesteps: NDArray[Any], distinct: int) -> NDArray[np.float32]:
    """[S, L, F]: the embedding of each time step and label, or [S, 1, F] for a model without classes."""
    labels = tuple(range(distinct)) if graph.input("label") is not None else ()
    with create_backend("onnxruntime").open(graph, MemoryGraph(file), precision="fp32") as session:
        return np.stack(TimeEmbeddings(session).sequence(tuple(timesteps.tolist()), labels))
