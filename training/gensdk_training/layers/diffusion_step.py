"""The step graph of every diffusion model: guidance, the denoiser, and the solver's update in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_runtime.manifest import GraphSpec, ImageSpec, TensorSpec


class DiffusionStep(nn.Module):
    """One step of any solver whose update is linear in (x_t, x_0, eps, previous x_0, noise).

    The coefficients are those of :class:`gensdk_runtime.solvers.SolverTable`, where the formula is derived.
    `denoiser` maps (x [N, C, H, W], timestep int64 [1] or [N], label int64 [N] or none) to eps of x's shape.
    """

    def __init__(self, denoiser: nn.Module, *, conditional: bool) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditional = conditional

    def forward(  # noqa: PLR0917 - the inputs of a graph are positional
        self,
        sample: Tensor,
        previous_x0: Tensor,
        timestep: Tensor,
        noise: Tensor,
        coefficients: Tensor,
        label: Tensor | None = None,
        guidance_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns (next sample, estimate of x_0), each [B, C, H, W]; shapes as in DiffusionSpec."""
        if label is None or guidance_weights is None:
            eps = self.denoiser(sample, timestep)
        else:
            eps = self._guided(sample, timestep, label, guidance_weights)
        x, e, clip, a, b, c, d, s = (coefficients[i] for i in range(8))
        x0 = torch.minimum(torch.maximum(x * sample + e * eps, -clip), clip)
        return a * sample + b * x0 + c * eps + d * previous_x0 + s * noise, x0

    def _guided(self, sample: Tensor, timestep: Tensor, label: Tensor, weights: Tensor) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022, eq. 6) as a weighted sum over G passes in one batch."""
        passes = label.shape[0]
        repeated = sample.unsqueeze(0).expand(passes, -1, -1, -1, -1)
        eps = self.denoiser(repeated.reshape(-1, *sample.shape[1:]), timestep, label.reshape(-1))
        eps = eps.reshape(repeated.shape)
        combined: Tensor = (weights.reshape(-1, 1, 1, 1, 1) * eps).sum(0)
        return combined


def step_graph(image: ImageSpec, *, conditional: bool, name: str = "step") -> GraphSpec:
    """The signature of :class:`DiffusionStep` for images of this size."""
    shape = ("batch", *image.shape)
    inputs = [
        TensorSpec(name="sample", dtype="float32", shape=shape, role="state"),
        TensorSpec(name="previous_x0", dtype="float32", shape=shape, role="state"),
        TensorSpec(name="timestep", dtype="int64", shape=(1,), role="timestep"),
        TensorSpec(name="noise", dtype="float32", shape=shape, role="noise", distribution="normal"),
        TensorSpec(name="coefficients", dtype="float32", shape=(8,), role="coefficient"),
    ]
    if conditional:
        inputs += [
            TensorSpec(name="label", dtype="int64", shape=("guidance", "batch"), role="condition"),
            TensorSpec(name="guidance_weights", dtype="float32", shape=("guidance",), role="coefficient"),
        ]
    outputs = (
        TensorSpec(name="next_sample", dtype="float32", shape=shape, role="state"),
        TensorSpec(
            name="next_previous_x0", dtype="float32", shape=shape, role="image", value_range=image.value_range
        ),
    )
    return GraphSpec(name=name, inputs=tuple(inputs), outputs=outputs)
