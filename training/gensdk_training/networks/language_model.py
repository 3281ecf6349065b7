"""A language model of LSTM cells: all places of a text at once for training, one token at a time for drawing.

Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000): of the gates ``(i, f, g, o) = [x, h] W
+ b`` the next states are ``c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`` and ``h' = sigmoid(o) * tanh(c')``. Both
forms call :func:`lstm_step`, so a text that is drawn token by token has the likelihood of the whole pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NEVER = -1e4
"""Added to the logit of a token that is never drawn: its probability is 0, and float16 can hold it."""
States = tuple[Tensor, Tensor]
"""h and c of all layers, [L, B, H] each."""


def lstm_step(gates: Iterable[nn.Module], x: Tensor, states: States) -> tuple[Tensor, States]:
    """One token: `x` [B, E] through the layers whose linear maps are `gates`, to [B, H] and the next states.

    Half precision may cover the maps; the cells and their states stay in float32, so that rounding does not add up
    over a text.
    """
    hidden, cell = [], []
    for layer, gate in enumerate(gates):
        i, f, g, o = gate(torch.cat((x, states[0][layer]), dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * states[1][layer] + torch.sigmoid(i) * torch.tanh(g)
        x = torch.sigmoid(o) * torch.tanh(c)
        hidden.append(x)
        cell.append(c)
    return x, (torch.stack(hidden), torch.stack(cell))


class Head(nn.Module):
    """States to logits, of which those of tokens that are `never` drawn lie 10,000 lower."""

    never: Tensor

    def __init__(self, hidden: int, vocabulary: int, never: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, hidden).uniform_(-1, 1) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        lowered = torch.zeros(vocabulary)
        lowered[list(never)] = NEVER
        self.register_buffer("never", lowered, persistent=False)

    def without(self, tokens: Sequence[int]) -> Head:
        """As this one, with the same parameters, and `tokens` never drawn either."""
        never = (self.never < 0).nonzero().squeeze(1).tolist()
        made = Head(self.weight.shape[1], self.weight.shape[0], [*never, *tokens])
        made.weight, made.bias = self.weight, self.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., H] to [..., V]."""
        return functional.linear(x, self.weight, self.bias + self.never)


class LanguageModel(nn.Module):
    """Tokens to the logits of the token after each.

    `vocabulary`: V tokens, `never` those that are no part of a text, such as its begin; `dropout`: the share of
    the embeddings, and of what the head gets, that :meth:`states` drops where it is asked to.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int,
        *,
        never: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.dropout = hidden, dropout
        self.embed = nn.Embedding(vocabulary, embedding)
        nn.init.normal_(self.embed.weight, std=0.1)
        sizes = [embedding, *[hidden] * (layers - 1)]
        self.gates = nn.ModuleList(nn.Linear(size + hidden, 4 * hidden) for size in sizes)
        for gate in self.gates:
            with torch.no_grad():
                gate.get_parameter("bias")[hidden : 2 * hidden].fill_(1.0)  # at first nothing is forgotten
        self.head = Head(hidden, vocabulary, never)

    def rest(self, count: int) -> States:
        """The states before `count` texts."""
        zeros = self.embed.weight.new_zeros(len(self.gates), count, self.hidden)
        return zeros, zeros

    def states(self, tokens: Tensor, *, drop: bool = False) -> Tensor:
        """`tokens` int64 [B, T], the begin first, to what the head gets after each, [B, T, H]."""
        share = self.dropout if drop and self.training else 0.0
        x = functional.dropout(self.embed(tokens), share) if share else self.embed(tokens)
        made, states = [], self.rest(tokens.shape[0])
        for place in range(tokens.shape[1]):
            hidden, states = lstm_step(self.gates, x[:, place], states)
            made.append(hidden)
        whole = torch.stack(made, dim=1)
        return functional.dropout(whole, share) if share else whole

    def forward(self, tokens: Tensor, *, drop: bool = False) -> Tensor:
        """`tokens` int64 [B, T], the begin first, to the logits [B, T, V] of the token after each."""
        logits: Tensor = self.head(self.states(tokens, drop=drop))
        return logits


@dataclass(frozen=True)
class Ends:
    """How texts begin and end: token `begin` before the first, `stop` the last one, None where texts have one
    length, and `rest` behind it."""

    begin: int
    stop: int | None
    rest: int

    def live(self, tokens: Tensor) -> Tensor:
        """Which of `tokens` [B, T] are part of the text, its end among them: bool [B, T]."""
        if self.stop is None:
            return torch.ones_like(tokens, dtype=torch.bool)
        ends = (tokens == self.stop).to(torch.int64)
        return ends.cumsum(dim=1) - ends == 0

    def before(self, tokens: Tensor) -> Tensor:
        """The token before each of `tokens` [B, T]."""
        return functional.pad(tokens[:, :-1], (1, 0), value=self.begin)


@dataclass(frozen=True)
class Written:
    """Texts `tokens` int64 [B, T], and the `states` with which each was drawn: from ``tokens[:, t]`` and
    ``states[t]`` a text can be gone on with. There are fewer states than T where all texts have ended before."""

    tokens: Tensor
    states: list[States]


@torch.no_grad()
def write(  # noqa: PLR0917 - what a text is gone on with
    model: LanguageModel, ends: Ends, last: Tensor, length: int, states: States, ended: Tensor
) -> Written:
    """Draws `length` tokens each, after the tokens `last` int64 [B] and `states`; of those that have `ended` bool
    [B], rests. By torch's global generator, from the model's own distribution."""
    tokens, kept, token = last.new_full((len(last), length), ends.rest), [], last
    for place in range(length):
        if ends.stop is not None and bool(ended.all()):
            break
        hidden, states = lstm_step(model.gates, model.embed(token), states)
        token = draw(model.head(hidden))
        tokens[:, place] = torch.where(ended, ends.rest, token)
        kept.append(states)
        if ends.stop is not None:
            ended = ended | (token == ends.stop)
    return Written(tokens, kept)


def write_texts(model: LanguageModel, ends: Ends, count: int, length: int) -> Written:
    """`count` whole texts of at most `length` tokens."""
    last = torch.full((count,), ends.begin, device=model.embed.weight.device)
    return write(model, ends, last, length, model.rest(count), torch.zeros_like(last, dtype=torch.bool))


def draw(logits: Tensor) -> Tensor:
    """int64 [B] from `logits` [B, V], by the inverse CDF."""
    edges = torch.softmax(logits.float(), dim=1).cumsum(dim=1)
    uniform = torch.rand_like(edges[:, :1]) * edges[:, -1:]
    return torch.searchsorted(edges, uniform, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
