"""The plainest sampling loops over graphs on NumPy arrays: what a user of a bare runtime writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import Case
from workloads.prepare import Prepared

from gensdk_runtime.programs.base import fixed_shape
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.spec.model import AutoregressiveSpec, DiffusionSpec, FeedforwardSpec, ModelSpec
from peers import Float32, Peer

Feeds = Mapping[str, NDArray[Any]]
Graph = Callable[[Feeds], Sequence[NDArray[Any]]]
"""Runs one graph: inputs by name to its outputs in order."""
OpenGraph = Callable[[str, Sequence[str]], Graph]
"""Opens the graph of this name for these outputs."""


def solver_rows(model: ModelSpec, case: Case) -> SolverTable:
    """DDIM as gensdk samples by default: trailing time steps, eta 0, clipped estimates of x_0."""
    assert isinstance(model.program, DiffusionSpec)
    defaults, schedule = model.program.defaults, make_schedule(model.program.schedule)
    return solver_table(
        schedule,
        "ddim",
        case.steps or defaults.num_inference_steps,
        timestep_spacing=defaults.timestep_spacing,
        clip_range=model.output.value_range[1],
        use_clipped_model_output=defaults.use_clipped_model_output,
    )


def open_loop(prepared: Prepared, case: Case, open_graph: OpenGraph) -> Peer:
    """The loop for the workload's kind of program."""
    model = prepared.describe()
    if isinstance(model.program, DiffusionSpec):
        return DiffusionLoop(open_graph("step", ["next_sample"]), solver_rows(model, case))
    if isinstance(model.program, FeedforwardSpec):
        return OneRun(open_graph(model.program.graph, ["image"]), model.graph(model.program.graph).inputs[0].name)
    program = model.program
    return PixelLoop(
        model,
        open_graph(program.row_graph, ["context", "next_rows"]),
        open_graph(program.pixel_graph, ["next_pixel", "next_pixels"]),
    )


def state_shapes(model: ModelSpec) -> list[tuple[int, ...]]:
    """Shapes of the caches of an autoregressive model's row graph and pixel graph, without the batch."""
    assert isinstance(model.program, AutoregressiveSpec)
    graphs = (model.program.row_graph, "rows"), (model.program.pixel_graph, "pixels")
    return [fixed_shape(model.graph(graph), state) for graph, state in graphs]


class DiffusionLoop(Peer):
    """One call of the step graph for each time step."""

    def __init__(self, step: Graph, table: SolverTable) -> None:
        self._step = step
        self._timesteps = table.timesteps.astype(np.float32)
        self._rows = table.coefficients.astype(np.float32)

    def run(self, noise: Float32) -> Float32:
        """From x_T to x_0; DDIM with eta 0 uses neither fresh noise nor the estimate before."""
        sample, zeros = noise, np.zeros_like(noise)
        timesteps, rows = (np.repeat(each[:, None], len(noise), axis=1) for each in (self._timesteps, self._rows))
        for timestep, row in zip(timesteps, rows, strict=True):
            feeds: dict[str, NDArray[Any]] = {"sample": sample, "previous_x0": zeros, "timestep": timestep}
            (sample,) = self._step({**feeds, "noise": zeros, "coefficients": row})
        return sample


class OneRun(Peer):
    """One call."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph = graph
        self._name = name

    def run(self, noise: Float32) -> Float32:
        """Noise to images."""
        return self._graph({self._name: noise})[0]


class PixelLoop(Peer):
    """The row graph for each row, the pixel graph for each pixel, with their caches fed back."""

    def __init__(self, model: ModelSpec, row: Graph, pixel: Graph) -> None:
        assert isinstance(model.program, AutoregressiveSpec)
        self._row, self._pixel = row, pixel
        self._image = model.output
        self._states = state_shapes(model)

    def run(self, noise: Float32) -> Float32:
        """Uniform numbers [n, H, W, C] to images."""
        n, (channels, height, width) = len(noise), self._image.shape
        uniforms = np.ascontiguousarray(noise.transpose(1, 2, 0, 3))
        images = np.empty((n, channels, height, width), np.float32)
        rows = np.zeros((n, *self._states[0]), np.float32)
        above = np.zeros((n, channels, width), np.float32)
        for i in range(height):
            context, rows = self._row({"row": above, "rows": rows})
            pixels, pixel = np.zeros((n, *self._states[1]), np.float32), np.zeros((n, channels), np.float32)
            for j in range(width):
                pixel, pixels = self._pixel(
                    {"pixel": pixel, "context": context[j], "uniform": uniforms[i, j], "pixels": pixels}
                )
                images[:, :, i, j] = pixel
            above = np.ascontiguousarray(images[:, :, i])
        return images
