"""A backend for users' own tests: right names, shapes, dtypes and ranges, in no time, without any runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import ROWS, GraphSpec, TensorSpec

GraphFunction = Callable[[Feeds], Mapping[str, Array]]


@register_backend("fake")
class FakeBackend(Backend):
    """Each graph becomes a smooth function of its inputs, sample by sample; no graph file is read.

    `functions` replaces graphs by name with functions from feeds to outputs. The samples keep gensdk's laws
    (same seed, same sample; head of a batch), so an application's own logic can be tested against them.
    """

    def __init__(self, functions: Mapping[str, GraphFunction] | None = None) -> None:
        self._functions = dict(functions or {})

    @classmethod
    def availability(cls) -> Availability:
        """Always available."""
        return Availability(True, devices=("none",))

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """A session over the graph's signature alone."""
        return FakeSession(graph, self._functions.get(graph.name), backend=self.name, precision=precision)


class FakeSession(Session):
    """Computes outputs from the graph's signature, or with the function it was given."""

    def __init__(
        self, graph: GraphSpec, function: GraphFunction | None = None, *, backend: str, precision: Precision
    ) -> None:
        super().__init__(graph, backend=backend, precision=precision)
        self._function = function

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        if self._function is not None:
            return dict(self._function(feeds))
        sizes: dict[str, int] = {}
        shared, each = 0.0, None
        axis = _samples_axis(self.graph)
        for spec in self.graph.inputs:
            for name, size in zip(spec.shape, feeds[spec.name].shape, strict=True):
                sizes.setdefault(str(name), size)
            values = feeds[spec.name].astype(np.float64)
            if "guidance" in spec.shape:  # the first pass counts
                values = values.take([0], axis=spec.shape.index("guidance"))
            if axis in spec.shape:
                rows = np.moveaxis(values, spec.shape.index(axis), 0).reshape(sizes[axis], -1)
                mean = np.clip(rows, -1e3, 1e3).mean(axis=1)
                each = mean if each is None else each + mean
            else:
                shared += float(np.clip(values, -1e3, 1e3).mean())
        phase = (np.zeros(1) if each is None else each) + shared
        return {spec.name: _wave(spec, phase, sizes, axis) for spec in self.graph.outputs}


def _samples_axis(graph: GraphSpec) -> str:
    """The axis along which samples lie: "batch", or that of a graph which computes rows of something else."""
    axes = {axis for spec in graph.inputs for axis in spec.shape}
    return next((axis for axis in ("batch", ROWS, "labels") if axis in axes), "batch")


def _wave(spec: TensorSpec, phase: Array, sizes: Mapping[str, int], samples: str) -> Array:
    """A sine over the positions of the output, shifted by each sample's phase, within the value range."""
    shape = [axis if isinstance(axis, int) else sizes.get(axis, 1) for axis in spec.shape]
    low, high = spec.value_range or (-1.0, 1.0)
    if samples not in spec.shape:
        positions = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
        wave = np.sin(positions + float(phase.mean()))
    else:
        batch = spec.shape.index(samples)
        rest = [size for axis, size in enumerate(shape) if axis != batch]
        positions = np.arange(int(np.prod(rest)), dtype=np.float64)
        wave = np.sin(positions[None, :] * 0.7 + phase[:, None] * 3.0).reshape(shape[batch], *rest)
        wave = np.moveaxis(wave, 0, batch)
    return np.ascontiguousarray((low + (high - low) * (wave + 1.0) / 2.0).astype(spec.dtype))
