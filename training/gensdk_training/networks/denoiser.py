"""What a denoiser may offer beyond eps(x, t), so that sampling does no work twice.

Any module that maps (x [N, C, H, W], timestep [N], label int64 [N] where it is told one, and contexts [N, ...]
where it is told a text) to eps of x's shape can be sampled. Sampling gives it float32 time steps, whatever it was
trained with; it takes whole ones as it takes integers. One that is an :class:`EmbeddingDenoiser` has what depends
on the time step (and the label) alone computed once for all time steps. One that is a :class:`SharingDenoiser` can
also spare most of itself in some steps, by features of the step before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class EmbeddingDenoiser(nn.Module, ABC):
    """A denoiser in two parts: ``eps(x, t, label, *contexts) = denoise(x, embed(t, label), *contexts)``.

    Embeddings have `embedding_size` values. A module that computes them in half precision would lose the time
    step; so the export keeps :meth:`embed` in float32, whatever the precision of :meth:`denoise`.
    """

    embedding_size: int

    @abstractmethod
    def embed(self, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """All that does not depend on x: timestep [N], or [1] for all, and label int64 [N] to float32 [N, F].

        A row depends on its own time step and label alone.
        """

    @abstractmethod
    def denoise(self, x: Tensor, embedding: Tensor, *contexts: Tensor) -> Tensor:
        """X [N, C, H, W] with its embeddings [N, F] and what its text became [N, ...] to eps [N, C, H, W]."""


class SharingDenoiser(EmbeddingDenoiser):
    """A U-Net whose deep features may be used again in the next steps.

    Ma, Fang & Wang (2023), "DeepCache", section 3.2: from step to step the features deep in the U change little.
    A *shallow* step computes the last `depth` blocks of the U anew, with what they take from the way down; what
    comes up to them, the deep features, it takes from the last full step.
    """

    max_depth: int
    """The blocks of the top level on the way up: `depth` is from 1 to this."""

    @abstractmethod
    def features(self, height: int, width: int, *, depth: int) -> tuple[int, int, int]:
        """The shape [C, H, W] of the deep features of one image of this size."""

    @abstractmethod
    def denoise_sharing(
        self, x: Tensor, embedding: Tensor, *contexts: Tensor, depth: int
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`denoise`, with the deep features [N, *features]."""

    @abstractmethod
    def denoise_shallow(
        self, x: Tensor, embedding: Tensor, deep_features: Tensor, *contexts: Tensor, depth: int
    ) -> Tensor:
        """Eps from the last blocks and `deep_features`; equal to :meth:`denoise` where they are of this x."""
