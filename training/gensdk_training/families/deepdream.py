"""DeepDream: a classifier shows what it looks for, by changing an image until it sees more of it.

Paper: Mordvintsev, Olah & Tyka 2015, "Inceptionism: Going Deeper into Neural Networks" (Google Research blog), and
their published notebook; gradient ascent on an image after Simonyan, Vedaldi & Zisserman 2014 (arXiv 1312.6034).

Idea: ``max_I ||f^L(I)||``, f^L the features of layer L, or the same for one channel of it; steps along the
gradient divided by its mean absolute value, over octaves (the image at growing sizes), each step on an image moved
by a few pixels (jitter). The objective here is ``1/2 sum_c w_c sum_hw f_c^2``, w one for all channels or for the
chosen one: it has the same maxima. The layer `logits` is the classifier's answer itself; its channels are the
classes. The weights never change.

Networks: `classifier`: 3x3 convolutions with ReLU (`conv1`, `conv2`, ...), max pooling by two between them, the
mean over all places, one linear layer. It is trained on labelled images, or comes trained, as `weights`.
Exports: one gradient graph for each layer, ``gradient_conv1`` and so on, of any height and width.

It does not: bring a classifier of photographs (a small one trained on digits dreams of strokes; `gensdk import
CLASSIFIER.onnx --dream` takes those that others trained), train other architectures than its own, or smooth
gradients by a Laplacian pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_training.examples import Examples
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.graphs.dreaming import DreamLayer, dream_plan
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.weights_file import check_weights_file

LOGITS = "logits"


class DeepdreamConfig(FamilyConfig):
    """Settings of :class:`Deepdream`.

    channels: Features of each convolution, from the image up.
    weights: A .safetensors file with the state of such a classifier; then one step is enough.
    dream_steps: Steps of a dream, by default.
    dream_rate: Size of a dream's step by default, in units of half the image's range.
    jitter: Pixels that a dream's image is shifted by at random in each step, by default.
    """

    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=6)] = (
        32,
        64,
        64,
    )
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weights: str | None = None
    dream_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    dream_rate: Annotated[float, Field(gt=0, le=1)] = 0.02
    jitter: Annotated[int, Field(ge=0, le=64)] = 2


class Classifier(nn.Module):
    """An image of any size to one logit a class."""

    def __init__(self, config: DeepdreamConfig, inputs: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for level, channels in enumerate(config.channels):
            pool = [nn.MaxPool2d(2)] if level else []
            blocks.append(nn.Sequential(*pool, nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()))
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to logits [B, K]."""
        return cast(Tensor, self.head(self.blocks(images).mean(dim=(2, 3))))


@register("deepdream")
class Deepdream(Family[DeepdreamConfig]):
    """DeepDream over a small convolutional classifier."""

    title = "DeepDream: images that excite a layer, a channel or a class of a classifier"
    paper = "Mordvintsev, Olah & Tyka (2015), Inceptionism: Going Deeper into Neural Networks"
    Config = DeepdreamConfig
    ema_networks = ("classifier",)
    starts_from = "images"

    def check(self) -> None:
        """Raises :class:`InputError` without labels, and for sizes that pooling does not divide."""
        if self.data.num_classes is None:
            raise InputError(
                f"deepdream trains a classifier, but {self.data.name!r} has no labels; bring labelled data"
            )
        if self.data.height % self._multiple or self.data.width % self._multiple:
            raise InputError(
                f"deepdream with {len(self.config.channels)} layers needs sizes that {self._multiple} divides, "
                f"got {self.data.height}x{self.data.width}; resize the data, or take fewer channels"
            )

    @property
    def _multiple(self) -> int:
        return int(2 ** (len(self.config.channels) - 1))

    def build_networks(self) -> dict[str, nn.Module]:
        """`classifier`."""
        return {"classifier": Classifier(self.config, self.data.channels, self.data.num_classes or 1)}

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """The trained classifier, where one is given."""
        if self.config.weights is None:
            return
        path = Path(self.config.weights).expanduser()
        check_weights_file(path)
        try:
            networks["classifier"].load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError, ValueError) as failure:
            reason = " ".join(str(failure).split())[:160] or type(failure).__name__
            raise InputError(
                f"{path}: expected a .safetensors file with the state of this classifier ({reason}); "
                "train it with the same channels"
            ) from None

    def phases(self) -> tuple[Phase, ...]:
        """One."""
        return (Phase("classifier", ("classifier",), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Cross entropy in nats."""
        labels = require_labels(batch)
        logits = networks["classifier"](batch.images)
        right = (logits.detach().argmax(dim=1) == labels).float().mean()
        return Loss(functional.cross_entropy(logits, labels), {"accuracy": right})

    def examples(self, batch: Batch) -> Examples:
        """Images to dream on."""
        return Examples.of(batch.images, None)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """A gradient graph for each layer, the last convolution's first."""
        classifier = cast(Classifier, networks["classifier"])
        layers = {
            f"conv{depth}": DreamLayer(nn.Sequential(*list(classifier.blocks)[:depth]), width)
            for depth, width in reversed(list(enumerate(self.config.channels, start=1)))
        }
        layers[LOGITS] = DreamLayer(classifier, self.data.num_classes or 1)
        return dream_plan(
            f"{self.data.name}-{self.name}",
            self.name,
            layers,
            image=self.data.image,
            source=_source(self.data, self._multiple),
            defaults=AscentSettings(
                optimizer="sgd",
                learning_rate=self.config.dream_rate,
                num_inference_steps=self.config.dream_steps,
                jitter=self.config.jitter,
            ),
        )


def _source(data: DataInfo, multiple: int) -> SourceSpec:
    # Four places of the last layer around a pixel: what three 3x3 convolutions see of its neighbours.
    return SourceSpec(
        channels=data.channels, height=data.height, width=data.width, multiple=multiple, margin=8 * multiple
    )
