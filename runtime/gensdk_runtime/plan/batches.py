"""Deals out the samples of one call, in order, to the batches that make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from gensdk_runtime.noise import Float32, SampleKey
from gensdk_runtime.plan.costs import Round
from gensdk_runtime.programs.base import Int64, Run, StepCallback
from gensdk_runtime.spec.manifest import ModelSpec

MAX_BATCH_ELEMENTS = 2**27
"""Elements of the largest tensor of a batch whose size the caller left open; a bundle may ask for far more."""


def largest_batch(model: ModelSpec, side_by_side: int = 1, size: tuple[int, int] | None = None) -> int:
    """Samples in each of so many batches at once where the caller left it open: what the bundle takes and what
    fits into memory. `size`: of the sources of a translation model, where it is not its own."""
    elements = model.largest_tensor * side_by_side
    if size is not None and model.source is not None:
        elements = -(-elements * size[0] * size[1] // (model.source.height * model.source.width))
    return max(1, min(model.max_batch, MAX_BATCH_ELEMENTS // elements))


@dataclass
class Batches:
    """What the samples of a call depend on: keys, labels, latents and sources, [n, ...] each; `images` [n, ...] to
    fill. `keys` may be empty where nothing is drawn."""

    keys: tuple[SampleKey, ...]
    labels: Int64 | None
    latents: Float32 | None
    images: NDArray[Any]
    sources: NDArray[Any] | None = None
    on_step_end: StepCallback | None = None
    _first: int = field(default=0, init=False)

    def next(self, found: Round) -> list[Run]:
        """The runs of the next round. The last sample is repeated where a batch is padded."""
        runs = []
        for count in found.counts:
            first, size = self._first, found.batch or count
            self._first += count
            places: Any = slice(first, first + count)
            keys, images = self.keys[places], self.images[places]
            if size > count:
                places = [*range(first, first + count), *[first + count - 1] * (size - count)]
                keys += keys[-1:] * (size - count)
            runs.append(
                Run(
                    keys=keys,
                    images=images,
                    labels=None if self.labels is None else self.labels[places],
                    latents=None if self.latents is None else self.latents[places],
                    sources=None if self.sources is None else self.sources[places],
                    first=first,
                    on_step_end=self.on_step_end,
                    size=size,
                )
            )
        return runs
