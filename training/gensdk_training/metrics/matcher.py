"""A matcher: how well a text and an image go together, by two small encoders into one space, trained here.

As :mod:`gensdk_training.metrics.classifier`, a matcher knows the training part of one data set, and never what it
judges: neither samples nor test images, nor networks of the model that is judged. Both encoders learn together,
from texts to images and back (Xu et al. 2018, "AttnGAN", arXiv 1711.10485, eq. 10-12; InfoNCE, van den Oord et al.
2018, arXiv 1807.03748, eq. 4). Values from two matchers don't compare; beside each stands what real images get.

It does not: read the order of words well, or know words and things that no training image has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.text.tokens import filled
from gensdk_training.captions import CaptionInfo
from gensdk_training.data.dataset import Dataset, Images, Tokens, check_images
from gensdk_training.losses.matching import matching_loss
from gensdk_training.metrics.classifier import keep_weights, load_weights, to_tensor
from gensdk_training.metrics.features import Float64
from gensdk_training.networks.image_pairs import direction
from gensdk_training.networks.shifted import shifted
from gensdk_training.networks.text_encoder import PooledTextEncoder, TextEncoder

FEATURES = 64
"""Values of a direction."""
CHANNELS = (32, 64, 128, 128)
"""Of the convolutions over images; the last ones are for larger images."""
PART = 512
"""Images, or texts, that are read at once."""


@dataclass(frozen=True)
class MatcherSettings:
    """How a matcher is trained: `steps` of Adam over batches of 64, from `seed`. The other fields are shares:
    of the words left out or unknown, of the size by which images are moved."""

    steps: int = 1000
    learning_rate: float = 1e-3
    temperature: float = 0.1
    word_dropout: float = 0.15
    shift: float = 0.125
    seed: int = 0


@dataclass(frozen=True)
class CaptionedImages:
    """`images`: uint8 [n, H, W, C]; `tokens`: int64 [n, L], their captions, as `captions` describes them."""

    images: Images
    tokens: Tokens
    captions: CaptionInfo

    def __post_init__(self) -> None:
        check_images(self.images)
        if self.tokens.shape != (len(self.images), self.captions.row_length):
            raise InputError(f"{len(self.images)} images with captions of shape {list(self.tokens.shape)}")

    @classmethod
    def of(cls, dataset: Dataset) -> CaptionedImages:
        """All of `dataset`; :class:`InputError` where it has no captions."""
        info, batch = dataset.info.captions, dataset.batch(np.arange(len(dataset)))
        if info is None or batch.prompts is None:
            raise InputError(f"{dataset.info.name!r} has no captions, which a matcher needs; give --captions")
        return cls(np.asarray(batch.images, np.uint8), batch.prompts, info)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels


class MatcherNetwork(nn.Module):
    """Strided convolutions over images of any size, one layer of attention over words."""

    def __init__(self, shape: tuple[int, int, int], captions: CaptionInfo) -> None:
        super().__init__()
        height, width, below = shape
        layers: list[nn.Module] = []
        for level in range(64):
            if max(height, width) <= 4 or min(height, width) < 2:
                break
            channels = CHANNELS[min(level, len(CHANNELS) - 1)]
            layers += [nn.Conv2d(below, channels, 4, 2, 1), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)]
            below, height, width = channels, height // 2, width // 2
        self.image = nn.Sequential(*layers, nn.Flatten(), nn.Linear(below * height * width, FEATURES))
        words = TextEncoder(
            captions.vocabulary.size,
            captions.row_length,
            features=FEATURES,
            layers=1,
            heads=4,
            rest=captions.rest,
            dropout=0.1,
        )
        self.text = PooledTextEncoder(words, FEATURES)


class Matcher:
    """A trained :class:`MatcherNetwork` over uint8 images of one shape (H, W, C), and any texts."""

    def __init__(self, network: MatcherNetwork, shape: tuple[int, int, int], captions: CaptionInfo) -> None:
        self.network = network.eval()
        self.shape = shape
        self.captions = captions

    def images(self, images: Images) -> Float64:
        """uint8 [n, H, W, C] to directions, float64 [n, 64]."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise InputError(
                f"the matcher takes uint8 images {list(self.shape)} (height, width, channels), "
                f"got {images.dtype} {list(images.shape[1:])}; nothing is resized"
            )
        with torch.inference_mode():
            parts = [self._seen(to_tensor(images[at : at + PART])) for at in range(0, len(images), PART)]
        return np.asarray(torch.cat(parts).double().numpy())

    def texts(self, texts: Sequence[str]) -> Float64:
        """Texts to directions, float64 [n, 64]: words that no training caption has count as unknown."""
        info = self.captions
        rows = [(info.begin, *info.vocabulary.encode(text).tokens[: info.length]) for text in texts]
        tokens = torch.from_numpy(filled(rows, info.row_length, info.rest))
        with torch.inference_mode():
            parts = [self.network.text(part) for part in torch.split(tokens, PART)]
        return np.asarray(torch.cat(parts).double().numpy())

    def _seen(self, images: Tensor) -> Tensor:
        return direction(self.network.image(images))


def train_matcher(data: CaptionedImages, settings: MatcherSettings | None = None) -> Matcher:
    """Trains a matcher of `data`, in which pairs with the same caption are right alike. The global random state is
    left as it was."""
    chosen = settings or MatcherSettings()
    order = np.random.Generator(np.random.Philox(chosen.seed))
    same = np.unique(data.tokens, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        network = MatcherNetwork(data.shape, data.captions).train()
        optimizer = torch.optim.AdamW(network.parameters(), chosen.learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=chosen.steps)
        left: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        for _ in range(chosen.steps):
            if not len(left):
                left = order.permutation(len(data.images))
            batch, left = left[:64], left[64:]
            if len(batch) < 2:  # one image is nearest to its caption whatever is learnt
                continue
            images = shifted(to_tensor(data.images[batch]), chosen.shift)
            tokens = torch.from_numpy(data.tokens[batch])
            none = torch.zeros(len(batch), dtype=torch.bool)
            read = network.text(data.captions.thinned(tokens, chosen.word_dropout, none))
            labels = torch.from_numpy(same[batch])
            loss, _ = matching_loss(read, direction(network.image(images)), labels, chosen.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return Matcher(network, data.shape, data.captions)


def cached_matcher(data: CaptionedImages, folder: Path, settings: MatcherSettings | None = None) -> Matcher:
    """The matcher of `data` from `folder`, trained and stored there the first time; as
    :func:`gensdk_training.metrics.classifier.cached_classifier` does it."""
    chosen = settings or MatcherSettings()
    path = folder / f"matcher-{_digest(data, chosen)}.safetensors"
    with torch.random.fork_rng(devices=[]):
        network = MatcherNetwork(data.shape, data.captions)
    if load_weights(network, path):
        return Matcher(network, data.shape, data.captions)
    trained = train_matcher(data, chosen)
    keep_weights(trained.network, path)
    return trained


def _digest(data: CaptionedImages, settings: MatcherSettings) -> str:
    """24 hex digits over the images, the captions and everything that decides the weights."""
    decided = [asdict(settings), FEATURES, CHANNELS, data.images.shape, data.captions.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(decided).encode())
    digest.update(np.ascontiguousarray(data.images).tobytes())
    digest.update(np.ascontiguousarray(data.tokens).tobytes())
    return digest.hexdigest()[:24]
