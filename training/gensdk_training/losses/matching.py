"""How well two encoders bring together what belongs together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def matching_loss(one: Tensor, other: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss in nats, and the share of `one` whose nearest of `other` has its label, detached.

    `one` and `other` [B, F] of length 1, `labels` int64 [B] of both. With ``p(j | i) ~ exp(one_i . other_j /
    temperature)`` the mean of ``-log p(j | i)`` over all j of i's label, and the same from `other` to `one`, half
    of each (Xu et al. 2018, "AttnGAN", eq. 10-12; with several that are right as in Khosla et al. 2020,
    "Supervised Contrastive Learning", eq. 2).
    """
    with torch.autocast(one.device.type, enabled=False):  # a temperature magnifies what half precision rounds
        scores = one.float() @ other.float().t() / temperature
    same = (labels[:, None] == labels).to(scores.dtype)
    targets = same / same.sum(dim=1, keepdim=True)  # symmetric: both ways have the same
    loss = functional.cross_entropy(scores, targets) + functional.cross_entropy(scores.t(), targets)
    right = (labels[scores.argmax(dim=1)] == labels).to(torch.float32).mean().detach()
    return loss / 2, right
