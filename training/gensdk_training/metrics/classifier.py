"""A small image classifier, trained here: its features give a Fréchet distance, its answers label accuracy.

Features of a network trained on photographs say little about 8x8 digits, and they would have to be downloaded.
So quality on small labelled data is judged by a classifier of that very data: the values of its last hidden
layer (64 units, after ReLU, not rescaled) are the features. Distances from two such classifiers don't compare;
a report names the extractor, and its train-against-test floor gives the scale.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.atomic import write_file
from gensdk_training.data.dataset import Dataset, Images, Labels, check_images
from gensdk_training.networks.grey_levels import from_bytes

FEATURES = 64
"""Units of the last hidden layer."""


@dataclass(frozen=True)
class LabelledImages:
    """`images`: uint8 [n, H, W, C]; `labels`: int64 [n]."""

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        check_images(self.images)
        if self.labels.shape != self.images.shape[:1]:
            raise InputError(f"{len(self.images)} images with labels of shape {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, dataset: Dataset) -> LabelledImages:
        """All of `dataset`; :class:`InputError` where it has no labels."""
        batch = dataset.batch(np.arange(len(dataset)))
        if batch.labels is None:
            raise InputError(f"{dataset.info.name!r} has no labels, which a classifier needs")
        images: Any = batch.images  # points are refused where all images are checked
        return cls(images, batch.labels)

    @property
    def num_classes(self) -> int:
        """One more than the highest label."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class ClassifierSettings:
    """How the classifier is trained: `steps` of Adam over batches of 64, from `seed`.

    A little `label_smoothing` bounds the logits, and with them the features: without it their scale, and so the
    scale of all distances, would grow with every further step.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    label_smoothing: float = 0.005
    seed: int = 0


class ClassifierNetwork(nn.Module):
    """3x3 convolutions, each halving the size, down to at most 7 pixels; 64 hidden units; one logit a class."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()]
        below = 32
        while max(height, width) > 7 and min(height, width) > 1:
            layers += [nn.Conv2d(below, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            below, height, width = 64, height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(below * height * width, FEATURES), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [N, C, H, W] in [-1, 1] to (features [N, 64], logits [N, K])."""
        features = self.hidden(images)
        return features, self.head(features)


class ImageClassifier:
    """A trained :class:`ClassifierNetwork` over uint8 images of one shape (H, W, C)."""

    def __init__(self, network: ClassifierNetwork, shape: tuple[int, int, int], num_classes: int) -> None:
        self.network = network.eval()
        self.shape = shape
        self.num_classes = num_classes

    @property
    def extractor(self) -> str:
        """The name of the features in reports."""
        height, width, channels = self.shape
        return f"classifier trained here, {FEATURES} units after ReLU, {height}x{width}x{channels}"

    def features(self, images: Images) -> NDArray[np.float64]:
        """uint8 [n, H, W, C] to the last hidden layer, float64 [n, 64]."""
        return self.features_and_logits(images)[0]

    def predict(self, images: Images) -> Labels:
        """uint8 [n, H, W, C] to the likeliest class of each, int64 [n]."""
        return np.asarray(self.features_and_logits(images)[1].argmax(axis=1), dtype=np.int64)

    def accuracy(self, data: LabelledImages) -> float:
        """The share in [0, 1] of images that the classifier gives their label."""
        return float((self.predict(data.images) == data.labels).mean())

    def features_and_logits(self, images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both in one run: float64 [n, 64] and [n, K]."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise InputError(
                f"the classifier takes uint8 images {list(self.shape)} (height, width, channels), "
                f"got {images.dtype} {list(images.shape[1:])}; nothing is resized"
            )
        with torch.inference_mode():
            parts = [self.network(to_tensor(images[i : i + 512])) for i in range(0, len(images), 512)]
        features, logits = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
        return features, logits


def to_tensor(images: Images) -> Tensor:
    """uint8 [n, H, W, C] to float32 [n, C, H, W] in [-1, 1]."""
    return from_bytes(torch.from_numpy(images).permute(0, 3, 1, 2))


def train_classifier(data: LabelledImages, settings: ClassifierSettings | None = None) -> ImageClassifier:
    """Trains a classifier of `data`. The global random state is left as it was."""
    chosen = settings or ClassifierSettings()
    generator = np.random.Generator(np.random.Philox(chosen.seed))
    network = _fresh_network(data, chosen.seed)
    optimizer = torch.optim.Adam(network.parameters(), chosen.learning_rate)
    order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for _ in range(chosen.steps):
        if not len(order):
            order = generator.permutation(len(data))
        batch, order = order[:64], order[64:]
        _, logits = network(to_tensor(data.images[batch]))
        targets = torch.from_numpy(data.labels[batch])
        loss = functional.cross_entropy(logits, targets, label_smoothing=chosen.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return ImageClassifier(network, _shape(data), data.num_classes)


def cached_classifier(
    data: LabelledImages, folder: Path, settings: ClassifierSettings | None = None
) -> ImageClassifier:
    """The classifier of `data` from `folder`, trained and stored there the first time.

    The file is named after a digest of data and settings, so neither can change unnoticed; a file that can't be
    read is trained anew. Holds weights as safetensors only.
    """
    chosen = settings or ClassifierSettings()
    path = folder / f"classifier-{_digest(data, chosen)}.safetensors"
    network = _fresh_network(data, chosen.seed)
    if not load_weights(network, path):
        trained = train_classifier(data, chosen)
        keep_weights(trained.network, path)
        return trained
    return ImageClassifier(network, _shape(data), data.num_classes)


def _fresh_network(data: LabelledImages, seed: int) -> ClassifierNetwork:
    """Initialized from `seed`, without a trace in the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClassifierNetwork(_shape(data), data.num_classes)


def keep_weights(network: nn.Module, path: Path) -> None:
    """Writes the weights of `network` into `path`, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, save(network.state_dict()))


def load_weights(network: nn.Module, path: Path) -> bool:
    """Fills `network` from `path`; False where there is no file that fits it."""
    try:
        with safe_open(path, framework="pt") as file:
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True


def _shape(data: LabelledImages) -> tuple[int, int, int]:
    height, width, channels = data.images.shape[1:]
    return height, width, channels


def _digest(data: LabelledImages, settings: ClassifierSettings) -> str:
    """24 hex digits over the images, the labels and everything that decides the weights."""
    digest = hashlib.sha256(json.dumps([settings.__dict__, FEATURES, data.images.shape]).encode())
    digest.update(np.ascontiguousarray(data.images).tobytes())
    digest.update(np.ascontiguousarray(data.labels).tobytes())
    return digest.hexdigest()[:24]
