"""Pixel after pixel with explicit caches: the row graph once a row, the pixel graph once a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound, Resident
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Float32
from gensdk_runtime.outputs.image import check_rows, image_of
from gensdk_runtime.programs.base import (
    Judged,
    Program,
    Wanted,
    carried_states,
    conditions_wanted,
    image_input,
    register_program,
    require_signature,
    run_images,
    write_conditions,
)
from gensdk_runtime.programs.run import Run, State
from gensdk_runtime.spec.model import AutoregressiveSpec, ModelSpec
from gensdk_runtime.spec.settings import AutoregressiveSettings

if TYPE_CHECKING:
    from gensdk_runtime.outputs.base import Output


@register_program
class AutoregressiveProgram(Program[AutoregressiveSettings]):
    """See :class:`AutoregressiveSpec` for the graphs. All uniforms of a sample come from stream 0 at once."""

    Spec = AutoregressiveSpec
    Settings = AutoregressiveSettings
    continues = True

    @property
    def spec(self) -> AutoregressiveSpec:
        """The model's program."""
        return self.model.program_of(AutoregressiveSpec)

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """The likelihood of images."""
        return frozenset(("log_likelihood",))

    def check(self) -> None:
        """The tensors that :class:`AutoregressiveSpec` lists."""
        channels, height, width = self.model.output.shape
        row, pixel, likelihood = (self.sessions[name].graph for name in self.spec.graphs)
        context = row.output("context")
        features = context.shape[-1] if context is not None and context.shape else 0
        require_signature(
            row,
            {"row": Wanted(("batch", channels, width)), **conditions_wanted(self.conditions, row, "batch")},
            {"context": Wanted((width, "batch", features))},
            states=True,
        )
        require_signature(
            pixel,
            {
                "pixel": Wanted(("batch", channels)),
                "context": Wanted(("batch", features)),
                "uniform": Wanted(("batch", channels)),
                **conditions_wanted(self.conditions, pixel, "batch"),
            },
            {"next_pixel": Wanted(("batch", channels))},
            states=True,
        )
        images = {image_input(likelihood): Wanted(("batch", channels, height, width))}
        asked = conditions_wanted(self.conditions, likelihood, "batch")
        require_signature(likelihood, images | asked, {"log_likelihood": Wanted(("batch",))})

    def prefix(self, given: Any, output: Output[Any]) -> Float32:
        """The upper rows of images [m, C, h, W] on the model's grey levels; see :func:`check_rows`."""
        return check_rows(given, image_of(self.model), levels=self.spec.levels)

    def begin(self, run: Run, settings: AutoregressiveSettings) -> State:
        """A step is a row that is drawn, not one that was given; a stopped run leaves the rows below at the lowest
        value."""
        row, pixel = (self.sessions[name] for name in self.spec.sampling_graphs)
        return _Rows(run, row, pixel, self)

    def to_judge(self, output: Output[Any], values: Any, lengths: Any) -> Judged:
        """Images float32 [n, C, H, W], on the model's grey levels."""
        if lengths is not None:
            raise InputError("images have one size; leave lengths out")
        images = output.given(values, levels=self.spec.levels)
        return Judged({"image": images}, np.full(len(images), np.prod(self.model.output.shape)))

    def log_likelihood(self, run: Run) -> None:
        """See :class:`Program`."""
        run_images(self.sessions[self.spec.likelihood_graph], "log_likelihood", run)


class _Rows(State):
    """The rows of a batch from the top; those below the present one are at the lowest value.

    Those that were given are fed before the first step. What is drawn below them depends on them and on its own
    uniforms, as if they had been drawn.
    """

    def __init__(self, run: Run, row: Session, pixel: Session, program: AutoregressiveProgram) -> None:
        super().__init__(run)
        output = program.model.output
        channels, height, width = output.shape
        images = np.full((len(run), *output.shape), output.value_range[0], np.float32)
        given = run.conditions.get("prefix")
        self._given = 0 if given is None else given.shape[2]
        if given is not None:
            images[:, :, : self._given] = given
        carry, sizes = {"next_pixel": "pixel"}, {"batch": len(run)}
        self._rows = self.borrow(row, sizes, carried_states(row.graph))
        self._pixels = self.borrow(pixel, sizes, carried_states(pixel.graph) | carry)
        for bound in (self._rows, self._pixels):
            write_conditions(program.conditions, bound, run)
        # On a device all is there from the first row to the last pixel.
        pixels, shape = self._pixels, (height, width, channels)
        self._images = pixels.upload({"images": images})["images"]  # [B, C, H, W]
        self._uniforms = pixels.drawn("uniform", pixels.hold_keys(run.keys), noise.LATENT_STREAM, shape)
        self._row = 0
        _clear(self._rows)
        self._rows.feed("row").fill(0)
        while self._row < self._given:
            self._advance()

    def step(self) -> bool:
        """One row, from left to right."""
        i, height, given = self._row, self._images.shape[2], self._given
        self._advance()
        return not self.run.end_step(i - given, height - given, i, self._made) and self._row < height

    def _advance(self) -> None:
        """To the next row: draws the present one unless it was given."""
        self.run.timed(self._rows)
        row = self._images[:, :, self._row]
        if self._row >= self._given:
            self._draw_row(self._rows.made("context"), self._uniforms[:, self._row], row)
        self._rows.feed("row")[...] = row
        self._row += 1

    def _made(self) -> Float32:
        return self._pixels.fetch(self._images)

    def _draw_row(self, context: Resident, uniforms: Resident, row: Resident) -> None:
        """Draws `row` [B, C, W] pixel after pixel; `context` [W, B, F] and `uniforms` [B, W, C]."""
        run, pixels = self.run, self._pixels
        _clear(pixels)
        for j in range(row.shape[-1]):
            pixels.feed("context")[...] = context[j]
            pixels.feed("uniform")[...] = uniforms[:, j]
            run.timed(pixels)
            row[:, :, j] = pixels.made("next_pixel")

    def finish(self) -> None:
        """See :class:`State`."""
        self.run.finish(self._made())


def _clear(bound: Bound) -> None:
    """Sets everything that goes back in to zero."""
    for name in bound.carry.values():
        bound.feed(name).fill(0)
