"""An autoregressive model as its paper samples it: one full pass of the network for each pixel.

That takes minutes to hours, so :meth:`TorchNaive.run` makes only some pixels, and the time of a whole image is
extrapolated: all passes do the same work.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from workloads import Case
from workloads.prepare import Prepared

from gensdk_runtime.spec.model import AutoregressiveSpec
from gensdk_training.networks.grey_levels import draw_level, value_of
from peers import Float32, Peer

CHECKED_ROWS = (0, -1)
"""Rows that are sampled pass by pixel in full, to be compared."""


def open_peer(prepared: Prepared, case: Case) -> Peer:
    """The parallel network."""
    return TorchNaive(prepared, case)


class TorchNaive(Peer):
    """`passes` passes of the H * W that an image needs."""

    whole = False

    def __init__(self, prepared: Prepared, case: Case) -> None:
        model = prepared.load()
        spec = model.plan.model
        assert isinstance(spec.program, AutoregressiveSpec)
        if spec.output.channels != 1:
            raise ValueError("one pass draws one channel; only grey images are sampled here")
        self._network, self._levels, self._image = model.network, spec.program.levels, spec.output
        self._passes = 8 if case.batch < 8 else 1
        self.scale = spec.output.height * spec.output.width / self._passes

    @torch.inference_mode()
    def run(self, noise: Float32) -> Float32:
        """The first pixels of images."""
        images = torch.full((len(noise), *self._image.shape), self._image.value_range[0])
        uniforms = torch.from_numpy(noise)
        for place in range(self._passes):
            self._draw(images, uniforms, *divmod(place, self._image.width))
        return images.numpy()

    def _draw(self, images: Tensor, uniforms: Tensor, i: int, j: int) -> None:
        """One pass, of which one pixel is kept."""
        logits = self._network(images)[:, 0, i, j]
        images[:, 0, i, j] = self._values(logits, uniforms[:, i, j])[:, 0]

    def _values(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Logits [n, levels] and uniform numbers [n, 1] to values [n, 1], by the inverse CDF."""
        return value_of(draw_level(logits, uniforms), self._levels)

    @torch.inference_mode()
    def differing(self, noise: Float32, images: Float32) -> Mapping[str, int]:
        """Samples the first and the last row of `images` pass by pixel, below the rows that `images` has above
        them; and draws every pixel from one pass over `images`, which by induction says the same of all rows."""
        given, uniforms = torch.from_numpy(images), torch.from_numpy(noise)
        drawn = torch.full_like(given, self._image.value_range[0])
        wrong = looked_at = 0
        for i in (row % self._image.height for row in CHECKED_ROWS):
            drawn[:, :, :i] = given[:, :, :i]
            for j in range(self._image.width):
                self._draw(drawn, uniforms, i, j)
            wrong += int((drawn[:, :, i] != given[:, :, i]).sum())
            looked_at += drawn[:, :, i].numel()
        logits = self._network(given)[:, 0]
        values = self._values(logits.flatten(0, 2), uniforms.reshape(-1, 1)).reshape(given.shape)
        return {
            "rows": wrong,
            "rows_of": looked_at,
            "all": int((values != given).sum()),
            "all_of": int(np.prod(given.shape)),
        }
