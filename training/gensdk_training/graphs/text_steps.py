"""The two graphs of SequenceSpec over a language model: a step that draws a token, and the likelihood of texts.

They hold the training network's own parameters, so they follow it while it trains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.text.vocabulary import vocabulary_bytes
from gensdk_training.family import TextInfo
from gensdk_training.graphs.sequence_steps import (
    LIKELIHOOD,
    STEP,
    draw_among,
    draw_token,
    likelihood_graph,
    step_graph,
    tensor,
)
from gensdk_training.networks.language_model import Ends, LanguageModel, lstm_step
from gensdk_training.plan import ExportPlan


class TextStep(nn.Module):
    """Draws one token from the token before, the states and one uniform number; of the tokens, those that are not
    `undrawn`: what stands for unknown words is part of texts, whose likelihood counts it, but says nothing."""

    def __init__(self, network: LanguageModel, undrawn: Sequence[int] = ()) -> None:
        super().__init__()
        self.embed, self.gates, self.head = network.embed, network.gates, network.head.without(undrawn)

    def _logits(self, token: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, (next_hidden, next_cell) = lstm_step(self.gates, self.embed(token.squeeze(1)), (hidden, cell))
        return self.head(x), next_hidden, next_cell

    def forward(  # noqa: PLR0917 - as the graph has it
        self, token: Tensor, position: Tensor, uniform: Tensor, temperature: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`token` int64 [B, 1], `position` int64 [1], which says nothing here, `uniform` [B, 1], `temperature` [B]
        and the states [L, B, H]; the next token and states."""
        logits, next_hidden, next_cell = self._logits(token, hidden, cell)
        return draw_token(logits, uniform, temperature), next_hidden, next_cell


class CutTextStep(TextStep):
    """As :class:`TextStep`, among the likeliest tokens alone."""

    def forward(  # type: ignore[override]  # noqa: PLR0917 - as the graph has it
        self,
        token: Tensor,
        position: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        hidden: Tensor,
        cell: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As there, with `top_k` int64 [B] and `top_p` [B]."""
        logits, next_hidden, next_cell = self._logits(token, hidden, cell)
        return draw_among(logits, uniform, temperature, top_k, top_p), next_hidden, next_cell


class TextLikelihood(nn.Module):
    """log p in nats of the first tokens of texts, and of the end behind them where there is one."""

    def __init__(self, network: LanguageModel, ends: Ends) -> None:
        super().__init__()
        self.network, self.ends = network, ends

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        """`text` int64 [B, T] and `lengths` int64 [B], the tokens before the end; [B]."""
        place, last = torch.arange(text.shape[1], device=text.device).unsqueeze(0), lengths.unsqueeze(1)
        counts = place < last
        if self.ends.stop is not None:
            text = torch.where(place == last, torch.full_like(text, self.ends.stop), text)
            counts = place <= last
        logits = self.network(self.ends.before(text))
        log_p = torch.log_softmax(logits, dim=-1).gather(-1, text.unsqueeze(-1)).squeeze(-1)
        return torch.where(counts, log_p, torch.zeros_like(log_p)).sum(dim=1)


def text_plan(
    network: LanguageModel, text: TextInfo, ends: Ends, name: str, family: str, *, cuts: bool
) -> ExportPlan:
    """Step and likelihood of `network`, which this switches to eval mode, and the vocabulary.

    Half precision covers the linear maps and the embedding of the step, not its cells, their states or the draw.
    """
    network.eval()
    output = TextSpec.of(text.length, text.vocabulary.size)
    spec = SequenceSpec(
        step_graph=STEP,
        likelihood_graph=LIKELIHOOD,
        length=text.length,
        levels=text.vocabulary.size,
        begin=ends.begin,
        stop=ends.stop,
        rest=ends.rest,
    )
    states = [
        tensor(kind, len(network.gates), "batch", network.hidden, role="state") for kind in ("hidden", "cell")
    ]
    graphs = (step_graph(spec, states, cuts=cuts), likelihood_graph(spec, output))
    unknown = text.vocabulary.special.unknown
    step = (CutTextStep if cuts else TextStep)(network, () if unknown is None else (unknown,))
    model = ModelSpec(name=name, family=family, program=spec, graphs=graphs, output=output)
    modules = {STEP: step.eval(), LIKELIHOOD: TextLikelihood(network, ends).eval()}
    maps = ("embed", *(f"gates.{layer}" for layer in range(len(network.gates))), "head")
    half = {STEP: maps, LIKELIHOOD: tuple(f"network.{part}" for part in maps)}
    return ExportPlan(model, modules, half=half, files={output.vocabulary: vocabulary_bytes(text.vocabulary)})
