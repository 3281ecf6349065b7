"""Binary neurons: what is above a threshold becomes 1, all else 0, and gradients go straight through.

Dong & Yang 2018, "Convolutional Generative Adversarial Networks with Binary Neurons for Polyphonic Music
Generation" (arXiv 1804.09399), eq. 1 to 4; the estimator is that of Bengio et al. 2013 (arXiv 1308.3432),
adjusted by the sigmoid: forwards a step, backwards ``sigmoid'``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BinaryNeurons(nn.Module):
    """Logits [B, T, S, P] to ones and zeros of the same shape.

    Deterministic: 1 where the logit is above 0. With `uniform` [B, T, S, P]: 1 where the sigmoid is above it, so
    that it is the probability of a one.
    """

    fp32_island = True
    """A threshold in half precision would flip what lies near it."""

    def forward(self, logits: Tensor, uniform: Tensor | None = None) -> Tensor:
        """As the class says; in training with gradients."""
        chance = torch.sigmoid(logits)
        hard = (logits > 0 if uniform is None else chance > uniform).to(logits.dtype)
        return hard + (chance - chance.detach()) if self.training else hard


class OneHotNeurons(nn.Module):
    """Logits [B, T, S, P + 1], the last one of silence, to ones and zeros [B, T, S, P]: at each step one note of a
    track sounds, or none.

    Deterministic: the largest logit. With `uniform` [B, T, S, P + 1]: the largest after Gumbel noise, so that the
    softmax has the probabilities. Gradients are those of the softmax.
    """

    fp32_island = True

    def forward(self, logits: Tensor, uniform: Tensor | None = None) -> Tensor:
        """As the class says; in training with gradients."""
        noisy = logits if uniform is None else logits - torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6)))
        places = torch.arange(logits.shape[-1], device=logits.device)
        hard = (places == noisy.argmax(dim=-1, keepdim=True)).to(logits.dtype)
        if self.training:
            chance = torch.softmax(noisy, dim=-1)
            hard = hard + (chance - chance.detach())
        return hard[..., :-1]
