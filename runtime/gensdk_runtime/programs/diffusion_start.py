"""Samples of a diffusion model that start from an image, and of which a part is kept as the image has it.

The image with the noise of the first step that is made (Meng et al. 2022, "SDEdit"), and where there is a mask
before each later step again, outside of what is painted anew (Lugmayr et al. 2022, "RePaint", eq. 8, without going
back). Both as diffusers' pipelines do: the noise is that which a sample of the same seed starts from alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.run import Run

Places = NDArray[np.intp] | None
PURE = 1.0
"""The strength from which on a sample begins at noise alone; diffusers' inpainting pipelines do the same."""


class Start:
    """The images [B, ...] that members of a run start from, and where they are kept, or None: nowhere.

    `alpha` and `sigma`: float32 [S], how much of image and noise there is before each step. Belongs to one loop.
    """

    def __init__(self, run: Run, places: Places, alpha: Float32, sigma: Float32, *, strength: float) -> None:
        if "image" not in run.conditions:
            raise InputError("strength is for samples that start from an image; pass image too, or leave it out")
        some = slice(None) if places is None else places
        latents, anew = run.latents, run.conditions.get("mask_image")
        self._images: Float32 = run.conditions["image"][some]
        self._kept: NDArray[np.bool_] | None = None if anew is None else ~anew[some]
        if latents is None:
            keys = run.keys if places is None else [run.keys[place] for place in places]
            self._noise = noise.normal(keys, noise.LATENT_STREAM, self._images.shape[1:])
        else:
            self._noise = latents[some]
        self._alpha, self._sigma = alpha, sigma
        self._pure = strength >= PURE

    @property
    def keeps(self) -> bool:
        """True if a part of the images is kept."""
        return self._kept is not None

    def begin(self, out: Float32) -> None:
        """Writes what the first step begins with into `out` [B, ...]."""
        np.copyto(out, self._noise if self._pure else self._noised(0))

    def keep(self, step: int, out: Float32) -> None:
        """Brings what is kept to the noise before this step, in samples [B, ...] that the step before made."""
        if self._kept is not None:
            np.copyto(out, self._noised(step), where=self._kept)

    def finished(self, images: Float32) -> Float32:
        """Samples [B, ...] without noise, of which what is kept is the image's own."""
        return images if self._kept is None else np.where(self._kept, self._images, images)

    def _noised(self, step: int) -> Float32:
        """alpha x_0 + sigma eps, as before this step."""
        made: Float32 = self._alpha[step] * self._images
        made += self._sigma[step] * self._noise
        return made
