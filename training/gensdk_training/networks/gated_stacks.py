"""The gated layers of PixelCNN (van den Oord et al. 2016, section 2.2 and figure 2), in three equal forms.

Each layer has a vertical stack, which sees the rows above, and a horizontal stack, which sees the pixels to
the left; together they have no blind spot. Both are written here three times over the same parameters:

- `parallel`, over whole images: training and likelihoods;
- `row`, the vertical stack over one row with the rows above in a cache;
- `pixel`, the horizontal stack at one pixel with the pixels to the left in a cache.

The vertical stack is shifted down by one row at its first layer. So at row i it has seen the rows above i and
nothing of row i, and all layers after the first may look at their own row. Taps that a mask would set to zero
are left out. Caches start at zero, which equals the zero padding of `parallel`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.three_forms import ThreeForms, uniform_parameter


def gate(features: Tensor) -> Tensor:
    """``tanh(a) * sigmoid(b)`` of the two halves of axis 1 (eq. 2): [B, 2F, ...] to [B, F, ...]."""
    a, b = features.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(ThreeForms):
    """One layer of both stacks: I input channels, F output channels, kernels of odd size n.

    With `first` it is mask A: I is the image's channels, the horizontal stack leaves out the current pixel
    and has no residual connection. Otherwise it is mask B: the current pixel is seen, and the horizontal
    stack adds its input (so I = F). A class label comes as a bias to both gates (eq. 4 of the paper).

    The parameters lie as the caches need them: `vertical` [2F, rows * I, n] is a convolution over one row
    with the cached rows as channels, `horizontal` [columns * I, 2F] a product with the cached pixels; the
    oldest come first.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel_size: int, first: bool) -> None:
        super().__init__()
        reach = kernel_size // 2
        self.inputs, self.outputs, self.first, self.reach = inputs, outputs, first, reach
        self.taps = reach if first else reach + 1
        """Rows of the vertical and columns of the horizontal kernel."""
        self.kernel_size = kernel_size
        fan_v = self.taps * inputs * kernel_size
        self.vertical = uniform_parameter(2 * outputs, self.taps * inputs, kernel_size, fan_in=fan_v)
        self.vertical_bias = uniform_parameter(2 * outputs, fan_in=fan_v)
        self.down = uniform_parameter(2 * outputs, 2 * outputs, 1, fan_in=2 * outputs)
        self.down_bias = uniform_parameter(2 * outputs, fan_in=2 * outputs)
        self.horizontal = uniform_parameter(self.taps * inputs, 2 * outputs, fan_in=self.taps * inputs)
        self.residual = uniform_parameter(outputs, outputs, fan_in=outputs)

    @property
    def cached(self) -> int:
        """Values that `row` (in each column) and `pixel` keep from one step to the next: (taps - 1) * I."""
        return (self.taps - 1) * self.inputs

    def _parallel(
        self, v: Tensor, h: Tensor, v_bias: Tensor | None, h_bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both stacks over whole images, [B, I, H, W] to [B, F, H, W]; layer 1 takes the image twice.

        `v_bias` and `h_bias` [B, 2F] are the label's biases of the two gates.
        """
        features = self._vertical(v)
        if v_bias is not None:
            features = features + v_bias[:, :, None, None]
        context = functional.conv2d(features, self.down.unsqueeze(-1), self.down_bias)
        if h_bias is not None:
            context = context + h_bias[:, :, None, None]
        gated = gate(context + self._horizontal(h))
        out = functional.conv2d(gated, self.residual.t()[:, :, None, None])
        return gate(features), out if self.first else out + h

    def _vertical(self, v: Tensor) -> Tensor:
        rows, kernel = self.taps, self.vertical.reshape(2 * self.outputs, self.taps, self.inputs, -1)
        if self.first:
            v = v[:, :, :-1]  # the shift: row i of what follows has seen the rows above i only
        above = rows if self.first else rows - 1
        padded = functional.pad(v, (self.reach, self.reach, above, 0))
        return functional.conv2d(padded, kernel.transpose(1, 2), self.vertical_bias)

    def _horizontal(self, h: Tensor) -> Tensor:
        if self.first:
            h = h[:, :, :, :-1]
        left = self.taps if self.first else self.taps - 1
        kernel = self.horizontal.reshape(self.taps, self.inputs, -1).permute(2, 1, 0).unsqueeze(2)
        return functional.conv2d(functional.pad(h, (left, 0, 0, 0)), kernel)

    def _row(
        self, v: Tensor, cache: Tensor | None, v_bias: Tensor | None, h_bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The vertical stack at row i.

        `v` [B, I, W] is its input at row i (at the first layer: row i - 1 of the image), `cache`
        [B, cached, W] the inputs of the rows before. Gives its output [B, F, W], its contribution to
        the horizontal gate [B, 2F, W] (the label's bias within), and the next cache.
        """
        window = v if cache is None else torch.cat((cache, v), dim=1)
        features = functional.conv1d(window, self.vertical, self.vertical_bias, padding=self.reach)
        if v_bias is not None:
            features = features + v_bias[:, :, None]
        context = functional.conv1d(features, self.down, self.down_bias)
        if h_bias is not None:
            context = context + h_bias[:, :, None]
        return gate(features), context, None if cache is None else _without_oldest(window, v, self.inputs)

    def _pixel(self, h: Tensor, cache: Tensor | None, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """The horizontal stack at one pixel.

        `h` [B, I] is its input at the pixel (at the first layer: the pixel to the left), `cache` [B, cached]
        the inputs to the left of that, `context` [B, 2F] what `row` gave for this column. Gives its
        output [B, F] and the next cache.
        """
        window = h if cache is None else torch.cat((cache, h), dim=1)
        gated = gate(torch.addmm(context, window, self.horizontal))
        out = gated @ self.residual if self.first else torch.addmm(h, gated, self.residual)
        return out, None if cache is None else _without_oldest(window, h, self.inputs)


class LabelBias(nn.Module):
    """The biases that a class label adds to the vertical and the horizontal gate of each layer."""

    def __init__(self, classes: int, layers: Iterable[GatedLayer]) -> None:
        super().__init__()
        self.sizes = [2 * layer.outputs for layer in layers for _ in ("vertical", "horizontal")]
        self.embedding = nn.Embedding(classes, sum(self.sizes))
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, label: Tensor) -> tuple[Tensor, ...]:
        """int64 [B] to vertical, horizontal, vertical, ... of the layers in order, each [B, 2F]."""
        return torch.split(self.embedding(label), self.sizes, dim=1)


def label_biases(
    biases: nn.Module | None, label: Tensor | None, layers: int
) -> list[tuple[Tensor | None, Tensor | None]]:
    """(vertical, horizontal) bias of each layer; (None, None) where there are no labels."""
    if biases is None or label is None:
        return [(None, None)] * layers
    parts = biases(label)
    return list(zip(parts[::2], parts[1::2], strict=True))


def _without_oldest(window: Tensor, newest: Tensor, inputs: int) -> Tensor:
    """The next cache; with one cached step that is the newest input itself, at no cost."""
    return newest if window.shape[1] == 2 * inputs else window[:, inputs:]
