"""A transformer that reads a text and writes it anew in a style that it is told, and can point at what it reads.

Vaswani et al. (2017), "Attention Is All You Need", with the norms before each part (Xiong et al. 2020); the style
is a vector that is added to every embedding, of the reader and of the writer. Each token is chosen among the
`frequent` most frequent ones of the vocabulary and the S places of the source, by one softmax over all K + S of
them (Gu et al. 2016, "Incorporating Copying Mechanism in Sequence-to-Sequence Learning", eq. 4 to 8): rare words
can be copied and nothing else, which keeps the content, and the output layer small.

The same modules run whole texts for training and one token at a time for drawing: the writer takes the keys and
values of the places before, and gives them back with those of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.language_model import NEVER, Ends

POINTED_SLOPE = 0.5
"""How much less a place of the source is pointed at for each place that lies between it and the text's own."""
FOLLOWING = 6.0
"""What a place of the source gains at first where it comes behind the word that was written last: embeddings have
about length 1."""


class Attention(nn.Module):
    """Scaled dot products of several heads, over keys and values that were made before."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.out = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """`x` [B, T, D] over `keys` and `values` [B, S, D]; `bias` is added to the scores [B, heads, T, S]."""
        scale = math.sqrt(x.shape[-1] // self.heads)
        scores = self._split(self.ask(x) / scale) @ self._split(keys).transpose(2, 3)
        read = torch.softmax(scores + bias, dim=-1) @ self._split(values)
        made: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return made

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, heads, T, D / heads]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear maps, four times as many features between."""

    def __init__(self, features: int) -> None:
        super().__init__(nn.Linear(features, 4 * features), nn.ReLU(), nn.Linear(4 * features, features))


class ReaderLayer(nn.Module):
    """Attention to the whole source, and two linear maps."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.told, self.attend = (
            nn.LayerNorm(features),
            nn.Linear(features, 2 * features),
            Attention(features, heads),
        )
        self.feed_norm, self.feed = nn.LayerNorm(features), FeedForward(features)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` [B, S, D], `bias` [B, 1, 1, S]."""
        y = self.norm(x)
        x = x + self.drop(self.attend(y, *self.told(y).chunk(2, dim=2), bias))
        made: Tensor = x + self.drop(self.feed(self.feed_norm(x)))
        return made


