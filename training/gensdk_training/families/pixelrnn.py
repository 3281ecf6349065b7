"""PixelRNN with row LSTMs or diagonal BiLSTMs: an image as a product of conditionals, its past in LSTMs.

Paper: van den Oord et al. 2016, "Pixel Recurrent Neural Networks" (arXiv 1601.06759), sections 3.1 to 3.4.

Idea: ``p(x) = prod_i p(x_i | x_<i)`` as :mod:`gensdk_training.families.pixelcnn` has it, but what a pixel knows of
the rows above comes from LSTMs that run down the image, from any number of rows, where convolutions end after a
few. A "row" LSTM makes all columns of a row at once, each from its neighbours in the row above (state to state,
`state_kernel`) and from the pixels to its left (input to state, `kernel`, mask B). A "diagonal" one makes each
pixel from the one beside it and the one above; there are two of them, from the left and from the right, and what
the latter finds is shifted down by one row. The first layer is a convolution with mask A (`first_kernel`);
residual connections lead around each LSTM. A class label adds a bias to the gates of every row.

The known trouble is masks that leak: such a model reconstructs well and can't generate. Here each mask is a slice
that leaves taps out, and a test holds by gradient, for each pixel and channel, that nothing later is seen.

Exports three graphs: the LSTMs over the finished row once a row, for what the row below takes from it; the same at
one pixel with the draw inside; and the parallel pass for ``Generator.log_likelihood``. See
:mod:`gensdk_training.graphs.lstm_steps`.

It does not: see all that is above. A row LSTM sees a triangle, as the paper says: to the right `first_kernel // 2`
columns of the row above, and `state_kernel // 2` more of each row above that. A diagonal BiLSTM sees all but the
last pixel of the row above, which is seen within `first_kernel // 2` columns; its row graph runs through the
columns one after the other, both ways, so it grows with the width. There are no multi-scale PixelRNNs; and instead
of the paper's masks for R, G and B each channel's head gets the lower channels of its own pixel.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.family import FamilyConfig
from gensdk_training.graphs.lstm_steps import (
    LstmPixelStack,
    LstmRowStack,
    label_biases,
    lstm_layers,
    sizes_of,
)
from gensdk_training.graphs.pixel_steps import Sizes
from gensdk_training.networks.diagonal_lstm import DiagonalLstmLayer
from gensdk_training.networks.row_lstm import FirstConvolution, RowLstmLayer
from gensdk_training.pixel_family import PixelConfig, PixelFamily, PixelNetwork, odd
from gensdk_training.registry import register


class PixelRnnConfig(PixelConfig):
    """Settings of the PixelRNN.

    lstm: How the LSTMs run: down rows, or along diagonals both ways.
    layers: LSTMs, one above the other.
    channels: Hidden features of each LSTM; there are twice as many between them.
    first_kernel: Size of the first convolution's kernel, odd; take 3 or 5 for images of 8x8.
    kernel: Row LSTMs: size of the kernel from a row's features to its states, odd.
    state_kernel: Row LSTMs: size of the kernel from the states of the row above, odd.
    """

    lstm: Literal["row", "diagonal"] = "row"

    layers: Annotated[int, Field(ge=1, le=64)] = 6
    channels: Annotated[int, Field(ge=1, le=4096)] = 16
    first_kernel: Annotated[int, Field(ge=3, le=31)] = 7
    kernel: Annotated[int, Field(ge=3, le=31)] = 3
    state_kernel: Annotated[int, Field(ge=3, le=31)] = 3

    _odd = field_validator("first_kernel", "kernel", "state_kernel")(odd)


class PixelRnnNetwork(PixelNetwork):
    """A masked convolution, and LSTMs with residual connections."""

    def __init__(self, config: PixelRnnConfig, image_channels: int, classes: int | None) -> None:
        super().__init__()
        hidden = config.channels
        self.first = FirstConvolution(image_channels, 2 * hidden, kernel_size=config.first_kernel)
        self.layers = nn.ModuleList(
            DiagonalLstmLayer(hidden)
            if config.lstm == "diagonal"
            else RowLstmLayer(hidden, kernel_size=config.kernel, state_kernel_size=config.state_kernel)
            for _ in range(config.layers)
        )
        self.labels = None
        if classes:
            self.labels = nn.Embedding(classes, sum(layer.labelled for layer in lstm_layers(self.layers)))
            nn.init.normal_(self.labels.weight, std=0.1)
        self.build_heads(config, 2 * hidden, image_channels)

    def features(self, images: Tensor, label: Tensor | None) -> Tensor:
        """See :class:`PixelNetwork`."""
        layers = lstm_layers(self.layers)
        x: Tensor
        (x,) = self.first("parallel", images)
        for layer, bias in zip(layers, label_biases(self.labels, label, layers), strict=True):
            (x,) = layer("parallel", x, bias)
        return x[:, :, 1:]  # without the row above the image

    def sizes(self) -> Sizes:
        """See :class:`PixelNetwork`."""
        return sizes_of(self.first, self.layers)

    def row_stack(self) -> nn.Module:
        """The LSTMs over a finished row."""
        return LstmRowStack(self.first, self.layers, self.labels)

    def pixel_stack(self) -> nn.Module:
        """The LSTMs at one pixel."""
        return LstmPixelStack(self.first, self.layers, self.entry)


@register("pixelrnn")
class PixelRnn(PixelFamily[PixelRnnConfig]):
    """PixelRNN with exact likelihoods and cached sampling."""

    title: ClassVar[str] = "PixelRNN, row or diagonal LSTMs: exact likelihoods, one pixel after the other"
    paper: ClassVar[str] = "van den Oord et al. 2016, Pixel Recurrent Neural Networks, arXiv 1601.06759"
    Config: ClassVar[type[FamilyConfig]] = PixelRnnConfig
    ema_networks = ("pixelrnn",)

    def check(self) -> None:
        """Refuses kernels of row LSTMs for diagonal ones too."""
        super().check()
        for name in ("kernel", "state_kernel"):
            value, own = getattr(self.config, name), PixelRnnConfig.model_fields[name].default
            if self.config.lstm == "diagonal" and value != own:
                raise InputError(f"{name}={value} is for row LSTMs; leave it out with lstm=diagonal")

    def build_networks(self) -> dict[str, nn.Module]:
        """One network, called ``pixelrnn``."""
        return {"pixelrnn": PixelRnnNetwork(self.config, self.data.channels, self.num_classes)}
