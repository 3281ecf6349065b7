"""WaveNet's stack of gated, dilated causal layers: all positions at once for training, one at a time for drawing.

Paper: van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio" (arXiv 1609.03499), eq. 2 and fig. 4.
Each layer has a kernel of two taps, which are kept as matrices, since one position at a time then takes few large
products: what the older taps of all layers give is one product, and so are all skip connections.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalLayers(nn.Module):
    """Gated layers with dilations d_i: ``z = tanh(a) * sigmoid(b)`` with ``(a, b) = x[t - d] P + x[t] C + h``;
    ``x <- x + z R`` to the next layer, and the sum over all layers of ``z S`` to the head.

    `channels`: features R of each layer; `skip_channels`: of what goes to the head. `h` is what the layers are
    told of the condition and the position.
    """

    first: Tensor
    dilation: Tensor

    def __init__(self, channels: int, skip_channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        layers = len(dilations)
        self.dilations = tuple(dilations)
        self.channels = channels
        scale = (2 * channels) ** -0.5
        self.past = nn.Parameter(torch.randn(layers, channels, 2 * channels) * scale)
        self.present = nn.Parameter(torch.randn(layers, channels, 2 * channels) * scale)
        self.residual = nn.Parameter(torch.randn(layers - 1, channels, channels) * channels**-0.5 * layers**-0.5)
        self.skip = nn.Linear(layers * channels, skip_channels)
        first = [0]
        for dilation in dilations[:-1]:
            first.append(first[-1] + dilation)
        self.register_buffer("first", torch.tensor(first), persistent=False)
        self.register_buffer("dilation", torch.tensor(dilations), persistent=False)

    @property
    def kept(self) -> int:
        """Positions that the layers keep of their past, all together: the rows of the state."""
        return sum(self.dilations)

    @property
    def receptive_field(self) -> int:
        """Elements that a position depends on, the present one among them."""
        return 1 + self.kept

    def forward(self, form: Literal["all", "step"], *tensors: Tensor) -> tuple[Tensor, ...]:
        """One of the two forms; all calls come through here, so that hooks (half precision) see them."""
        return self._step(*tensors) if form == "step" else (self._all(*tensors),)

    def _all(self, x: Tensor, told: Tensor) -> Tensor:
        """All positions: `x` [B, R, T] and `told` [L, B or 1, 2R, F], the same within each of the F frames that T
        is made of, to [B, skip channels, T]."""
        gated, frame = [], x.shape[2] // told.shape[3]
        for layer, dilation in enumerate(self.dilations):
            kernel = torch.stack([self.past[layer].t(), self.present[layer].t()], dim=-1)
            taps = functional.conv1d(functional.pad(x, (dilation, 0)), kernel, dilation=dilation)
            taps = (taps.reshape(*taps.shape[:2], -1, frame) + told[layer].unsqueeze(-1)).flatten(-2)
            z = _gate(taps, 1)
            gated.append(z)
            if layer < len(self.residual):
                x = x + functional.conv1d(z, self.residual[layer].t().unsqueeze(-1))
        made: Tensor = functional.conv1d(torch.cat(gated, dim=1), self.skip.weight.unsqueeze(-1), self.skip.bias)
        return made

    def _step(self, x: Tensor, told: Tensor, kept: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """One position: `x` [B, R], `told` [B or 1, L 2R] and the state `kept` [D, B, R] to [B, skip channels] and
        the next state.

        The state holds the last d_i inputs of each layer, layer after layer, each in a ring: at `position` int64
        [1] the place ``position mod d_i`` holds what went in d_i positions ago, and is then overwritten.
        """
        places = self.first + torch.remainder(position, self.dilation)
        older = torch.matmul(kept[places], self.past)
        # Runtimes spend more on starting each small product than on computing it: these are the fewest that they
        # can fuse.
        told = told + older.transpose(0, 1).flatten(1)
        halves = torch.split(told, self.channels, dim=1)
        gated, inputs = [], []
        for layer, present in enumerate(self.present):
            inputs.append(x)
            a, b = torch.split(present, self.channels, dim=1)
            z = torch.tanh(torch.addmm(halves[2 * layer], x, a))
            z = z * torch.sigmoid(torch.addmm(halves[2 * layer + 1], x, b))
            gated.append(z)
            if layer < len(self.residual):
                x = torch.addmm(x, z, self.residual[layer])
        made = self.skip(torch.cat(gated, dim=-1))
        newest = torch.cat(inputs).reshape(len(inputs), *x.shape)
        return made, kept.index_copy(0, places, newest)


class Teller(nn.Module):
    """What the layers are told at a frame of positions: of the class, and of the time since the beginning.

    WaveNet's global condition (section 2.5) is a vector a class. A class here may be made of parts, such as a
    digit and a speaker, which have vectors of their own, and so has each frame of time: a word has another sound
    at its end than at its beginning, further back than the layers see. `parts` int64 [K, P]: of each class the
    number of each part, or None; `frames`: how many there are.
    """

    def __init__(self, layers: int, channels: int, *, parts: Tensor | None, frames: int, hidden: int) -> None:
        super().__init__()
        self.shape = (layers, 2 * channels)
        self.parts: Tensor | None
        self.register_buffer("parts", parts, persistent=False)
        counts = [] if parts is None else [int(count) + 1 for count in parts.amax(dim=0)]
        self.classes = nn.ModuleList(nn.Embedding(count, hidden) for count in counts)
        self.time = nn.Embedding(frames, hidden)
        self.mix = nn.Linear(hidden * (len(counts) + 1), 2 * hidden)
        self.out = nn.Linear(2 * hidden, layers * 2 * channels)

    def forward(self, frame: Tensor, label: Tensor | None, *, step: bool = False) -> Tensor:
        """`frame` int64 [F] and `label` int64 [B] to [L, B or 1, 2R, F]; of a `step`, whose one frame is int64
        [1], layer after layer in [B or 1, L 2R]."""
        if step:
            return self._at(frame, label)
        times, classes = self._tables()
        hidden = times.index_select(0, frame).unsqueeze(0)
        if classes is not None and label is not None:
            hidden = hidden + classes.index_select(0, label).unsqueeze(1)
        told = self.out(torch.tanh(hidden))
        return cast(Tensor, told.reshape(*told.shape[:2], *self.shape).permute(2, 0, 3, 1))

    def _at(self, frame: Tensor, label: Tensor | None) -> Tensor:
        times, classes = self._tables()
        hidden = functional.embedding(frame, times)
        if classes is not None and label is not None:
            hidden = hidden + functional.embedding(label, classes)
        return cast(Tensor, self.out(torch.tanh(hidden)))

    def _tables(self) -> tuple[Tensor, Tensor | None]:
        """What all frames [F, 2 hidden] and all classes [K, 2 hidden] add up to before the tanh."""
        *of_classes, of_time = self.mix.weight.chunk(len(self.classes) + 1, dim=1)
        times = functional.linear(self.time.weight, of_time, self.mix.bias)
        if self.parts is None:
            return times, None
        classes = [
            functional.linear(embedding.get_parameter("weight"), weight).index_select(0, self.parts[:, part])
            for part, (embedding, weight) in enumerate(zip(self.classes, of_classes, strict=True))
        ]
        return times, functools.reduce(torch.add, classes)


class WaveNet(nn.Module):
    """Tokens to the logits of the token after each: an embedding, :class:`CausalLayers` and a head of two layers.

    Tokens go from 0 to `levels` - 1, and `levels` stands before the first.
    """

    def __init__(
        self, levels: int, layers: CausalLayers, teller: Teller, *, skip_channels: int, frame: int
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels + 1, layers.channels)
        self.layers, self.teller, self.frame, self.levels = layers, teller, frame, levels
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(skip_channels, skip_channels), nn.ReLU(), nn.Linear(skip_channels, levels)
        )

    def forward(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """int64 [B, T] and `label` int64 [B] to logits [B, T, levels], each from the tokens before it alone."""
        length = tokens.shape[1]
        frames = -(-length // self.frame)
        before = functional.pad(tokens[:, :-1], (1, 0), value=self.levels)
        before = functional.pad(before, (0, frames * self.frame - length))
        told = self.teller(torch.arange(frames, device=tokens.device), label)
        (hidden,) = self.layers("all", self.embed(before).transpose(1, 2).contiguous(), told)
        return cast(Tensor, self.head(hidden.transpose(1, 2)[:, :length]))


def _gate(taps: Tensor, axis: int) -> Tensor:
    """``tanh(a) * sigmoid(b)`` of the two halves of an axis."""
    a, b = taps.chunk(2, dim=axis)
    return torch.tanh(a) * torch.sigmoid(b)