class Reader(nn.Module):
    """The source to what every step of the writer reads: keys and values of each of its layers, and those that it
    points by. The latter are, in their second half, the embedding of the token before: who copies goes on behind
    the word that it has written last (an induction head, Olsson et al. 2022), from the first step of training
    on."""

    def __init__(self, features: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ReaderLayer(features, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(features)
        self.told = nn.ModuleList(nn.Linear(features, 2 * features) for _ in range(layers))
        self.pointed = nn.Linear(features, features)
        self.following = nn.Parameter(torch.full((1,), FOLLOWING))

    def forward(self, x: Tensor, before: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [B, S, D], `before` [B, S, D], embeddings of the tokens before each, and `bias` [B, 1, 1, S]; keys
        and values [B, L, S, D], and [B, S, 2 D] to point by."""
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        keys, values = torch.stack([told(x) for told in self.told], dim=1).chunk(2, dim=3)
        return keys, values, torch.cat((self.pointed(x), self.following * before), dim=2)


class WriterLayer(nn.Module):
    """Attention to the places before, then to the source, and two linear maps."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.told = nn.LayerNorm(features), nn.Linear(features, 2 * features)
        self.attend = Attention(features, heads)
        self.read_norm, self.read = nn.LayerNorm(features), Attention(features, heads)
        self.feed_norm, self.feed = nn.LayerNorm(features), FeedForward(features)
        self.drop = nn.Dropout(dropout)


class Writer(nn.Module):
    """What was written, and the source, to features of what comes next."""

    def __init__(self, features: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(WriterLayer(features, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(features)

    def forward(  # noqa: PLR0917 - as the graph has it
        self,
        x: Tensor,
        source_keys: Tensor,
        source_values: Tensor,
        source_bias: Tensor,
        own_bias: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        here: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [B, T, D], the source's keys and values [B, L, S, D], its bias [B, 1, 1, S], and `own_bias`, which
        says what each place may look back at, [T, T']; features [B, T, D], and keys and values [L, B, T', D].

        Of one place, T = 1: `keys` and `values` [L, B, T', D] of those before, and `here`, bool [T', 1], which
        of the T' places this is. Otherwise T' = T.
        """
        own_keys, own_values = [], []
        for at, layer in enumerate(cast(Sequence[WriterLayer], self.layers)):
            y = layer.norm(x)
            key, value = layer.told(y).chunk(2, dim=2)
            if keys is not None and values is not None and here is not None:
                key, value = torch.where(here, key, keys[at]), torch.where(here, value, values[at])
            x = x + layer.drop(layer.attend(y, key, value, own_bias))
            source = source_keys[:, at], source_values[:, at]
            x = x + layer.drop(layer.read(layer.read_norm(x), *source, source_bias))
            x = x + layer.drop(layer.feed(layer.feed_norm(x)))
            own_keys.append(key)
            own_values.append(value)
        return self.norm(x), torch.stack(own_keys), torch.stack(own_values)


class Chooser(nn.Module):
    """Features to the logits of the frequent tokens and of the places of the source."""

    def __init__(self, features: int, frequent: int) -> None:
        super().__init__()
        self.say, self.point = nn.Linear(features, features), nn.Linear(features, features)
        self.bias, self.copying = nn.Parameter(torch.zeros(frequent)), nn.Parameter(torch.zeros(1))
        self.scale = features**-0.5

    def forward(self, x: Tensor, before: Tensor, table: Tensor, pointed: Tensor) -> tuple[Tensor, Tensor]:
        """`x` [B, T, D], `before` [B, T, D], the embeddings of the tokens before, `table` [K, D], those of the
        frequent tokens, and `pointed` [B, S, 2 D]; [B, T, K] and [B, T, S]."""
        asked = torch.cat((self.point(x) * self.scale, before), dim=2)
        return self.say(x) @ table.t() + self.bias, asked @ pointed.transpose(1, 2) + self.copying


@dataclass(frozen=True)
class Source:
    """A text that was read: its `tokens` int64 [B, S], and of it `keys` and `values` [B, L, S, D] and what to
    point by, `pointed` [B, S, 2 D]. `bias` [B, 1, 1, S]: which of its places are no tokens, but fill it up."""

    tokens: Tensor
    keys: Tensor
    values: Tensor
    pointed: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Choices:
    """What may stand at each place: `logits` [B, T, K + S] of the K frequent tokens, and of the places of the
    source, whose tokens are `source` int64 [B, S]."""

    logits: Tensor
    source: Tensor

    @property
    def frequent(self) -> int:
        """K."""
        return self.logits.shape[-1] - self.source.shape[1]

    def log_probability(self, tokens: Tensor) -> Tensor:
        """log p in nats of `tokens` int64 [B, T]: [B, T]; about -10,000 for one that is neither frequent nor in
        the source, and can't be chosen."""
        logs, frequent = torch.log_softmax(self.logits, dim=-1), self.frequent
        said = logs.gather(-1, tokens.clamp(max=frequent - 1).unsqueeze(-1))
        said = torch.where(tokens.unsqueeze(-1) < frequent, said, NEVER)
        same = tokens.unsqueeze(-1) == self.source.unsqueeze(1)
        copied = torch.where(same, logs[..., frequent:], NEVER)
        return torch.logsumexp(torch.cat((said, copied), dim=-1), dim=-1)

    def shares(self, vocabulary: int) -> Tensor:
        """The probability of each token of the `vocabulary`, [B, T, V].

        Places of one token are added up at the first of them, since engines scatter without adding.
        """
        shares, frequent = torch.softmax(self.logits, dim=-1), self.frequent
        said = functional.pad(shares[..., :frequent], (0, vocabulary - frequent + 1))
        same = (self.source.unsqueeze(2) == self.source.unsqueeze(1)).to(shares.dtype)
        first = torch.tril(same, diagonal=-1).sum(dim=2) == 0
        places = torch.where(first, self.source, vocabulary)  # the others: a column that is cut off
        places = places.unsqueeze(1).expand(-1, said.shape[1], -1)
        whole = said.gather(-1, places) + shares[..., frequent:] @ same
        return said.scatter(-1, places, whole)[..., :vocabulary]

    def likeliest(self, never: Sequence[int]) -> Tensor:
        """The likeliest token at each place but those that are `never` drawn, int64 [B, T].

        As that of :meth:`shares`, without all of the vocabulary: what can be copied has its whole share at its own
        places, so the largest of those and of what is said alone is the largest of all.
        """
        shares, frequent = torch.softmax(self.logits, dim=-1), self.frequent
        said, copied = shares[..., :frequent], shares[..., frequent:]
        same = (self.source.unsqueeze(2) == self.source.unsqueeze(1)).to(copied.dtype)
        too = said.gather(-1, self.source.clamp(max=frequent - 1).unsqueeze(1).expand_as(copied))
        whole = copied @ same + torch.where(self.source < frequent, 1.0, 0.0).unsqueeze(1) * too
        silent = torch.tensor(never, dtype=torch.int64, device=self.source.device)
        whole = whole * ~torch.isin(self.source, silent).unsqueeze(1)
        said = said.index_fill(-1, silent[silent < frequent], 0.0)
        best = torch.cat((said, whole), dim=-1).argmax(dim=-1)
        at = (best - frequent).clamp(min=0)
        return torch.where(best < frequent, best, self.source.gather(1, at))

    def blended(self, tokens: Tensor, table: Tensor) -> Tensor:
        """The rows of `table` [V, E] at `tokens` [B, T], with the gradient of the mean row under the probabilities
        (Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons", the straight-through
        estimator): [B, T, E]."""
        shares, frequent = torch.softmax(self.logits, dim=-1), self.frequent
        mean = shares[..., :frequent] @ table[:frequent]
        mean = mean + shares[..., frequent:] @ functional.embedding(self.source, table)
        return functional.embedding(tokens, table) + mean - mean.detach()


class StyleTransformer(nn.Module):
    """f(x, s): the text x, written in the style s.

    `vocabulary`: V tokens, the most frequent ones first, of which `frequent` can be said; `never` those that are
    no part of a text. `begin` comes before the first token, `pad` fills sources up. `length`: places of a text,
    its end among them. `word_dropout`: the share of embeddings that training sets to zero, so that what is
    missing is read off the source.

    Three things are there before any training, since they are much to learn from few texts: a head, and who
    points, looks near the same place of the source, how near being learnt (biases of Press et al. 2022, "Train
    Short, Test Long"); it goes on behind the word that was copied last; and `leaning` [K, V], how much each word
    marks each style, is known of what is read (zeros until it is set).
    """

    lowered: Tensor
    leaning: Tensor

    def __init__(
        self,
        vocabulary: int,
        styles: int,
        length: int,
        *,
        features: int,
        layers: int,
        heads: int,
        frequent: int,
        never: Sequence[int],
        begin: int,
        pad: int,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.begin, self.pad, self.word_dropout = begin, pad, word_dropout
        self.heads, self.frequent = heads, min(frequent, vocabulary)
        self.embed, self.style = nn.Embedding(vocabulary, features), nn.Embedding(styles, features)
        self.place = nn.Parameter(torch.empty(length, features))
        for weight, spread in ((self.embed.weight, features**-0.5), (self.style.weight, 0.3), (self.place, 0.1)):
            nn.init.normal_(weight, std=spread)
        slopes = torch.tensor([*(2.0**-head for head in range(heads)), POINTED_SLOPE])
        self.near = nn.Parameter(-slopes.unsqueeze(1) * torch.arange(1 - length, length).abs())
        self.lean = nn.Parameter(torch.randn(features) * 0.3)
        self.register_buffer("leaning", torch.zeros(styles, vocabulary))
        self.reader = Reader(features, layers, heads, dropout)
        self.writer = Writer(features, layers, heads, dropout)
        self.chooser = Chooser(features, self.frequent)
        self.drop = nn.Dropout(dropout)
        lowered = torch.zeros(self.frequent)
        lowered[[token for token in never if token < self.frequent]] = NEVER
        self.register_buffer("lowered", lowered, persistent=False)

    def bias_of(self, tokens: Tensor) -> Tensor:
        """[B, 1, 1, S]: 0 for tokens, and so low for what fills sources up that nothing looks there."""
        return torch.where(tokens == self.pad, NEVER, 0.0).unsqueeze(1).unsqueeze(1)

    def read(self, tokens: Tensor, style: Tensor, embedded: Tensor | None = None) -> Source:
        """A source of `tokens` int64 [B, S], to be written in `style` int64 [B]. `embedded` [B, S, D]: in place of
        the tokens' own embeddings, which is how a gradient comes back from a text that was drawn."""
        words = self._seen(self.embed(tokens) if embedded is None else embedded)
        begin = self.embed.weight[self.begin].expand(words.shape[0], 1, -1)
        bias = self.bias_of(tokens)
        x = self._placed(words, style) + self.leaning[style.unsqueeze(1), tokens].unsqueeze(2) * self.lean
        keys, values, pointed = self.reader(x, torch.cat((begin, words[:, :-1]), dim=1), bias)
        return Source(tokens, keys, values, pointed, bias)

    def forward(self, source: Source, style: Tensor, before: Tensor) -> Choices:
        """The choices at each place from the tokens `before` each, int64 [B, T]."""
        size = before.shape[1]
        causal = torch.full((size, size), NEVER, device=before.device).triu(1)
        words, near = self._seen(self.embed(before)), self._near(torch.arange(size, device=before.device), source)
        read = source.keys, source.values, near[:, : self.heads]
        features, _, _ = self.writer(self._placed(words, style), *read, causal)
        return self.choices(features, words, near[:, self.heads], source)

    def step(  # noqa: PLR0917 - as the graph has it
        self, source: Source, style: Tensor, token: Tensor, position: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Choices, Tensor, Tensor]:
        """The choices at `position` int64 [1] behind `token` int64 [B, 1], and the next states; `keys` and
        `values` [L, B, length, D] of the places before. A position behind the last, which a loop may run into and
        whose token counts for nothing, is taken as the last."""
        position = position.clamp(max=len(self.place) - 1)
        places = torch.arange(len(self.place), device=token.device)
        word, near = self.embed(token), self._near(position, source)
        x = word + self.place[position] + self.style(style).unsqueeze(1)
        past = torch.where(places <= position, 0.0, NEVER).unsqueeze(0)
        read = source.keys, source.values, near[:, : self.heads]
        features, keys, values = self.writer(x, *read, past, keys, values, (places == position).unsqueeze(1))
        return self.choices(features, word, near[:, self.heads], source), keys, values

    def rest(self, count: int) -> Tensor:
        """Keys, and values, before `count` texts."""
        return self.place.new_zeros(len(self.writer.layers), count, *self.place.shape)

    def choices(self, features: Tensor, before: Tensor, near: Tensor, source: Source) -> Choices:
        """What the writer's `features` [B, T, D] say, the embeddings `before` [B, T, D] of the last tokens, and
        how `near` [B, T, S] the places of the source are."""
        said, copied = self.chooser(features, before, self.embed.weight[: self.frequent], source.pointed)
        return Choices(torch.cat((said + self.lowered, copied + near), dim=-1), source.tokens)

    def _near(self, places: Tensor, source: Source) -> Tensor:
        """What the scores of the source's places gain, seen from `places` int64 [T] of the text: of each head, and
        of pointing, [B, heads + 1, T, S]; very low for what fills the source up."""
        there = torch.arange(source.tokens.shape[1], device=places.device)
        gained = self.near[:, there - places.unsqueeze(1) + len(self.place) - 1]
        return gained.unsqueeze(0) + source.bias

    def _seen(self, x: Tensor) -> Tensor:
        """Embeddings [B, T, D], some of which training sets to zero."""
        if not (self.training and self.word_dropout):
            return x
        return x * (torch.rand(x.shape[:2], device=x.device) >= self.word_dropout).unsqueeze(2)

    def _placed(self, x: Tensor, style: Tensor) -> Tensor:
        """Embeddings [B, T, D] with place and style."""
        made: Tensor = self.drop(x + self.place[: x.shape[1]] + self.style(style).unsqueeze(1))
        return made


@torch.no_grad()
def rewritten(
    network: StyleTransformer, ends: Ends, source: Source, style: Tensor, never: Sequence[int]
) -> Tensor:
    """The source in `style` int64 [B], the likeliest token at each place but those that are `never` drawn: int64
    [B, length], with the end and rests behind it."""
    count, length = len(style), len(network.place)
    token = torch.full((count, 1), ends.begin, device=style.device)
    ended, keys, values = torch.zeros_like(token, dtype=torch.bool), network.rest(count), network.rest(count)
    tokens = torch.full((count, length), ends.rest, device=style.device)
    for place in range(length):
        position = torch.tensor([place], device=style.device)
        choices, keys, values = network.step(source, style, token, position, keys, values)
        token = torch.where(ended, ends.rest, choices.likeliest(never))
        tokens[:, place] = token.squeeze(1)
        ended = ended | (token == ends.stop)
        if bool(ended.all()):
            break
    return tokens
