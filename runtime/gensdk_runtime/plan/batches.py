"""Deals out the samples of one call, in order, to the batches that make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.conditions.base import Growth
from gensdk_runtime.noise import Float32, SampleKey
from gensdk_runtime.plan.costs import Round
from gensdk_runtime.programs.run import Run, StepCallback
from gensdk_runtime.spec.model import ModelSpec

MAX_BATCH_ELEMENTS = 2**27
"""Elements of the largest tensor of a batch whose size the caller left open; a bundle may ask for far more."""


def largest_batch(model: ModelSpec, side_by_side: int = 1, growth: Growth | None = None) -> int:
    """Samples in each of so many batches at once where the caller left it open: what the bundle takes and what
    fits into memory. `growth`: of samples that are not of the model's own size."""
    elements = model.largest_tensor * side_by_side
    if growth is not None:
        elements = -(-elements * growth.given // growth.own)
    return max(1, min(model.max_batch, MAX_BATCH_ELEMENTS // elements))


@dataclass
class Batches:
    """What the samples of a call depend on: keys, conditions by kind and latents, [n, ...] each; `data` [n, ...]
    to fill, and `lengths` [n] where samples may end early. `keys` may be empty where nothing is drawn."""

    keys: tuple[SampleKey, ...]
    conditions: Mapping[str, NDArray[Any]]
    latents: Float32 | None
    data: NDArray[Any]
    on_step_end: StepCallback | None = None
    lengths: NDArray[np.int64] | None = None
    _first: int = field(default=0, init=False)

    def next(self, found: Round) -> list[Run]:
        """The runs of the next round. The last sample is repeated where a batch is padded."""
        if found.counts == (len(self.data),) and found.batch in (None, len(self.data)):
            whole, listens = (self.keys, self.data, self.conditions, self.latents), self.on_step_end
            return [Run(*whole, on_step_end=listens, size=len(self.data), lengths=self.lengths)]
        runs = []
        for count in found.counts:
            first, size = self._first, found.batch or count
            self._first += count
            places: Any = slice(first, first + count)
            keys, data = self.keys[places], self.data[places]
            if size > count:
                places = [*range(first, first + count), *[first + count - 1] * (size - count)]
                keys += keys[-1:] * (size - count)
            runs.append(
                Run(
                    keys=keys,
                    data=data,
                    conditions={kind: values[places] for kind, values in self.conditions.items()},
                    latents=None if self.latents is None else self.latents[places],
                    first=first,
                    on_step_end=self.on_step_end,
                    size=size,
                    lengths=None if self.lengths is None else self.lengths[first : first + count],
                )
            )
        return runs
