"""Pixel after pixel with explicit caches: the row graph once a row, the pixel graph once a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import (
    Program,
    Run,
    Wanted,
    carried_states,
    label_wanted,
    require_signature,
    run_images,
    write_label,
)
from gensdk_runtime.spec.manifest import AutoregressiveSpec, ModelSpec


class AutoregressiveProgram(Program[None]):
    """See :class:`AutoregressiveSpec` for the graphs. All uniforms of a sample come from stream 0 at once."""

    @property
    def spec(self) -> AutoregressiveSpec:
        """The model's program."""
        assert isinstance(self.model.program, AutoregressiveSpec)  # noqa: S101 - chosen by the kind
        return self.model.program

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """The likelihood of images."""
        return frozenset(("log_likelihood",))

    def check(self) -> None:
        """The tensors that :class:`AutoregressiveSpec` lists."""
        channels, height, width = self.model.require_image().shape
        row, pixel, likelihood = (self.sessions[name].graph for name in self.spec.graphs)
        context = row.output("context")
        features = context.shape[-1] if context is not None and context.shape else 0
        require_signature(
            row,
            {"row": Wanted(("batch", channels, width)), **label_wanted(self.model, row, "batch")},
            {"context": Wanted((width, "batch", features))},
            states=True,
        )
        require_signature(
            pixel,
            {
                "pixel": Wanted(("batch", channels)),
                "context": Wanted(("batch", features)),
                "uniform": Wanted(("batch", channels)),
                **label_wanted(self.model, pixel, "batch"),
            },
            {"next_pixel": Wanted(("batch", channels))},
            states=True,
        )
        images = {"images": Wanted(("batch", channels, height, width))}
        label = label_wanted(self.model, likelihood, "batch")
        require_signature(likelihood, images | label, {"log_likelihood": Wanted(("batch",))})

    def resolve(self, options: Mapping[str, Any]) -> None:
        """There is nothing to set."""

    def describe(self, settings: None) -> dict[str, Any]:
        """There is nothing to tell."""
        return {}

    def run(self, run: Run, settings: None) -> None:
        """A stopped run leaves the rows below at the lowest value."""
        channels, height, width = self.model.require_image().shape
        uniforms = noise.uniform(run.keys, noise.LATENT_STREAM, (height, width, channels))
        uniforms = np.ascontiguousarray(uniforms.transpose(1, 2, 0, 3))  # [H, W, B, C]
        images = np.full(
            (len(run), channels, height, width), self.model.require_image().value_range[0], np.float32
        )
        with self._bound(self.spec.row_graph, run) as rows, self._bound(self.spec.pixel_graph, run) as pixels:
            _clear(rows)
            rows.input("row")[...] = 0
            for i in range(height):
                run.timed(rows)
                self._draw_row(run, pixels, rows.output("context"), uniforms[i], images[:, :, i])
                rows.input("row")[...] = images[:, :, i]
                if run.end_step(i, height, i, lambda: images):
                    break
        run.finish(images)

    def _draw_row(self, run: Run, pixels: Bound, context: Float32, uniforms: Float32, row: Float32) -> None:
        """Draws `row` [B, C, W] from left to right; `context` [W, B, F] and `uniforms` [W, B, C]."""
        _clear(pixels)
        for j in range(row.shape[-1]):
            pixels.input("context")[...] = context[j]
            pixels.input("uniform")[...] = uniforms[j]
            run.timed(pixels)
            row[:, :, j] = pixels.output("next_pixel")

    @contextmanager
    def _bound(self, graph: str, run: Run) -> Iterator[Bound]:
        """A graph with its states (and the pixel) going back in, and its label written."""
        session = self.sessions[graph]
        carry = carried_states(session.graph)
        if graph == self.spec.pixel_graph:
            carry["next_pixel"] = "pixel"
        with session.bound({"batch": len(run)}, carry) as bound:
            write_label(bound, run)
            yield bound

    def log_likelihood(self, run: Run) -> None:
        """Fills the run with nats [count] of its sources, images float32 [len(run), C, H, W] on the model's grey
        levels."""
        run_images(self.sessions[self.spec.likelihood_graph], "log_likelihood", run)


def _clear(bound: Bound) -> None:
    """Sets everything that goes back in to zero."""
    for name in bound.carry.values():
        bound.input(name)[...] = 0
