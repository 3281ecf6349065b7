"""How well right pairs are told from false ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def pair_loss(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy in nats, and the share that is told right, detached; ln 2 and 1/2 by guessing.

    `logits` [B, B], of the right pairs on the diagonal and of false ones elsewhere. Right and false ones count
    half each (Chung & Zisserman 2016, "Out of time", with a cross entropy in place of a margin); B is 2 or more.
    """
    right, other = logits.diagonal(), ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    false = logits[other]
    loss = (functional.softplus(-right).mean() + functional.softplus(false).mean()) / 2
    told = ((right > 0).float().mean() + (false < 0).float().mean()) / 2
    return loss, told.detach()
