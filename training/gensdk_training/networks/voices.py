"""Several voices on a grid, one step after the other, and within a step one voice after the other.

An LSTM sees the steps before, where in its bar the next one lies and how many bars lie behind; at that step each
voice has a head of its own, which is told what the voices before it got, so that a chord is drawn as one (the
RNN-NADE of Boulanger-Lewandowski et al. 2012, with a categorical distribution for each voice in place of a NADE
over notes).

Tokens of a voice: 0 is silence, k the k-th pitch, and the last one ends the piece, in the first voice alone. One
logit more says "as before": it is added to that of the token before, so that a held note needs no token of its own
and a roll has one spelling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.language_model import NEVER


class Gates(nn.Module):
    """The linear map of one layer of an :class:`torch.nn.LSTM`, with that layer's own parameters, as
    :func:`lstm_step` takes it."""

    def __init__(self, lstm: nn.LSTM, layer: int) -> None:
        super().__init__()
        sizes = (lstm.input_size if layer == 0 else lstm.hidden_size, lstm.hidden_size)
        self.sizes = sizes
        self.of_input, self.of_state = (nn.Linear(size, 4 * lstm.hidden_size, device="meta") for size in sizes)
        for part, name in ((self.of_input, "ih"), (self.of_state, "hh")):
            part.weight = lstm.get_parameter(f"weight_{name}_l{layer}")
            part.bias = lstm.get_parameter(f"bias_{name}_l{layer}")

    def forward(self, x: Tensor) -> Tensor:
        """Input and hidden state, [B, E + H], to the four gates [B, 4 H]."""
        given, hidden = torch.split(x, list(self.sizes), dim=1)
        made: Tensor = self.of_input(given) + self.of_state(hidden)
        return made


class VoiceHead(nn.Module):
    """The logits of one voice at one step; `never`: tokens that it does not draw."""

    numbers: Tensor
    lowered: Tensor

    def __init__(self, features: int, hidden: int, levels: int, never: Sequence[int]) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(features, hidden), nn.Linear(hidden, levels + 1)
        self.register_buffer("numbers", torch.arange(levels), persistent=False)
        lowered = torch.zeros(levels)
        lowered[list(never)] = NEVER
        self.register_buffer("lowered", lowered, persistent=False)

    def forward(self, features: Tensor, before: Tensor, share: float = 0.0) -> Tensor:
        """`features` [N, F] and the token `before` int64 [N] to logits [N, V]; `share` of the hidden features is
        dropped."""
        hidden = torch.relu(self.mix(features))
        if share:
            hidden = functional.dropout(hidden, share)
        made = self.out(hidden)
        held = (before.unsqueeze(1) == self.numbers).to(made.dtype) * made[:, -1:]
        logits: Tensor = made[:, :-1] + held + self.lowered.to(made.dtype)
        return logits


class Voices(nn.Module):
    """Tokens [B, T, C] of C voices to the logits of each, given all steps before and the voices before it.

    `levels`: V tokens, of which `stop` is the first voice's alone (None: there is none); V itself stands before
    the first step. `cycle`: steps of a bar, and `bars` of them at most. `dropout`: the share of what the LSTM gets
    and gives, and of what the heads mix, that :meth:`log_probability` drops where it is asked to.
    """

    def __init__(
        self,
        voices: int,
        levels: int,
        cycle: int,
        bars: int,
        *,
        stop: int | None,
        embedding: int,
        hidden: int,
        layers: int,
        head: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.voices, self.levels, self.cycle, self.bars, self.dropout = voices, levels, cycle, bars, dropout
        self.embed = nn.ModuleList(nn.Embedding(levels + 1, embedding) for _ in range(voices))
        self.beat, self.bar = nn.Embedding(cycle, embedding), nn.Embedding(bars, embedding)
        nn.init.normal_(self.bar.weight, std=0.1)
        self.lstm = nn.LSTM((voices + 1) * embedding, hidden, layers, batch_first=True)
        with torch.no_grad():
            for layer in range(layers):  # at first nothing is forgotten
                self.lstm.get_parameter(f"bias_ih_l{layer}")[hidden : 2 * hidden].fill_(1.0)
        never = [[] if stop is None or voice == 0 else [stop] for voice in range(voices)]
        self.heads = nn.ModuleList(
            VoiceHead(hidden + (voices + 1 + voice) * embedding, head, levels, never[voice])
            for voice in range(voices)
        )

    def given(self, before: Tensor, position: Tensor) -> Tensor:
        """What is told of the step before, int64 [..., C], and of the number of the next one, int64 [T] or [1], as
        features [..., (C + 1) E]."""
        told = [embed(before[..., voice]) for voice, embed in enumerate(self.embed)]
        time = when(self.beat, self.bar, position)
        return torch.cat((*told, time.expand(*told[0].shape[:-1], -1)), dim=-1)

    def before(self, tokens: Tensor) -> Tensor:
        """The step before each of `tokens` [B, T, C]."""
        return functional.pad(tokens[:, :-1], (0, 0, 1, 0), value=self.levels)

    def states(self, tokens: Tensor, share: float = 0.0) -> tuple[Tensor, Tensor]:
        """`tokens` int64 [B, T, C] to what all heads are told at each step [B, T, F], and the steps before it."""
        before = self.before(tokens)
        given = self.given(before, torch.arange(tokens.shape[1], device=tokens.device))
        x, _ = self.lstm(functional.dropout(given, share) if share else given)
        return torch.cat((functional.dropout(x, share) if share else x, given), dim=-1), before

    def log_probability(self, tokens: Tensor, counts: Tensor, *, drop: bool = False) -> Tensor:
        """log p in nats of the tokens at the steps that count, bool [B, T], and of the first voice alone where it
        ends the piece: [N, C], the steps in their order."""
        share = self.dropout if drop and self.training else 0.0
        states, before = self.states(tokens, share)
        tokens = tokens[counts]
        return log_p_of(self._logits(states[counts], before[counts], tokens, share), tokens)

    def _logits(self, features: Tensor, before: Tensor, tokens: Tensor, share: float = 0.0) -> Tensor:
        """[N, C, V] from what all heads are told [N, F], the steps before and the tokens themselves, int64 [N, C],
        of which each head sees those of the voices before its own."""
        found = []
        for voice, head in enumerate(self.heads):
            found.append(head(features, before[:, voice], share))
            if voice + 1 < self.voices:
                features = torch.cat((features, self.embed[voice](tokens[:, voice])), dim=1)
        return torch.stack(found, dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` int64 [B, T, C] to the logits [B, T, C, V] of each, given those before it."""
        states, before = self.states(tokens)
        flat = self._logits(states.flatten(0, 1), before.flatten(0, 1), tokens.flatten(0, 1))
        return flat.reshape(*tokens.shape, self.levels)


def when(beat: nn.Module, bar: nn.Module, position: Tensor) -> Tensor:
    """The time of steps int64 [T] as features [T, E]: of the place in the bar, of `cycle` rows, and of the bar;
    what lies behind the last one counts as in it."""
    cycle, bars = beat.get_parameter("weight").shape[0], bar.get_parameter("weight").shape[0]
    number = torch.clamp(torch.div(position, cycle, rounding_mode="floor"), max=bars - 1)
    time: Tensor = beat(position % cycle) + bar(number)
    return time


def log_p_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p in nats of `tokens` int64 [...] under `logits` [..., V]."""
    return torch.log_softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
