"""The layers of a PixelRNN with row LSTMs (van den Oord et al. 2016, sections 3.1 and 3.3), in three equal forms.

A row's states come from the row above, by a convolution over its hidden features (state to state), and from the
row's own pixels up to the present one, by a masked convolution (input to state). So all that a row takes from
above is there for all of its columns at once, before its first pixel. Each layer is written three times over the
same parameters:

- `parallel`, over whole images, row after row: training and likelihoods;
- `row`, over a finished row: its states again, all columns in parallel, and what they give to the row below;
- `pixel`, at one pixel, with what comes from above and the pixels to the left in a cache.

Above the image lies one row of zeros, in which all states start: with its own states at zero, since nothing
lies above it. Taps that a mask would set to zero are left out. Caches start at zero, which equals zero padding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gensdk_training.networks.three_forms import ThreeForms, uniform_parameter


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell state [B, D, ...] from the `gates` [B, 4D, ...] and the cell state above (eq. 3).

    The gates are o, f, i and g; f is shifted by 1, so that an untrained layer remembers.
    """
    o, f, i, g = gates.chunk(4, dim=1)
    cell = torch.sigmoid(f + 1.0) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def _along_rows(x: Tensor, weight: Tensor, taps: int, inputs: int) -> Tensor:
    """A masked convolution along each row of `x` [B, I, R, taps - 1 + W], by `weight` [taps * I, F]."""
    return functional.conv2d(x, weight.reshape(taps, inputs, -1).permute(2, 1, 0).unsqueeze(2))


def _windowed(cache: Tensor | None, newest: Tensor) -> tuple[Tensor, Tensor | None]:
    """What was kept and the newest input, along axis 1; and what is kept next, as much as before."""
    if cache is None:
        return newest, None
    window = torch.cat((cache, newest), dim=1)
    return window, window[:, newest.shape[1] :]


