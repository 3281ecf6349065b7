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
"""Of a plan, tokens int64 [B, T, C], labels int64 [B] and prompts int64 [B, S]: the logits [B, T, C, V] of each
token from those before it."""


def _wavenet(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    network: Any = plan.modules["likelihood"].get_submodule("network")
    made: Tensor = network(tokens[..., 0], label)
    return made.unsqueeze(2)


def _text(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    likelihood: Any = plan.modules["likelihood"]
    step: Any = plan.modules["step"]
    logits: Tensor = likelihood.network(likelihood.ends.before(tokens[..., 0]))
    never = step.head.never - likelihood.network.head.never  # likelihoods count what is never drawn
    return (logits + never).unsqueeze(2)


def _voices(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    made: Tensor = plan.modules["likelihood"].get_submodule("network")(tokens)
    return made


def _style(plan: ExportPlan, tokens: Tensor, label: Tensor | None, prompt: Tensor | None) -> Tensor:
    likelihood: Any = plan.modules["likelihood"]
    step: Any = plan.modules["step"]
    source = likelihood.network.read(prompt, label)
    choices = likelihood.network(source, label, likelihood.ends.before(tokens[..., 0]))
    shares: Tensor = choices.shares(likelihood.network.embed.num_embeddings)
    return (torch.where(shares > 0, shares.log(), step.lowered.min()) + step.lowered).unsqueeze(2)


LOGITS: dict[str, Logits] = {
    "musicrnn": _voices,
    "scratchgan": _text,
    "seqgan": _text,
    "textstyle": _style,
    "wavenet": _wavenet,
}
"""By family; each family of the sequence program has an entry."""


def naive_tokens(
    plan: ExportPlan,
    n: int,
    seed: int,
    label: list[int] | None = None,
    temperature: float = 1.0,
    prompt: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [n, length, C], with what is drawn behind an end."""
    spec = plan.model.program_of(SequenceSpec)
    shape = (spec.length, spec.channels)
    uniforms = torch.from_numpy(noise.uniform(sample_keys(n, seed), noise.LATENT_STREAM, shape))
    labels = None if label is None else torch.tensor(label)
    prompts = None if prompt is None else torch.from_numpy(prompt)
    tokens = torch.zeros(n, *shape, dtype=torch.int64)
    heat = torch.full((n,), temperature)
    with torch.no_grad():
        for place in range(spec.length):
            for channel in range(spec.channels):
                made = LOGITS[plan.model.family](plan, tokens[:, : place + 1], labels, prompts)
                drawn = draw_token(made[:, place, channel], uniforms[:, place, channel : channel + 1], heat)
                tokens[:, place, channel] = drawn.squeeze(1)
    return tokens.numpy()


def ends_of(plan: ExportPlan, tokens: np.ndarray) -> list[int]:
    """The elements of each before its end."""
    stop = plan.model.program_of(SequenceSpec).stop
    return [row.index(stop) if stop in row else len(row) for row in tokens[..., 0].tolist()]
