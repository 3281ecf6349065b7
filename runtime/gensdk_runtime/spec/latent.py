"""The latent space that a diffusion model samples in, and how its own unit differs from its autoencoder's."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from gensdk_runtime.spec.fields import MAX_SAMPLE_ELEMENTS, Finite
from gensdk_runtime.spec.strict import StrictModel

Side = Annotated[int, Field(ge=1, le=16384)]


class LatentSpec(StrictModel):
    """Latents float32 [C, h, w] = `shape`; Rombach et al. (2022), "High-Resolution Image Synthesis with Latent
    Diffusion Models", section 3.

    `scale` and `shift`, as diffusers' `scaling_factor` and `shift_factor`: where the graphs of decoder and
    encoder speak of the autoencoder's own z, the model samples ``(z - shift) * scale``. Graphs that gensdk
    exports have this inside, so that latents need not leave a device.
    `preview`: a row for each channel of the images, of C weights and where there is one more a bias: about what
    the decoder makes of a place of the latents, for callbacks that look at steps.
    """

    shape: tuple[Side, Side, Side]
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    shift: Finite = 0.0
    preview: Annotated[tuple[tuple[Finite, ...], ...], Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        channels = self.shape[0]
        if math.prod(self.shape) > MAX_SAMPLE_ELEMENTS:
            raise ValueError(f"latents of {list(self.shape)} have over {MAX_SAMPLE_ELEMENTS} elements")
        lengths = {len(row) for row in self.preview or ()}
        if not lengths <= {channels} and not lengths <= {channels + 1}:
            raise ValueError(f"a preview has rows of {channels} weights, or of one more with a bias")
        return self
