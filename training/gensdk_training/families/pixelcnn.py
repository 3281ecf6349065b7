"""Gated PixelCNN: an image as a product of conditionals, one pixel after the other.

Paper: van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders" (arXiv 1606.05328).

Idea: ``p(x) = prod_i p(x_i | x_<i)``, pixels in raster order, the channels of one pixel in the order R, G, B.
Each conditional is a categorical distribution over `levels` grey levels, so the likelihood is exact. A
vertical stack of convolutions sees the rows above and feeds a horizontal stack, which sees the pixels to the
left: together everything before the pixel, with no blind spot. Mask A (`first_kernel`) leaves the pixel
itself out, the layers after it (`kernel`, mask B) don't. A class label adds a bias to every gate.

Exports three graphs: the vertical stacks once a row, the horizontal stacks once a pixel with the draw inside,
and the parallel pass for ``Generator.log_likelihood``. See :mod:`gensdk_training.graphs.gated_steps`.

It does not: split features into groups for R, G and B as the paper's masks do. The features of a pixel see
whole earlier pixels, and the head of each channel also gets the lower channels of its own pixel. Nor does it
have PixelCNN++'s logistic mixtures, down-sampling or dropout between the stacks.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator
from torch import Tensor, nn

from gensdk_training.family import FamilyConfig
from gensdk_training.graphs.gated_steps import PixelStack, RowStack, sizes_of
from gensdk_training.graphs.pixel_steps import Sizes
from gensdk_training.networks.gated_stacks import GatedLayer, LabelBias, label_biases
from gensdk_training.pixel_family import PixelConfig, PixelFamily, PixelNetwork, odd
from gensdk_training.registry import register


class PixelCnnConfig(PixelConfig):
    """Settings of the gated PixelCNN.

    layers: Gated layers.
    channels: Features of each gated layer.
    first_kernel: Size of the first layer's kernel, odd; take 3 or 5 for images of 8x8.
    kernel: Size of the other layers' kernels, odd.
    """

    layers: Annotated[int, Field(ge=2, le=64)] = 7
    channels: Annotated[int, Field(ge=1, le=4096)] = 20
    first_kernel: Annotated[int, Field(ge=3, le=31)] = 7
    kernel: Annotated[int, Field(ge=3, le=31)] = 3

    _odd = field_validator("first_kernel", "kernel")(odd)


class PixelCnnNetwork(PixelNetwork):
    """Gated layers, each with a vertical and a horizontal stack."""

    def __init__(self, config: PixelCnnConfig, image_channels: int, classes: int | None) -> None:
        super().__init__()
        features = config.channels
        layers = [GatedLayer(image_channels, features, kernel_size=config.first_kernel, first=True)]
        for _ in range(config.layers - 1):
            layers.append(GatedLayer(features, features, kernel_size=config.kernel, first=False))
        self.layers = nn.ModuleList(layers)
        self.labels = LabelBias(classes, layers) if classes else None
        self.build_heads(config, features, image_channels)

    def features(self, images: Tensor, label: Tensor | None) -> Tensor:
        """See :class:`PixelNetwork`."""
        v = h = images
        biases = label_biases(self.labels, label, len(self.layers))
        for layer, bias in zip(self.layers, biases, strict=True):
            v, h = layer("parallel", v, h, *bias)
        return h

    def sizes(self) -> Sizes:
        """See :class:`PixelNetwork`."""
        return sizes_of(self.layers)

    def row_stack(self) -> nn.Module:
        """The vertical stacks."""
        return RowStack(self.layers, self.labels)

    def pixel_stack(self) -> nn.Module:
        """The horizontal stacks."""
        return PixelStack(self.layers, self.entry)


@register("pixelcnn")
class PixelCnn(PixelFamily[PixelCnnConfig]):
    """Gated PixelCNN with exact likelihoods and cached sampling."""

    title: ClassVar[str] = "gated PixelCNN: exact likelihoods, one pixel after the other"
    paper: ClassVar[str] = (
        "van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328"
    )
    Config: ClassVar[type[FamilyConfig]] = PixelCnnConfig
    ema_networks = ("pixelcnn",)

    def build_networks(self) -> dict[str, nn.Module]:
        """One network, called ``pixelcnn``."""
        return {"pixelcnn": PixelCnnNetwork(self.config, self.data.channels, self.num_classes)}
