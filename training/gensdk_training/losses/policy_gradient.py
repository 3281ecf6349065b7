"""REINFORCE for texts: what tokens are worth, and the loss whose gradient is that of the expected reward.

Williams (1992), "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of `tokens` int64 [...] by `logits` [..., V], in nats: [...]."""
    return torch.log_softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def mean_over(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of `values` where the bool `counts`, of the same shape, is true; 0 where it never is."""
    return torch.where(counts, values, torch.zeros_like(values)).sum() / counts.sum().clamp(min=1)


def policy_loss(log_p: Tensor, advantages: Tensor) -> Tensor:
    """``-E[A_t log p(y_t | y_<t)]`` over tokens [N]; the gradient does not reach the advantages."""
    return -(log_p * advantages.detach()).mean()


def against_the_others(rewards: Tensor, counts: Tensor) -> Tensor:
    """`rewards` [B, T] less their mean over the other texts at the same place: a baseline that does not depend on
    the text's own tokens, so that the gradient stays unbiased. 0 where no other text has come so far."""
    known = counts.to(rewards.dtype)
    others = (known.sum(dim=0) - known).clamp(min=0)
    total = (rewards * known).sum(dim=0) - rewards * known
    return torch.where(counts & (others > 0), rewards - total / others.clamp(min=1), torch.zeros_like(rewards))


def returns(rewards: Tensor, counts: Tensor, discount: float) -> Tensor:
    """``R_t = sum_{s >= t} discount^(s - t) r_s`` of `rewards` [B, T], over the tokens that count: [B, T]."""
    total, found = torch.zeros_like(rewards[:, 0]), []
    for place in range(rewards.shape[1] - 1, -1, -1):
        total = torch.where(counts[:, place], rewards[:, place], 0.0) + discount * total
        found.append(total)
    return torch.stack(found[::-1], dim=1)
