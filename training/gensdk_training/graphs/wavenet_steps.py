"""The three graphs of SequenceSpec over a WaveNet: a step, the likelihood, mu-law codes as amplitudes.

They hold the training network's own parameters, so they follow it while it trains.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_runtime.media.mu_law import decoding_table, thresholds
from gensdk_training.graphs.sequence_steps import draw_token
from gensdk_training.networks.wavenet import CausalLayers, WaveNet


class StepStack(nn.Module):
    """The layers and the head at one position; half precision may cover all of it."""

    def __init__(self, layers: CausalLayers, head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = layers, head

    def forward(self, x: Tensor, told: Tensor, kept: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`CausalLayers.step`, up to the logits [B, V]."""
        hidden, next_kept = self.layers("step", x, told, kept, position)
        return self.head(hidden), next_kept


class WaveNetStep(nn.Module):
    """Draws one token from the token before, the states and one uniform number."""

    def __init__(self, network: WaveNet) -> None:
        super().__init__()
        self.embed, self.teller, self.frame = network.embed, network.teller, network.frame
        self.stack = StepStack(network.layers, network.head)

    def forward(  # noqa: PLR0917 - as the graph has it
        self,
        token: Tensor,
        position: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        kept: Tensor,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`token` int64 [B, 1], `position` int64 [1], `uniform` [B, 1], `temperature` [B], the state `kept` [D, B,
        R], and `label` int64 [B] of a network with classes; the next token and state."""
        told = self.teller(torch.div(position, self.frame, rounding_mode="floor"), label, step=True)
        logits, next_kept = self.stack(self.embed(token.squeeze(1)), told, kept, position)
        return draw_token(logits, uniform, temperature), next_kept


class Codes(nn.Module):
    """Between amplitudes in [-1, 1] and mu-law codes, by the tables of :mod:`gensdk_runtime.media.mu_law`."""

    thresholds: Tensor
    amplitudes: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.from_numpy(thresholds(levels).copy()), persistent=False)
        self.register_buffer("amplitudes", torch.from_numpy(decoding_table(levels).copy()), persistent=False)

    def encode(self, sound: Tensor) -> Tensor:
        """Amplitudes of any shape to int64 codes."""
        return torch.bucketize(sound.contiguous(), self.thresholds, right=True)

    def decode(self, codes: Tensor) -> Tensor:
        """int64 codes of any shape to amplitudes; what stands for no amplitude becomes the last."""
        return self.amplitudes[torch.clamp(codes, max=len(self.amplitudes) - 1)]


class Decode(nn.Module):
    """Tokens as amplitudes."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, T, 1] to float32 [B, T, 1]."""
        return self.codes.decode(tokens)


class SoundLikelihood(nn.Module):
    """log p in nats of the first samples of sounds, and of the end behind them where that is within the length."""

    def __init__(self, network: WaveNet, codes: Codes, *, stop: int) -> None:
        super().__init__()
        self.network, self.codes, self.stop = network, codes, stop

    def forward(self, audio: Tensor, lengths: Tensor, label: Tensor | None = None) -> Tensor:
        """`audio` [B, T, 1], `lengths` int64 [B], `label` int64 [B]; [B]."""
        tokens = self.codes.encode(audio.squeeze(-1))
        place = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        ends = lengths.unsqueeze(1)
        tokens = torch.where(place == ends, torch.full_like(tokens, self.stop), tokens)
        logits = self.network(tokens) if label is None else self.network(tokens, label)
        log_p = torch.log_softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        return torch.where(place <= ends, log_p, torch.zeros_like(log_p)).sum(dim=1)
