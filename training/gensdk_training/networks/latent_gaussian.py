"""A Gaussian fitted to latents, so that a model whose latents have no prior can be sampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 1e-6
"""Added to the variances: a few latents, or those of a first step, may all lie in one plane."""


class LatentGaussian(nn.Module):
    """``mean + L z``, ``L L' = covariance``: standard normal noise [B, Z] to latents [B, Z]."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        # In float64: a covariance that was averaged in float32 may not be quite positive definite.
        wide = covariance.detach().double()
        wide = (wide + wide.T) / 2 + RIDGE * torch.eye(len(wide), dtype=torch.float64, device=wide.device)
        factor, failed = torch.linalg.cholesky_ex(wide)
        if int(failed):
            values, vectors = torch.linalg.eigh(wide)
            factor = vectors * values.clamp(min=RIDGE).sqrt()
        self.register_buffer("mean", mean.detach().clone().float())
        self.register_buffer("factor", factor.float())
        self.register_buffer("inverse", torch.linalg.inv(factor).float())

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, Z] standard normal."""
        return self.get_buffer("mean") + z @ self.get_buffer("factor").T

    def whitened(self, latents: Tensor) -> Tensor:
        """The way back: `latents` [B, Z] to what :meth:`forward` makes them of."""
        return (latents - self.get_buffer("mean")) @ self.get_buffer("inverse").T


class LatentMoments(nn.Module):
    """Running mean and covariance of latents, with the given momentum, as batch norm keeps them."""

    def __init__(self, size: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("covariance", torch.eye(size))

    @torch.no_grad()
    def update(self, latents: Tensor) -> None:
        """Moves towards the moments of `latents` [B, Z]."""
        mean, covariance = self.get_buffer("mean"), self.get_buffer("covariance")
        with torch.autocast(latents.device.type, enabled=False):  # which would multiply in half precision
            latents = latents.detach().float()
            centred = latents - mean
            covariance.lerp_(centred.T @ centred / len(latents), self.momentum)
            mean.lerp_(latents.mean(dim=0), self.momentum)

    def gaussian(self) -> LatentGaussian:
        """The Gaussian with these moments."""
        return LatentGaussian(self.get_buffer("mean"), self.get_buffer("covariance"))
