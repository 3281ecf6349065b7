"""The three graphs of SequenceSpec over a style transformer: the source, a step that draws a token, the
likelihood.

They hold the training network's own parameters, so they follow it while it trains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.conditions import PromptSpec, label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.settings import SequenceSettings
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.text.vocabulary import vocabulary_bytes
from gensdk_training.family import DataInfo
from gensdk_training.graphs.sequence_steps import (
    LIKELIHOOD,
    STEP,
    draw_among,
    likelihood_graph,
    step_graph,
    tensor,
)
from gensdk_training.networks.language_model import NEVER, Ends
from gensdk_training.networks.style_transformer import Source, StyleTransformer
from gensdk_training.plan import ExportPlan

SOURCE = "source"


class ReadSource(nn.Module):
    """What every step needs of the source."""

    def __init__(self, network: StyleTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, prompt: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`prompt` int64 [B, S] and `label` int64 [B], the style asked for; keys and values [B, L, S, D], and what
        to point by, [B, S, 2 D]."""
        source = self.network.read(prompt, label)
        return source.keys, source.values, source.pointed


class StyleStep(nn.Module):
    """Draws one token from the source, the tokens before and one uniform number; none of the `undrawn` ones."""

    lowered: Tensor

    def __init__(self, network: StyleTransformer, undrawn: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        lowered = torch.zeros(network.embed.num_embeddings)
        lowered[list(undrawn)] = NEVER
        self.register_buffer("lowered", lowered, persistent=False)

    def forward(  # noqa: PLR0917 - as the graph has it
        self,
        token: Tensor,
        position: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        keys: Tensor,
        values: Tensor,
        source_keys: Tensor,
        source_values: Tensor,
        pointed: Tensor,
        prompt: Tensor,
        label: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`token` int64 [B, 1], `position` int64 [1], `uniform` [B, 1], `temperature` [B], `top_k` int64 [B],
        `top_p` [B], the states `keys` and `values` [L, B, T, D], what :class:`ReadSource` gave, and what it was
        given; the next token and states."""
        bias = self.network.bias_of(prompt)
        source = Source(prompt, source_keys, source_values, pointed, bias)
        choices, next_keys, next_values = self.network.step(source, label, token, position, keys, values)
        shares = choices.shares(self.network.embed.num_embeddings).squeeze(1)
        said = shares > 0  # the logarithm of what can't be said is a number too
        logits = torch.where(said, torch.log(torch.where(said, shares, 1.0)), NEVER) + self.lowered
        return draw_among(logits, uniform, temperature, top_k, top_p), next_keys, next_values


class StyleLikelihood(nn.Module):
    """log p in nats of the first tokens of texts and the end behind them, given the source and the style."""

    def __init__(self, network: StyleTransformer, ends: Ends) -> None:
        super().__init__()
        self.network, self.ends = network, ends

    def forward(self, text: Tensor, lengths: Tensor, prompt: Tensor, label: Tensor) -> Tensor:
        """`text` int64 [B, T], `lengths` int64 [B], the tokens before the end, `prompt` int64 [B, S] and `label`
        int64 [B]; [B]. A token that is neither frequent nor in the source takes about 10,000 nats."""
        place, last = torch.arange(text.shape[1], device=text.device).unsqueeze(0), lengths.unsqueeze(1)
        text = torch.where(place == last, torch.full_like(text, self.ends.stop or 0), text)
        choices = self.network(self.network.read(prompt, label), label, self.ends.before(text))
        log_p = choices.log_probability(text)
        return torch.where(place <= last, log_p, torch.zeros_like(log_p)).sum(dim=1)


def style_plan(network: StyleTransformer, data: DataInfo, ends: Ends, family: str) -> ExportPlan:
    """Source, step and likelihood of `network`, which this switches to eval mode, and the vocabulary.

    Half precision covers embeddings, attention and linear maps, not the choice among tokens and places.
    """
    network.eval()
    text = data.require_text()
    output, size = TextSpec.of(text.length, text.vocabulary.size), text.vocabulary.size
    prompt = PromptSpec(length=text.length - 1, size=size, rest=network.pad)
    spec = SequenceSpec(
        step_graph=STEP,
        likelihood_graph=LIKELIHOOD,
        context_graph=SOURCE,
        length=text.length,
        levels=size,
        begin=ends.begin,
        stop=ends.stop,
        rest=ends.rest,
        defaults=SequenceSettings(top_k=1),
    )
    layers, features = len(network.writer.layers), network.place.shape[1]
    states = [tensor(name, layers, "batch", text.length, features, role="state") for name in ("keys", "values")]
    contexts = [
        *(
            tensor(f"source_{name}", "batch", layers, prompt.length, features, role="context")
            for name in ("keys", "values")
        ),
        tensor("pointed", "batch", prompt.length, 2 * features, role="context"),
    ]
    conditions = [
        tensor("prompt", "batch", prompt.length, role="condition", dtype="int64"),
        tensor("label", "batch", role="condition", dtype="int64"),
    ]
    graphs = (
        GraphSpec(name=SOURCE, inputs=tuple(conditions), outputs=tuple(contexts)),
        step_graph(spec, states, conditions=[*contexts, *conditions], cuts=True),
        likelihood_graph(spec, output, conditions=conditions),
    )
    model = ModelSpec(
        name=f"{data.name}-{family}",
        family=family,
        program=spec,
        graphs=graphs,
        output=output,
        conditions=(prompt, *label_conditions(data.num_classes, data.class_names)),
    )
    unknown = text.vocabulary.special.unknown
    modules = {
        SOURCE: ReadSource(network),
        STEP: StyleStep(network, () if unknown is None else (unknown,)),
        LIKELIHOOD: StyleLikelihood(network, ends),
    }
    half = {
        SOURCE: ("network.embed", "network.reader"),
        STEP: ("network.embed", "network.writer", "network.chooser"),
        LIKELIHOOD: ("network.embed", "network.reader", "network.writer", "network.chooser"),
    }
    files = {output.vocabulary: vocabulary_bytes(text.vocabulary)}
    return ExportPlan(model, {name: module.eval() for name, module in modules.items()}, half=half, files=files)