class FirstConvolution(ThreeForms):
    """Mask A: F features of a pixel from the square of odd size n around it, as far as it lies before the pixel.

    `above` [F, reach * C, n] is a convolution over one row with the rows above it as channels, `left`
    [reach * C, F] a product with the pixels to the left, where reach is n // 2; the oldest come first.
    """

    def __init__(self, channels: int, features: int, *, kernel_size: int) -> None:
        super().__init__()
        reach = kernel_size // 2
        self.channels, self.features, self.reach = channels, features, reach
        fan_in = reach * channels * (kernel_size + 1)
        self.above = uniform_parameter(features, reach * channels, kernel_size, fan_in=fan_in)
        self.left = uniform_parameter(reach * channels, features, fan_in=fan_in)
        self.bias = uniform_parameter(features, fan_in=fan_in)

    @property
    def cached(self) -> int:
        """Values that `row` (in each column) and `pixel` keep of the image itself: (reach - 1) * C."""
        return (self.reach - 1) * self.channels

    def _parallel(self, images: Tensor) -> tuple[Tensor]:
        """Images [B, C, H, W] to [B, F, H + 1, W]; the first row is the one of zeros above the image."""
        kernel = self.above.reshape(self.features, self.reach, self.channels, -1).transpose(1, 2)
        rows = functional.pad(images[:, :, :-1], (self.reach, self.reach, self.reach + 1, 0))
        columns = functional.pad(images[:, :, :, :-1], (self.reach, 0, 1, 0))
        return (functional.conv2d(rows, kernel) + self._left(columns),)

    def _row(self, row: Tensor, above: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """`row` [B, C, W] of the image, what it got from `above` [B, F, W], and the rows before [B, cached, W].

        Gives its features [B, F, W], what the row below gets from above [B, F, W], and the next cache.
        """
        columns = functional.pad(row[:, :, :-1], (self.reach, 0)).unsqueeze(2)
        window, kept = _windowed(cache, row)
        below = functional.conv1d(window, self.above, padding=self.reach)
        return above + self._left(columns).squeeze(2), below, kept

    def _pixel(self, pixel: Tensor, above: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The `pixel` to the left [B, C], what comes from `above` [B, F] and the pixels before [B, cached].

        Gives the features [B, F] and the next cache.
        """
        window, kept = _windowed(cache, pixel)
        return torch.addmm(above + self.bias, window, self.left), kept

    def _left(self, columns: Tensor) -> Tensor:
        """What the pixels to the left give, of rows [B, C, R, reach - 1 + W]."""
        return _along_rows(columns, self.left, self.reach, self.channels) + self.bias[:, None, None]


class RowLstmLayer(ThreeForms):
    """One row LSTM of D hidden features between residual features of 2 D (figure 5 of the paper).

    `input` [taps * 2D, 4D] is the masked convolution along a row (mask B: its last tap is the pixel itself),
    `state` [4D, D, k] the convolution over the hidden row above, `out` [D, 2D] leads back to what it is added to.
    A class label comes as a bias to what a row takes from above.
    """

    def __init__(self, hidden: int, *, kernel_size: int, state_kernel_size: int) -> None:
        super().__init__()
        self.hidden, self.features = hidden, 2 * hidden
        self.taps = kernel_size // 2 + 1
        self.reach = state_kernel_size // 2
        self.input = uniform_parameter(self.taps * self.features, 4 * hidden, fan_in=self.taps * self.features)
        self.bias = uniform_parameter(4 * hidden, fan_in=self.taps * self.features)
        self.state = uniform_parameter(4 * hidden, hidden, state_kernel_size, fan_in=hidden * state_kernel_size)
        self.out = uniform_parameter(hidden, self.features, fan_in=hidden)

    @property
    def cached(self) -> int:
        """Values that `pixel` keeps of what lies to the left: (taps - 1) * 2D."""
        return (self.taps - 1) * self.features

    @property
    def handed(self) -> int:
        """Values that a pixel takes from the row above: what its gates get and the cell state, 4D + D."""
        return 5 * self.hidden

    @property
    def carried(self) -> int:
        """Values that a column of a whole row takes: the same."""
        return self.handed

    @property
    def labelled(self) -> int:
        """Values of a label's bias."""
        return 4 * self.hidden

    def _parallel(self, x: Tensor, label: Tensor | None) -> tuple[Tensor]:
        """Features [B, 2D, R, W] of rows from the one above the image, to the same; `label`: a bias [B, 4D]."""
        own = self._inputs(x)
        batch, _, rows, width = x.shape
        above = x.new_zeros(batch, self.carried, width)
        hidden = []
        for row in range(rows):
            h, above = self._down(own[:, :, row], above, label)
            hidden.append(h)
        return (self._added(x, torch.stack(hidden, dim=2)),)

    def _row(self, x: Tensor, above: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features [B, 2D, W] of a finished row and what it took from `above` [B, carried, W], to its output
        [B, 2D, W] and what the row below takes from it."""
        h, below = self._down(self._inputs(x.unsqueeze(2)).squeeze(2), above, label)
        return self._added(x.unsqueeze(2), h.unsqueeze(2)).squeeze(2), below

    def _pixel(self, x: Tensor, above: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features [B, 2D] of one pixel, what it takes from `above` [B, handed], and the features to the
        left [B, cached], to the pixel's output [B, 2D] and the next cache."""
        window, kept = _windowed(cache, x)
        gates, cell = torch.split(above, [4 * self.hidden, self.hidden], dim=1)
        h, _ = lstm_cell(torch.addmm(gates + self.bias, window, self.input), cell)
        return torch.addmm(x, h, self.out), kept

    def _inputs(self, x: Tensor) -> Tensor:
        """Input to state, of all rows of [B, 2D, R, W]: [B, 4D, R, W]."""
        padded = functional.pad(x, (self.taps - 1, 0))
        return _along_rows(padded, self.input, self.taps, self.features) + self.bias[:, None, None]

    def _down(self, own: Tensor, above: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """The hidden states [B, D, W] of a row, and what the row below takes from it."""
        gates, cell = torch.split(above, [4 * self.hidden, self.hidden], dim=1)
        h, cell = lstm_cell(own + gates, cell)
        gates = functional.conv1d(h, self.state, padding=self.reach)
        if label is not None:
            gates = gates + label[:, :, None]
        return h, torch.cat((gates, cell), dim=1)

    def _added(self, x: Tensor, h: Tensor) -> Tensor:
        return x + functional.conv2d(h, self.out.t()[:, :, None, None])
