"""Sequences without any state: the training network over all that was drawn so far, for each element anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensdk_runtime import noise
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_training.graphs.sequence_steps import draw_token
from gensdk_training.plan import ExportPlan

Logits = Callable[[ExportPlan, Tensor, Tensor | None, Tensor | None], Tensor]
"""Of a plan, tokens int64 [B, T], labels int64 [B] and prompts int64 [B, S]: the logits [B, T, V] of each token
from those before it."""


def _wavenet(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    network: Any = plan.modules["likelihood"].get_submodule("network")
    made: Tensor = network(tokens, label)
    return made


def _text(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    likelihood: Any = plan.modules["likelihood"]
    step: Any = plan.modules["step"]
    logits: Tensor = likelihood.network(likelihood.ends.before(tokens))
    return logits + step.head.never - likelihood.network.head.never  # likelihoods count what is never drawn


def _style(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    likelihood: Any = plan.modules["likelihood"]
    step: Any = plan.modules["step"]
    source = likelihood.network.read(prompt, label)
    choices = likelihood.network(source, label, likelihood.ends.before(tokens))
    shares: Tensor = choices.shares(likelihood.network.embed.num_embeddings)
    return torch.where(shares > 0, shares.log(), step.lowered.min()) + step.lowered


LOGITS: dict[str, Logits] = {"scratchgan": _text, "seqgan": _text, "textstyle": _style, "wavenet": _wavenet}
"""By family; each family of the sequence program has an entry."""


def naive_tokens(
    plan: ExportPlan,
    n: int,
    seed: int,
    label: list[int] | None = None,
    temperature: float = 1.0,
    prompt: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [n, length], with what is drawn behind an end."""
    spec = plan.model.program_of(SequenceSpec)
    uniforms = torch.from_numpy(noise.uniform(sample_keys(n, seed), noise.LATENT_STREAM, (spec.length, 1)))
    labels = None if label is None else torch.tensor(label)
    prompts = None if prompt is None else torch.from_numpy(prompt)
    tokens = torch.zeros(n, spec.length, dtype=torch.int64)
    heat = torch.full((n,), temperature)
    with torch.no_grad():
        for place in range(spec.length):
            logits = LOGITS[plan.model.family](plan, tokens[:, : place + 1], labels, prompts)
            tokens[:, place] = draw_token(logits[:, place], uniforms[:, place], heat).squeeze(1)
    return tokens.numpy()


def ends_of(plan: ExportPlan, tokens: np.ndarray) -> list[int]:
    """The elements of each before its end."""
    stop = plan.model.program_of(SequenceSpec).stop
    return [row.index(stop) if stop in row else len(row) for row in tokens.tolist()]
