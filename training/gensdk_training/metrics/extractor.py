"""Extractors turn images into features: a classifier trained here, or any network in an ONNX file.

Distances between features depend on the network and on how images are brought to its size, so each extractor names
itself with a hash of its weights, its resizing and its number of features, and a report repeats them. Distances of
two extractors don't compare.

It does not: come with Inception weights. If you have them as an ONNX file, pass it with a size of 299, a range of
-1 to 1 and the name of the pooled output.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, IntegrityError, UnavailableError, did_you_mean
from gensdk_runtime.media.image_pixels import fit_size, to_channels
from gensdk_runtime.media.value_range import to_floats
from gensdk_runtime.onnx_files.scan import external_locations
from gensdk_runtime.printable import printable
from gensdk_training.data.dataset import Images, check_images
from gensdk_training.metrics.classifier import ImageClassifier
from gensdk_training.metrics.features import Float64

MAX_BYTES = 2**30
MAX_FEATURES = 8192
"""The Fréchet distance takes a matrix of their square."""
BATCH = 64


@dataclass(frozen=True)
class Reading:
    """`features`: float64 [n, F]. `logits`: float64 [n, K] where the network classifies, otherwise None."""

    features: Float64
    logits: Float64 | None


class Extractor(ABC):
    """`name`, with a hash of the weights; `resizing` in words; `feature_count` values for each image."""

    name: str
    resizing: str
    feature_count: int

    @abstractmethod
    def read(self, images: Images) -> Reading:
        """Features, and logits where there are some, of uint8 images [n, H, W, C]; :class:`InputError`
        otherwise."""


class ClassifierExtractor(Extractor):
    """The last hidden layer of an :class:`ImageClassifier`; nothing is resized."""

    def __init__(self, classifier: ImageClassifier) -> None:
        self.classifier = classifier
        digest = hashlib.sha256()
        for name, tensor in sorted(classifier.network.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        self.name = f"{classifier.extractor} (sha256 {digest.hexdigest()[:12]})"
        self.resizing = "none"
        self.feature_count = classifier.network.head.in_features

    def read(self, images: Images) -> Reading:
        """As the base class says."""
        features, logits = self.classifier.features_and_logits(images)
        return Reading(features, logits)


@dataclass(frozen=True)
class ExtractorOptions:
    """How images are brought to what an ONNX file takes.

    `size`: (height, width), None: the file's own, or that of the images. `layout` of its input. `value_range`:
    what black and white become; then `mean` is taken off and `std` divided by, one value or one for each channel.
    `output`: the features' name, None: the first. `logits`: the output of a classifier, None: there is none.
    """

    size: tuple[int, int] | None = None
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    output: str | None = None
    logits: str | None = None


class OnnxExtractor(Extractor):
    """An ONNX file with one float32 image input; its output is flattened. Runs in ONNX Runtime on the CPU.

    The file runs as it is: take one from a source that you trust. Raises :class:`InputError` where it is not what
    is needed, and :class:`UnavailableError` without ONNX Runtime.
    """

    def __init__(
        self, path: str | Path, image_shape: tuple[int, int, int], options: ExtractorOptions | None = None
    ) -> None:
        self._options = options or ExtractorOptions()
        path = Path(path)
        data = _read(path)
        self._session = _open(path, data)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)[:200]
            raise InputError(f"{path}: expected one float32 image input of 4 axes, got {found}")
        self._input = inputs[0]
        self._outputs = [self._output(path, self._options.output)]
        if self._options.logits is not None:
            self._outputs.append(self._output(path, self._options.logits))
        self._lay_out(path, image_shape)
        self.name = f"{_plain(path.name)} (ONNX, sha256 {hashlib.sha256(data).hexdigest()[:12]})"
        self.feature_count = self.read(np.zeros((1, *image_shape), np.uint8)).features.shape[1]
        if not 1 <= self.feature_count <= MAX_FEATURES:
            raise InputError(
                f"{path}: expected 1 to {MAX_FEATURES} features, got {self.feature_count}; name a pooled output"
            )

    def read(self, images: Images) -> Reading:
        """As the base class says."""
        check_images(images)
        parts = [self._run(images[first : first + self._batch]) for first in range(0, len(images), self._batch)]
        joined = [np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)]
        if not all(np.isfinite(part).all() for part in joined):
            raise InputError(f"{self.name} gives NaN or infinity; are size, range and normalization right?")
        return Reading(joined[0], joined[1] if len(joined) > 1 else None)

    def _run(self, images: Images) -> list[NDArray[np.float32]]:
        count = len(images)
        feed = self._prepare(images)
        if self._fixed and count < self._batch:
            feed = np.concatenate((feed, np.repeat(feed[-1:], self._batch - count, axis=0)))
        try:
            results = self._session.run(self._outputs, {self._input.name: feed})
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            reason = " ".join(str(failure).split())[:200]
            raise InputError(f"the extractor can't run on images {list(feed.shape)}: {reason}") from None
        if any(len(result) != len(feed) for result in results):
            raise InputError(
                f"the extractor gives {len(results[0])} results for {len(feed)} images; is it batched?"
            )
        return [np.asarray(result, np.float32).reshape(len(feed), -1)[:count] for result in results]

    def _prepare(self, images: Images) -> NDArray[np.float32]:
        channels, (height, width) = self._channels, self._size
        if images.shape[3] != channels:
            images = np.stack([to_channels(image, channels) for image in images])
        if images.shape[1:3] != (height, width):
            images = np.stack([fit_size(image, (height, width), "stretch") for image in images])
        mean, std = (
            np.array(values, np.float32)[:, None, None] for values in (self._options.mean, self._options.std)
        )
        values = (to_floats(images, self._options.value_range) - mean) / std
        return np.ascontiguousarray(values if self._first else values.transpose(0, 2, 3, 1), np.float32)

    def _output(self, path: Path, name: str | None) -> str:
        names = [output.name for output in self._session.get_outputs()]
        if name is not None and name not in names:
            raise InputError(f"{path}: no output {name[:80]!r}{did_you_mean(name, names)}")
        return name or names[0]

    def _lay_out(self, path: Path, image_shape: tuple[int, int, int]) -> None:
        """Reads batch, layout, channels and size off the input's shape; what is free there is as the images
        are."""
        options, shape = self._options, [axis if isinstance(axis, int) else None for axis in self._input.shape]
        colours = (1, 3, 4)
        self._first = options.layout == "nchw" or (
            options.layout == "auto" and (shape[1] in colours or shape[3] not in colours)
        )
        channels, height, width = (shape[1], shape[2], shape[3]) if self._first else (shape[3], shape[1], shape[2])
        self._fixed = shape[0] is not None
        self._batch = shape[0] or BATCH
        self._channels = channels or image_shape[2]
        if self._channels not in colours or not 1 <= self._batch <= 65536:
            raise InputError(f"{path}: expected 1, 3 or 4 channels, got the shape {shape}; is the layout right?")
        own = (height, width) if height and width else None
        if own is not None and options.size not in (None, own):
            raise InputError(f"{path}: it takes images of {own}, not of {options.size}; leave the size out")
        self._size = own or options.size or image_shape[:2]
        if not all(1 <= side <= 4096 for side in self._size):
            raise InputError(f"{path}: expected images of 1 to 4096 pixels a side, got {self._size}")
        for what, values in (("mean", options.mean), ("std", options.std)):
            good = len(values) in (1, self._channels) and np.isfinite(values).all()
            if not good or (what == "std" and not all(value > 0 for value in values)):
                raise InputError(f"expected {what} as 1 or {self._channels} finite numbers, got {values}")
        if not np.isfinite(options.value_range).all() or options.value_range[0] >= options.value_range[1]:
            raise InputError(f"expected a value range LOW,HIGH, got {options.value_range}")
        way = "area" if image_shape[0] >= self._size[0] and image_shape[1] >= self._size[1] else "bicubic"
        wanted = f"{self._size[0]}x{self._size[1]}"
        same = self._size == tuple(image_shape[:2])
        self.resizing = "none" if same else f"{image_shape[0]}x{image_shape[1]} to {wanted}, {way}"


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"no extractor {str(path)!r}: expected an ONNX file")
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise InputError(f"{path}: expected an ONNX file of 1 to {MAX_BYTES} bytes, got {size}")
        data = path.read_bytes()
    except (OSError, ValueError) as failure:
        if isinstance(failure, InputError):
            raise
        raise InputError(f"can't read {str(path)!r}: {failure}") from None
    try:
        if external_locations(data):
            raise InputError(f"{path}: its weights lie in other files; save the model as one file")
    except IntegrityError as failure:
        raise InputError(f"{path}: expected an ONNX file, got something else ({failure})") from None
    return data


def _open(path: Path, data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as failure:
        raise UnavailableError(
            f'an ONNX extractor needs ONNX Runtime ({failure}); pip install "gensdk[cpu]"'
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures come as exceptions
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
        reason = " ".join(str(failure).split())[:200]
        raise InputError(f"{path}: ONNX Runtime can't load it: {reason}") from None


def _plain(name: str) -> str:
    return printable(name)[:80]
