"""SGAN: a GAN whose discriminator is a classifier, trained with few labels and many images without.

Paper: Salimans et al. 2016, "Improved Techniques for Training GANs" (arXiv 1606.03498), section 5; Odena 2016,
"Semi-Supervised Learning with Generative Adversarial Networks" (arXiv 1606.01583).

Idea: K + 1 classes, the last one being "generated". Its logit may be held at 0, so that K logits l do:
``D(x) = Z / (Z + 1)``, ``Z = sum_k exp(l_k)``. D minimizes the cross entropy of the labelled images, and ``-E
log D(x) - E log(1 - D(G(z)))`` with the others. G matches features, ``||E f(x) - E f(G(z))||^2`` (section 3.1),
or makes D's error large as in other GANs.

Networks: `generator` and `classifier`, of linear layers ("mlp"), as the paper's for MNIST but smaller, or of
strided convolutions ("conv"), G as that of dcgan. Gaussian noise on the input and the features of D, while it
trains, keeps so few labels from being learnt by heart, and D from telling G's images at a glance. D is weight
normalized (Salimans & Kingma 2016, arXiv 1602.07868), and so is the last linear layer of G, which else saturates.
The labelled images are chosen before the first step, the same number of each class, and are part of the
classifier's state; the labels of all other images are never looked at but to log `accuracy`.
Exports: ``generator``: z to the image; and ``classifier``: an image to K logits, for ``Generator.classify``.

What the unlabelled images give comes late: in the first thousand steps D is hardly better than one that knows the
labelled few alone. G's samples stay worse than those of other GANs (Dai et al. 2017, arXiv 1705.09783, say why
they must).

It does not: give the generator a label, initialize from data, use virtual batch norm, or the paper's test-time
averages beyond the moving average of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from gensdk_runtime.errors import InputError
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase, network_of, require_labels
from gensdk_training.gan_family import Widths
from gensdk_training.graphs.latent_sampler import latent_plan, with_classifier
from gensdk_training.networks.dense import linears
from gensdk_training.networks.grey_levels import from_bytes, to_bytes
from gensdk_training.networks.strided import down_stack, halvings, up_stack, widths
from gensdk_training.optim import Schedule
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

LOOKED_AT = 20
"""Images that are looked at for each that is chosen, so that every class has enough."""


DIRECTION = 0.1
"""Standard deviation of D's weights before they are normalized: it changes no output, but the smaller they are,
the faster the learning rate turns them."""

OLDER = frozenset(("generator_channels", "classifier_channels", "noise", "dropout"))
AS_IT_WAS = {"architecture": "conv", "feature_noise": 0.0, "weight_norm": False, "unlabelled_weight": 1.0}
"""What runs did before these settings were there."""


class SganConfig(FamilyConfig):
    """Settings of :class:`Sgan`. The defaults suit MNIST and smaller grey images, and were chosen for "mlp".

    labels: Images that may be used with their labels, as many of each class.
    labelled_batch: Labelled images that each step draws.
    unlabelled_weight: Weight of the loss of the images without labels, that of the labelled having 1; 0.5 as in
        the authors' code.
    latent: Values in z, standard normal.
    architecture: Linear layers (mlp), for any size, or strided convolutions (conv).
    generator_hidden: Features of the generator's linear layers. For mlp.
    classifier_hidden: Features of the classifier's linear layers. For mlp.
    generator_channels: Features before the generator's last layer, doubling towards its first. For conv.
    classifier_channels: Features after the classifier's first layer, doubling with each halving. For conv.
    objective: What the generator does: matches the classifier's mean features, or makes it err.
    noise: Standard deviation of the noise on the classifier's input, whose values are in [-1, 1], while it trains
        (the paper's 0.3, of values in [0, 1], is 0.6 here).
    feature_noise: Standard deviation of the noise on what goes into each further layer, while it trains.
    dropout: Share of the classifier's last features that is left out while it trains.
    weight_norm: Whether the classifier, and the generator's last linear layer, learn directions and lengths of
        weights apart.
    """

    steps: Annotated[int, Field(ge=1)] = 12000
    lr_schedule: Schedule = "late_linear"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    labels: Annotated[int, Field(ge=1, le=100_000)] = 100
    labelled_batch: Annotated[int, Field(ge=1, le=65536)] = 64
    unlabelled_weight: Annotated[float, Field(ge=0, le=100)] = 0.5
    latent: Annotated[int, Field(ge=1, le=4096)] = 100
    architecture: Literal["mlp", "conv"] = "mlp"
    generator_hidden: Widths = (256, 256)
    classifier_hidden: Widths = (500, 250, 250)
    generator_channels: Annotated[int, Field(ge=1, le=65536)] = 32
    classifier_channels: Annotated[int, Field(ge=1, le=65536)] = 32
    objective: Literal["feature_matching", "non_saturating"] = "feature_matching"
    noise: Annotated[float, Field(ge=0, le=2)] = 0.6
    feature_noise: Annotated[float, Field(ge=0, le=10)] = 0.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_norm: bool = True
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999

    @model_validator(mode="after")
    def _of_an_older_run(self) -> Self:
        """A run has all its settings written out: one that has all the older ones alone stays what it was."""
        given = self.model_fields_set
        if given >= OLDER and not given & AS_IT_WAS.keys():
            return self.model_copy(update=AS_IT_WAS)
        return self


class Generator(nn.Module):
    """G: z to an image."""

    def __init__(self, config: SganConfig, data: DataInfo) -> None:
        super().__init__()
        shape = data.image.shape
        if config.architecture == "conv":
            times = halvings(data.height, data.width, family="sgan with architecture=conv")
            self.body = up_stack(config.latent, widths(config.generator_channels, times)[::-1], shape)
            return
        layers: list[nn.Module] = []
        sizes = (config.latent, *config.generator_hidden)
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.Softplus()]
        last = nn.Linear(sizes[-1], math.prod(shape))
        # tanh(a / 2) = 2 sigmoid(a) - 1: with rows of length 1/2, the paper's sigmoid of rows of length 1.
        self.body = nn.Sequential(
            *layers, normalized(last, length=0.5) if config.weight_norm else last, nn.Unflatten(1, shape)
        )

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, latent] to images [B, C, H, W] in [-1, 1]."""
        return torch.tanh(self.body(z))


class Classifier(nn.Module):
    """D: an image to a logit for each class. `images` and `labels` are the labelled few."""

    images: Tensor
    labels: Tensor

    def __init__(self, config: SganConfig, data: DataInfo, classes: int) -> None:
        super().__init__()
        self.noise, self.feature_noise = config.noise, config.feature_noise
        if config.architecture == "conv":
            times = halvings(data.height, data.width, family="sgan with architecture=conv")
            stack = widths(config.classifier_channels, times)
            size = stack[-1] * (data.height >> times) * (data.width >> times)
            self.features = nn.Sequential(down_stack(data.channels, stack, normalize=False), nn.Flatten())
        else:
            sizes = (math.prod(data.image.shape), *config.classifier_hidden)
            size = sizes[-1]
            self.features = nn.Sequential(nn.Flatten(), linears(*sizes), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(size, classes))
        if config.weight_norm:
            for layer in (*self._layers(), *self.head):
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    normalized(layer, direction=DIRECTION)
        count = labelled_count(config, classes)
        self.register_buffer("images", torch.zeros(count, *data.image.shape, dtype=torch.uint8))
        self.register_buffer("labels", torch.arange(count) % classes)

    def _layers(self) -> Iterator[nn.Module]:
        for part in self.features:
            yield from part if isinstance(part, nn.Sequential) else (part,)

    def _noisy(self, values: Tensor, deviation: float) -> Tensor:
        return values + deviation * torch.randn_like(values) if self.training and deviation else values

    def describe(self, images: Tensor) -> Tensor:
        """The features f [B, F] of `images` [B, C, H, W] in [-1, 1]: with noise on all but themselves."""
        values, deviation = images, self.noise
        for layer in self._layers():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                values, deviation = self._noisy(values, deviation), self.feature_noise
            values = layer(values)
        return values

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to logits [B, K]."""
        logits: Tensor = self.head(self._noisy(self.describe(images), self.feature_noise))
        return logits

    def labelled(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` of the labelled images in [-1, 1], drawn with replacement, and their labels."""
        chosen = torch.randint(len(self.labels), (count,), device=self.labels.device)
        return from_bytes(self.images[chosen]), self.labels[chosen]


class Logits(nn.Module):
    """The classifier as it is exported: without its labelled images."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.features, self.head = classifier.features, classifier.head

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to logits [B, K]."""
        logits: Tensor = self.head(self.features(images))
        return logits


def normalized(layer: nn.Linear | nn.Conv2d, *, length: float = 1.0, direction: float | None = None) -> nn.Module:
    """`layer` with weight normalization: each row of its weight is a learnt length times a direction.

    `direction`: the standard deviation that the weights before it get; None: they stay as they are.
    """
    if direction is not None:
        nn.init.normal_(layer.weight, std=direction)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    weight_norm(layer)
    nn.init.constant_(layer.get_parameter("parametrizations.weight.original0"), length)
    return layer


def labelled_count(config: SganConfig, classes: int) -> int:
    """How many labelled images are used: `labels`, less what does not divide by the classes."""
    return config.labels - config.labels % classes


def log_real(logits: Tensor) -> Tensor:
    """``log D(x) = log Z - log(Z + 1)`` of each image, [B]."""
    log_z = torch.logsumexp(logits, dim=1)
    return log_z - functional.softplus(log_z)


def log_fake(logits: Tensor) -> Tensor:
    """``log(1 - D(x)) = -log(Z + 1)`` of each image, [B]."""
    return -functional.softplus(torch.logsumexp(logits, dim=1))


@register("sgan")
class Sgan(Family[SganConfig]):
    """Semi-supervised GAN."""

    title = "semi-supervised GAN: K + 1 classes, few labels; exports generator and classifier"
    paper = "Salimans et al. (2016), Improved Techniques for Training GANs"
    Config = SganConfig
    ema_networks = ("generator", "classifier")

    def check(self) -> None:
        """Raises :class:`InputError` where the data has no labels, or too few images."""
        data, config = self.data, self.config
        if config.architecture == "conv":
            halvings(data.height, data.width, family="sgan with architecture=conv")
        if data.num_classes is None:
            raise InputError(f"sgan needs data with labels, but {data.name!r} has none; dcgan needs none")
        if config.labels < data.num_classes:
            raise InputError(f"expected labels of at least {data.num_classes}, one a class, got {config.labels}")

    @property
    def _classes(self) -> int:
        return self.data.num_classes or 0

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `classifier`."""
        return {
            "generator": Generator(self.config, self.data),
            "classifier": Classifier(self.config, self.data, self._classes),
        }

    def look(self, networks: Mapping[str, nn.Module], spread: Callable[[int], Batch]) -> None:
        """Chooses the labelled images. Raises :class:`InputError` where a class has too few."""
        classifier = _classifier(networks)
        count = len(classifier.labels)
        batch = spread(max(LOOKED_AT * count, 2000))
        labels, each = require_labels(batch), count // self._classes
        for label in range(self._classes):
            found = (labels == label).nonzero().flatten()
            if len(found) < each:
                raise InputError(f"expected {each} images of class {label}, found {len(found)}; lower labels")
            classifier.images[classifier.labels == label] = to_bytes(batch.images[found[:each]])

    def phases(self) -> tuple[Phase, ...]:
        """`classifier`, then `generator`."""
        rate, betas = self.config.learning_rate, (self.config.beta1, self.config.beta2)
        return (Phase("classifier", ("classifier",), rate, betas), Phase("generator", ("generator",), rate, betas))

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """Cross entropy of the labelled, and the game of the others; for G its objective. In nats, means."""
        z = torch.randn(len(batch.images), self.config.latent, device=batch.images.device)
        with torch.set_grad_enabled(phase == "generator"):
            fake = networks["generator"](z)
        classifier = _classifier(networks)
        if phase == "generator":
            return Loss(self._generator_loss(classifier, batch.images, fake))
        images, labels = classifier.labelled(self.config.labelled_batch)
        # In one pass, which is faster than three; no layer of D mixes the images of a batch.
        logits = classifier(torch.cat((images, batch.images, fake)))
        known, on_real, on_fake = logits.split((len(images), len(batch.images), len(fake)))
        supervised = functional.cross_entropy(known, labels)
        unsupervised = -log_real(on_real).mean() - log_fake(on_fake).mean()
        logs = {"supervised": supervised.detach(), "d_real": log_real(on_real.detach()).exp().mean()}
        if batch.labels is not None:
            logs["accuracy"] = (on_real.detach().argmax(dim=1) == batch.labels).float().mean()
        return Loss(supervised + self.config.unlabelled_weight * unsupervised, logs)

    def _generator_loss(self, classifier: Classifier, images: Tensor, fake: Tensor) -> Tensor:
        if self.config.objective == "non_saturating":
            return -log_real(classifier(fake)).mean()
        with torch.no_grad():
            wanted = classifier.describe(images).mean(dim=0)
        return (wanted - classifier.describe(fake).mean(dim=0)).square().mean()

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``generator`` and ``classifier``, all of which may be half precision."""
        latent, generator = self.config.latent, networks["generator"]
        plan = latent_plan(self.name, "generator", generator, self.data, latent=latent, conditional=False)
        return with_classifier(plan, Logits(_classifier(networks)), self.data, classes=self._classes)


def _classifier(networks: Mapping[str, nn.Module]) -> Classifier:
    return network_of(networks, "classifier", Classifier)
