"""Images of latents, where a model samples in a latent space: by a decoder at the end, and a guess on the way."""

from __future__ import annotations

from math import prod

import numpy as np

from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.run import Run
from gensdk_runtime.spec.kinds import OutputSpec
from gensdk_runtime.spec.latent import LatentSpec

SLICE_ELEMENTS = 2**20
"""Of the images that are decoded at once: a decoder takes some hundred times the memory of what it makes."""


class Decoding:
    """The decoder of one model. Threads may share it: it holds nothing of a batch."""

    def __init__(self, session: Session, latent: LatentSpec, output: OutputSpec) -> None:
        self._session, self._latent = session, latent
        self._shape, (self._low, self._high) = output.shape, output.value_range
        self._slice = max(1, SLICE_ELEMENTS // prod(output.shape))
        self._own_unit = latent.scale == 1.0 and latent.shift == 0.0

    def images(self, latents: Float32, run: Run) -> Float32:
        """[B, ...] within the value range, of latents [B, C, h, w] on the host; `run` is told how long it took."""
        if not self._own_unit:
            latents = latents / np.float32(self._latent.scale) + np.float32(self._latent.shift)
        made = np.empty((len(latents), *self._shape), np.float32)
        for first in range(0, len(latents), self._slice):
            some = latents[first : first + self._slice]
            with self._session.bound({"batch": len(some)}) as bound:
                bound.overwrite("latent")[...] = some
                self._decode(bound, run, made[first : first + len(some)])
        return made

    def images_of(self, made_by: Bound, output: str, run: Run) -> Float32:
        """The same of all latents that a graph has made, which stay on the device where both graphs are."""
        if not (self._own_unit and made_by.on_device and made_by.session.backend == self._session.backend):
            return self.images(made_by.output(output), run)
        latents = made_by.made(output)
        count = latents.shape[0]
        made = np.empty((count, *self._shape), np.float32)
        for first in range(0, count, self._slice):
            size = min(self._slice, count - first)
            with self._session.bound({"batch": size}) as bound:
                bound.feed("latent")[...] = latents[first : first + size]
                self._decode(bound, run, made[first : first + size])
        return made

    def shown(self, latents: Float32) -> Float32:
        """What is made of latents [B, C, h, w] for who looks at a step: a guess of the images [B, K, h, w] within
        the value range, where the model has a preview, or the latents themselves."""
        rows = self._latent.preview
        if rows is None:
            return latents
        table, channels = np.array(rows, np.float32), self._latent.shape[0]
        guess: Float32 = np.einsum("kc,bchw->bkhw", table[:, :channels], latents)
        if table.shape[1] > channels:
            guess += table[:, channels, None, None]
        np.clip(guess, np.float32(self._low), np.float32(self._high), out=guess)
        return guess

    def _decode(self, bound: Bound, run: Run, out: Float32) -> None:
        run.timed(bound)
        np.clip(bound.output("image"), np.float32(self._low), np.float32(self._high), out=out)
        run.graph_seconds += bound.take_waited()
