"""The layers of a PixelRNN with diagonal BiLSTMs (van den Oord et al. 2016, section 3.2), in three equal forms.

Two LSTMs scan the image along its diagonals, one from the upper left and one from the upper right. The states of a
pixel come from its neighbour in the row, whose cell state it takes over, and from the pixel above. What the one
from the right gives is shifted down by one row, since it has seen what lies to the right. The forms are those of
:mod:`gensdk_training.networks.row_lstm`, with the same row of zeros above the image:

- `parallel`, over whole images, diagonal after diagonal: rows are skewed, each one pixel further than the one
  above, so that a diagonal is a column, whose states come from the column before by a convolution of size 2;
- `row`, over a finished row: its states again, column after column and both ways;
- `pixel`, at one pixel, with its left neighbour's states in a cache.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from gensdk_training.networks.row_lstm import lstm_cell
from gensdk_training.networks.three_forms import ThreeForms, uniform_parameter


class Scan(ThreeForms):
    """One of the two LSTMs: D hidden features from features of 2 D, from left to right.

    `input` [2D, 4D] is input to state; `state` [4D, D, 2] state to state, from the pixel above and the one beside.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = uniform_parameter(2 * hidden, 4 * hidden, fan_in=2 * hidden)
        self.bias = uniform_parameter(4 * hidden, fan_in=2 * hidden)
        self.state = uniform_parameter(4 * hidden, hidden, 2, fan_in=2 * hidden)

    def _parallel(self, x: Tensor, label: Tensor | None) -> tuple[Tensor]:
        """Features [B, 2D, R, W] to hidden states [B, D, R, W]; `label` [B, 4D] for all rows but the first."""
        own = self._inputs(x)
        if label is not None:
            own = torch.cat((own[:, :, :1], own[:, :, 1:] + label[:, :, None, None]), dim=2)
        rows, width = own.shape[2:]
        own = skewed(own)
        h = cell = x.new_zeros(x.shape[0], self.hidden, rows)
        hidden = []
        for diagonal in range(rows + width - 1):
            gates = own[:, :, :, diagonal] + functional.conv1d(functional.pad(h, (1, 0)), self.state)
            h, cell = lstm_cell(gates, cell)
            if diagonal < rows - 1:  # rows further down have not begun
                begun = (torch.arange(rows, device=x.device) <= diagonal).to(h.dtype)
                h, cell = h * begun, cell * begun
            hidden.append(h)
        return (straightened(torch.stack(hidden, dim=-1), width),)

    def _row(self, x: Tensor, above: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """A finished row [B, 2D, W] and what its gates got from `above` [B, 4D, W], to its hidden states [B, D, W]
        and what the gates of the row below get."""
        own = self._inputs(x.unsqueeze(2)).squeeze(2) + above
        states = x.new_zeros(x.shape[0], 2 * self.hidden)
        hidden = []
        for column in range(x.shape[2]):
            states = self._beside(own[:, :, column], states)
            hidden.append(states[:, : self.hidden])
        h = torch.stack(hidden, dim=2)
        below = functional.conv1d(h, self.state[:, :, :1])
        return h, below if label is None else below + label[:, :, None]

    def _pixel(self, x: Tensor, above: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 2D] of a pixel, what its gates get from `above` [B, 4D], and the `states` [B, 2D] of the
        one beside, to its hidden state [B, D] and its states."""
        states = self._beside(torch.addmm(above + self.bias, x, self.input), states)
        return states[:, : self.hidden], states

    def _inputs(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.input.t()[:, :, None, None], self.bias)

    def _beside(self, gates: Tensor, states: Tensor) -> Tensor:
        """Hidden and cell state [B, 2D] from gates [B, 4D] and the states of the pixel beside."""
        h, cell = torch.split(states, self.hidden, dim=1)
        return torch.cat(lstm_cell(torch.addmm(gates, h, self.state[:, :, 1].t()), cell), dim=1)


class DiagonalLstmLayer(ThreeForms):
    """One diagonal BiLSTM of D hidden features between residual features of 2 D.

    What the two scans give is added, and led back to the features by `out` [D, 2D]. A class label comes as a bias
    to the gates of both, in every row of the image.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden, self.features = hidden, 2 * hidden
        self.rightward, self.leftward = Scan(hidden), Scan(hidden)
        self.out = uniform_parameter(hidden, self.features, fan_in=hidden)

    @property
    def cached(self) -> int:
        """Values that `pixel` keeps of the pixel to the left: its two states."""
        return 2 * self.hidden

    @property
    def handed(self) -> int:
        """Values that a pixel takes from the row above: for its gates, and what the other scan found, 4D + D."""
        return 5 * self.hidden

    @property
    def carried(self) -> int:
        """Values that a column of a whole row takes: these, and what the gates of the other scan get."""
        return 9 * self.hidden

    @property
    def labelled(self) -> int:
        """Values of a label's bias."""
        return 8 * self.hidden

    def _parallel(self, x: Tensor, label: Tensor | None) -> tuple[Tensor]:
        """Features [B, 2D, R, W] of rows from the one above the image, to the same; `label`: a bias [B, 8D]."""
        ours, others = _halves(label)
        (right,) = self.rightward("parallel", x, ours)
        (left,) = self.leftward("parallel", x.flip(3), others)
        found = right + functional.pad(left.flip(3)[:, :, :-1], (0, 0, 1, 0))
        return (x + functional.conv2d(found, self.out.t()[:, :, None, None]),)

    def _row(self, x: Tensor, above: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features [B, 2D, W] of a finished row and what it took from `above` [B, carried, W], to its output
        [B, 2D, W] and what the row below takes from it."""
        ours, others = _halves(label)
        gates, found, other_gates = torch.split(above, [4 * self.hidden, self.hidden, 4 * self.hidden], dim=1)
        right, below = self.rightward("row", x, gates, ours)
        left, other_below = self.leftward("row", x.flip(2), other_gates.flip(2), others)
        out = x + functional.conv1d(right + found, self.out.t().unsqueeze(2))
        return out, torch.cat((below, left.flip(2), other_below.flip(2)), dim=1)

    def _pixel(self, x: Tensor, above: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 2D] of one pixel, what it takes from `above` [B, handed], and the states of the pixel to
        the left [B, cached], to the pixel's output [B, 2D] and its states."""
        gates, found = torch.split(above, [4 * self.hidden, self.hidden], dim=1)
        h, states = self.rightward("pixel", x, gates, cache)
        return torch.addmm(x, h + found, self.out), cast(Tensor, states)


def _halves(label: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if label is None:
        return None, None
    ours, others = label.chunk(2, dim=1)
    return ours, others


def skewed(x: Tensor) -> Tensor:
    """[B, D, R, W] to [B, D, R, W + R - 1]: row r moved r places to the right, zeros around it."""
    batch, features, rows, width = x.shape
    flat = functional.pad(x, (0, rows)).reshape(batch, features, rows * (width + rows))
    return flat[:, :, : rows * (width + rows - 1)].reshape(batch, features, rows, width + rows - 1)


def straightened(x: Tensor, width: int) -> Tensor:
    """The way back: [B, D, R, W + R - 1] to [B, D, R, W]."""
    batch, features, rows, skew = x.shape
    flat = functional.pad(x.reshape(batch, features, rows * skew), (0, rows))
    return flat.reshape(batch, features, rows, skew + 1)[:, :, :, :width]
