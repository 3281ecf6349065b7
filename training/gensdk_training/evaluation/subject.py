"""What is evaluated, and against what: samples through the runtime, and the two parts of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.manifest import Manifest, ModelSpec
from gensdk_runtime.samples import Samples
from gensdk_training.data.dataset import Dataset, Images, Labels
from gensdk_training.data.mixtures import MIXTURES
from gensdk_training.run_config import DataConfig

MAX_SAMPLES = 100_000
MAX_BYTES = 4 * 2**30
"""Of all samples together: they are held at once."""
PART = 2048
"""Training images that are read at once."""


@dataclass(frozen=True)
class Reference:
    """The data: `train` and `test`, brought to the model's size and channels; `test_images` and `test_labels`
    whole."""

    train: Dataset
    test: Dataset
    test_images: Images
    test_labels: Labels | None

    def training_parts(self) -> Iterator[Images]:
        """All training images, in order, some at a time: uint8 [m, H, W, C]."""
        for first in range(0, len(self.train), PART):
            yield _images(self.train, np.arange(first, min(first + PART, len(self.train))))

    def training_sample(self, count: int, seed: int) -> Images:
        """So many training images, or all, drawn without repetition."""
        return _images(self.train, self._chosen(count, seed))

    def training_labels(self, count: int, seed: int) -> Labels | None:
        """Their labels."""
        return self.train.batch(self._chosen(count, seed)).labels

    def _chosen(self, count: int, seed: int) -> NDArray[np.int64]:
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(self.train))[:count]
        return np.asarray(order, np.int64)

    def training_image(self, index: int) -> Images:
        """One training image, uint8 [H, W, C]."""
        return np.asarray(self.train.batch(np.array([index], np.int64)).images[0])

    def close(self) -> None:
        """Frees both parts."""
        self.train.close()
        self.test.close()


def check_model(model: ModelSpec) -> None:
    """Raises :class:`InputError` for a model whose output these measures don't know."""
    if model.source is not None:
        raise InputError(
            f"{model.name!r} translates images, and evaluate measures models that sample; compare its "
            "translations with their targets (Generator.translate gives them)"
        )


def open_reference(manifest: Manifest, data: DataConfig) -> Reference:
    """Both parts of `data` at the size and with the channels of the model, whatever `data` says of those.

    Raises :class:`InputError` for data that has no test part, or only one image in a part.
    """
    image = manifest.model.require_image()
    if data.source in MIXTURES or data.source.lower().endswith(".csv"):
        raise InputError(f"the model makes images, but {data.source!r} holds points; give the data it learned")
    shaped = data.model_copy(update={"size": (image.height, image.width), "channels": image.channels})
    train = shaped.load(split="train")
    try:
        test = shaped.load(split="test")
    except InputError as failure:
        train.close()
        raise InputError(f"{failure} (--holdout 0.1 keeps a tenth for the test)") from None
    if min(len(train), len(test)) < 2:
        raise InputError(
            f"expected 2 images or more in each part, got {len(train)} and {len(test)} for training, test"
        )
    whole = test.batch(np.arange(len(test)))
    return Reference(train, test, _images(test, np.arange(len(test))), whole.labels)


def _images(data: Dataset, indices: NDArray[np.int64]) -> Images:
    """uint8 [n, H, W, C]; :class:`InputError` for data of points."""
    images = data.batch(indices).images
    if images.dtype != np.uint8:
        raise InputError(f"the model makes images, but {data.info.name!r} holds points; give the data it learned")
    return np.asarray(images, np.uint8)


def data_of(manifest: Manifest, source: str) -> DataConfig:
    """How the model's own training brought data into shape, for `source`; the defaults where nothing is known."""
    known = manifest.provenance.config.get("data")
    kept = {k: v for k, v in known.items() if k in ("labels", "fit", "holdout")} if isinstance(known, dict) else {}
    return DataConfig.from_dict({**kept, "source": source}, what="data")


def draw(generator: Generator, reference: Reference, count: int, seed: int, *, progress: bool | None) -> Samples:
    """`count` samples, uint8; the classes of a conditional model in the shares of the training images.

    Not in those of the test images: the samples would then be nearer to them than training images can be.

    Raises :class:`InputError` for a count that is too small, or too large to hold.
    """
    shape = generator.model.require_image().shape
    if not 2 <= count <= MAX_SAMPLES or count * math.prod(shape) > MAX_BYTES:
        most = min(MAX_SAMPLES, MAX_BYTES // math.prod(shape))
        raise InputError(f"expected 2 to {most} samples of {list(shape)}, got {count}")
    labels = label_list(generator.model, reference, count, seed)
    return generator.sample(count, seed=seed, label=labels, output_type="uint8", progress=progress)


def label_list(model: ModelSpec, reference: Reference, count: int, seed: int) -> list[int] | None:
    """A class for each of `count` samples: as training images have them, or in turn where those don't fit."""
    if model.num_classes is None:
        return None
    known = reference.training_labels(count, seed)
    fits = known is not None and int(known.max()) < model.num_classes
    order: NDArray[np.int64] = known if known is not None and fits else np.arange(model.num_classes)
    return [int(order[i % len(order)]) for i in range(count)]


def open_bundle(bundle: str) -> Bundle:
    """The bundle, checked to be one whose samples can be measured."""
    opened = Bundle.open(bundle)
    try:
        check_model(opened.manifest.model)
    except InputError:
        opened.close()
        raise
    return opened
