"""The three graphs of SequenceSpec over voices: a step that draws one token for each, the likelihood of piano
rolls, and tokens as rolls.

They hold the training network's own parameters, so they follow it while it trains.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_training.graphs.sequence_steps import draw_among_few
from gensdk_training.networks.language_model import lstm_step
from gensdk_training.networks.voices import Gates, Voices, log_p_of, when


class VoiceStep(nn.Module):
    """Draws the tokens of one step, voice after voice, from those before, the states and a uniform number each."""

    def __init__(self, network: Voices) -> None:
        super().__init__()
        self.embed, self.beat, self.bar, self.heads = network.embed, network.beat, network.bar, network.heads
        self.gates = nn.ModuleList(Gates(network.lstm, layer) for layer in range(network.lstm.num_layers))

    def forward(  # noqa: PLR0917 - as the graph has it
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
        """`token` int64 [B, C], `position` int64 [1], `uniform` [B, C], the options [B] and the states [L, B, H];
        the next tokens and states."""
        told = [embed(token[:, voice]) for voice, embed in enumerate(self.embed)]
        given = torch.cat((*told, when(self.beat, self.bar, position).expand(token.shape[0], -1)), dim=1)
        x, (next_hidden, next_cell) = lstm_step(self.gates, given, (hidden, cell))
        features, drawn = torch.cat((x, given), dim=1), []
        for voice, head in enumerate(self.heads):
            logits = head(features, token[:, voice])
            made = draw_among_few(logits, uniform[:, voice : voice + 1], temperature, top_k, top_p)
            drawn.append(made)
            # What could not be drawn is -1, which no row stands for; the program says so.
            features = torch.cat((features, self.embed[voice](torch.clamp(made[:, 0], min=0))), dim=1)
        return torch.cat(drawn, dim=1), next_hidden, next_cell


class Rolls(nn.Module):
    """Between piano rolls of ones and zeros and tokens: 0 for silence, k for the k-th pitch."""

    numbers: Tensor

    def __init__(self, pitches: int) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.arange(1, pitches + 1), persistent=False)

    def encode(self, rolls: Tensor) -> Tensor:
        """[B, C, T, P] to int64 [B, T, C]; of notes that sound at once in a track the highest."""
        return ((rolls > 0.5).to(torch.int64) * self.numbers).amax(dim=3).transpose(1, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, T, C] to float32 [B, C, T, P]; what is no pitch becomes silence."""
        return (tokens.transpose(1, 2).unsqueeze(3) == self.numbers).to(torch.float32)


class RollLikelihood(nn.Module):
    """log p in nats of the first steps of rolls, and of the end behind them where that is within the length."""

    def __init__(self, network: Voices, rolls: Rolls, *, stop: int | None) -> None:
        super().__init__()
        self.network, self.rolls, self.stop = network, rolls, stop

    def forward(self, pianoroll: Tensor, lengths: Tensor) -> Tensor:
        """`pianoroll` [B, C, T, P] and `lengths` int64 [B], in steps; [B]."""
        tokens = self.rolls.encode(pianoroll)
        place = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        last = lengths.unsqueeze(1)
        if self.stop is None:
            log_p = log_p_of(self.network(tokens), tokens).sum(dim=2)
            return torch.where(place < last, log_p, torch.zeros_like(log_p)).sum(dim=1)
        tokens = with_end(tokens, place == last, self.stop)
        log_p = log_p_of(self.network(tokens), tokens)
        counts = torch.where(place < last, log_p.sum(dim=2), torch.zeros_like(log_p[..., 0]))
        return (counts + torch.where(place == last, log_p[..., 0], torch.zeros_like(counts))).sum(dim=1)


def with_end(tokens: Tensor, ends: Tensor, stop: int) -> Tensor:
    """`tokens` int64 [B, T, C] whose first voice ends the piece at the steps `ends` bool [B, T]."""
    first = torch.where(ends, torch.full_like(tokens[..., 0], stop), tokens[..., 0])
    return torch.cat((first.unsqueeze(2), tokens[..., 1:]), dim=2)
