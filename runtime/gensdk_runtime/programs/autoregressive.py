"""Pixel after pixel with explicit caches: the row graph once a row, the pixel graph once a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Array
from gensdk_runtime.errors import BackendError
from gensdk_runtime.manifest import AutoregressiveSpec, GraphSpec
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Program, Run, fixed_shape, label_feeds, require_tensors


class AutoregressiveProgram(Program[None]):
    """See :class:`AutoregressiveSpec` for the graphs. All uniforms of a sample come from stream 0 at once."""

    @property
    def spec(self) -> AutoregressiveSpec:
        """The model's program."""
        assert isinstance(self.model.program, AutoregressiveSpec)  # noqa: S101 - chosen by the kind
        return self.model.program

    def check(self) -> None:
        """The tensors that :class:`AutoregressiveSpec` lists."""
        spec = self.spec
        require_tensors(self.sessions[spec.row_graph].graph, ("row",), ("context",))
        require_tensors(self.sessions[spec.pixel_graph].graph, ("pixel", "context", "uniform"), ("next_pixel",))
        require_tensors(self.sessions[spec.likelihood_graph].graph, ("images",), ("log_likelihood",))

    def resolve(self, options: Mapping[str, Any]) -> None:
        """There is nothing to set."""

    def describe(self, settings: None) -> dict[str, Any]:
        """There is nothing to tell."""
        return {}

    def run(self, run: Run, settings: None) -> Float32:
        """Images [B, C, H, W]; a stopped run leaves the rows below at the lowest value."""
        channels, height, width = self.model.image.shape
        row_session = self.sessions[self.spec.row_graph]
        pixel_session = self.sessions[self.spec.pixel_graph]
        uniforms = noise.uniform(run.keys, noise.LATENT_STREAM, (height, width, channels))
        uniforms = np.ascontiguousarray(uniforms.transpose(1, 2, 0, 3))  # [H, W, B, C]
        images = np.full((len(run), channels, height, width), self.model.image.value_range[0], np.float32)
        row = np.zeros((len(run), channels, width), np.float32)
        row_state = _zero_state(row_session.graph, len(run))
        row_label, pixel_label = label_feeds(row_session.graph, run), label_feeds(pixel_session.graph, run)
        for i in range(height):
            outputs = run.call(row_session, {"row": row, **row_label, **row_state})
            row_state = _next_state(row_state, outputs)
            pixel_state = _zero_state(pixel_session.graph, len(run))
            pixel = np.zeros((len(run), channels), np.float32)
            row = np.empty_like(row)
            for j in range(width):
                feeds = {"pixel": pixel, "context": outputs["context"][j], "uniform": uniforms[i, j]}
                found = run.call(pixel_session, {**feeds, **pixel_label, **pixel_state})
                pixel, pixel_state = found["next_pixel"], _next_state(pixel_state, found)
                row[:, :, j] = pixel
            images[:, :, i] = row
            if run.end_step(i, height, i, images):
                break
        return images

    def log_likelihood(self, images: Float32, labels: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Bits per dimension [B] of images float32 [B, C, H, W] that lie on the model's grey levels.

        Raises :class:`BackendError` where the graph gives NaN.
        """
        session = self.sessions[self.spec.likelihood_graph]
        run = Run(keys=tuple(noise.SampleKey(0, i) for i in range(len(images))), labels=labels)
        feeds: dict[str, Array] = {"images": images, **label_feeds(session.graph, run)}
        nats = run.call(session, feeds)["log_likelihood"].astype(np.float64)
        if nats.shape != (len(images),) or np.isnan(nats).any():
            raise BackendError(
                f"graph {session.graph.name!r} gave NaN or no number for each image; run gensdk verify"
            )
        bits: NDArray[np.float64] = -nats / (np.log(2.0) * np.prod(self.model.image.shape))
        return bits


def _zero_state(graph: GraphSpec, batch: int) -> dict[str, Array]:
    """Every state input of the graph at zero; states have the batch first."""
    return {
        spec.name: np.zeros((batch, *fixed_shape(graph, spec.name)), spec.dtype)
        for spec in graph.inputs
        if spec.role == "state" and graph.output(f"next_{spec.name}") is not None and spec.name != "pixel"
    }


def _next_state(state: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: outputs[f"next_{name}"] for name in state}
