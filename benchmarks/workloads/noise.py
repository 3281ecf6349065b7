"""The noise that all peers of a workload get: what gensdk itself would draw from the seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.programs.base import fixed_shape
from gensdk_runtime.spec.model import AutoregressiveSpec, FeedforwardSpec, ModelSpec


def draw_noise(model: ModelSpec, batch: int, *, seed: int) -> NDArray[np.float32]:
    """float32 [batch, ...]; see :mod:`peers` for the shapes."""
    keys = noise.sample_keys(batch, seed)
    if isinstance(model.program, AutoregressiveSpec):
        channels, height, width = model.output.shape
        return noise.uniform(keys, noise.LATENT_STREAM, (height, width, channels))
    shape: tuple[int, ...] = model.output.shape
    if isinstance(model.program, FeedforwardSpec):
        graph = model.graph(model.program.graph)
        shape = fixed_shape(graph, graph.inputs[0].name)
    return noise.normal(keys, noise.LATENT_STREAM, shape)
