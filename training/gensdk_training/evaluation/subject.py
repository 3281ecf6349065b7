"""What is evaluated: samples through the runtime, against the two parts of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.conditions.audio import talks
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.outputs.image import image_of
from gensdk_runtime.programs import abilities
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.data.classes import among, as_classes, listed_names, of_classes
from gensdk_training.data.dataset import Dataset, Images, Labels
from gensdk_training.data.mixtures import MIXTURES
from gensdk_training.data.sound_pairs import SoundsOfClasses
from gensdk_training.evaluation.labels import LabelDraw, chosen_of, label_draw
from gensdk_training.evaluation.prompts import PromptDraw, prompt_draw
from gensdk_training.run_config import DataConfig

MAX_SAMPLES = 100_000
MAX_BYTES = 4 * 2**30
"""Of all samples together: they are held at once."""
PART = 2048
"""Training images that are read at once."""


_TAKEN_OVER = (
    *("labels", "fit", "holdout", "only", "value_range", "layout", "depth"),
    *("sample_rate", "seconds", "text", "bars", "steps_per_beat", "whole", "unheard", "captions", "sounds"),
)
"""Of how the model's own training brought data into shape: what an evaluation does alike."""


@dataclass(frozen=True)
class Drawn:
    """`samples`, and the class that each was asked for, int64 [n] in the data's numbers; None: there is none."""

    samples: Samples
    labels: Labels | None


@dataclass(frozen=True)
class SoundDraw:
    """How the sounds are drawn that samples are made from: all of the test part, in a random order, again and
    again.

    `pairs`: those; `names`: of the classes of the data, by which theirs are found.
    """

    pairs: SoundsOfClasses
    names: tuple[str, ...]

    def _places(self, count: int, seed: int) -> NDArray[np.int64]:
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(self.pairs.sounds))
        return np.resize(order, count).astype(np.int64)

    def audio(self, count: int, seed: int) -> tuple[list[NDArray[np.float32]], int]:
        """`count` sounds, as :meth:`Generator.sample` takes them."""
        sounds = self.pairs.sounds
        heard = [sounds.sounds[place][:, 0] for place in self._places(count, seed).tolist()]
        return heard, sounds.info.require_audio().sample_rate

    def labels(self, count: int, seed: int) -> Labels:
        """Their classes, int64 [count] in the data's numbers."""
        own, labels = self.pairs.sounds.info.class_names or (), self.pairs.sounds.labels
        table = np.array([self.names.index(name) for name in own], np.int64)
        return np.asarray(table[np.asarray(labels)[self._places(count, seed)]], np.int64)

    @property
    def told(self) -> str:
        """How many."""
        return f"those of the {len(self.pairs.sounds)} sounds of the test, which samples are made from in turn"


@dataclass(frozen=True)
class Reference:
    """The data: `train` and `test`, brought to the model's size and channels; `test_images` and `test_labels`
    whole. Both parts number their classes alike. `classes`: how samples get theirs. `notes`: what a reader must
    know. `sounds`: what samples are made from, of a model that listens; `prompts`: the same of one that reads."""

    train: Dataset
    test: Dataset
    test_images: Images
    test_labels: Labels | None
    classes: LabelDraw
    notes: tuple[str, ...] = ()
    sounds: SoundDraw | None = None
    prompts: PromptDraw | None = None

    def asked(self, count: int, seed: int) -> dict[str, Any]:
        """What `count` samples are asked to be, as :meth:`Generator.sample` takes it."""
        given: dict[str, Any] = {"label": self.classes.for_model(count, seed)}
        if self.sounds is not None:
            given["audio"] = self.sounds.audio(count, seed)
        if self.prompts is not None:
            given["prompt"] = self.prompts.prompts(count, seed)
            if (labels := self.prompts.classes(count, seed)) is not None:
                given["label"] = self.classes.in_model(labels)
        return given

    def asked_labels(self, count: int, seed: int) -> Labels | None:
        """The class of each, int64 [count] in the data's numbers; None where it has none."""
        if self.prompts is not None:
            return self.prompts.classes(count, seed)
        return self.classes.of_data(count, seed) if self.sounds is None else self.sounds.labels(count, seed)

    @property
    def told(self) -> str:
        """How classes are drawn, in words."""
        if self.prompts is not None:
            return self.prompts.told
        return self.classes.told if self.sounds is None else self.sounds.told

    def training_parts(self) -> Iterator[Images]:
        """All training images, in order, some at a time: uint8 [m, H, W, C]."""
        for first in range(0, len(self.train), PART):
            yield _images(self.train, np.arange(first, min(first + PART, len(self.train))))

    def training_sample(self, count: int, seed: int) -> Images:
        """So many training images, or all, drawn without repetition."""
        return _images(self.train, chosen_of(self.train, count, seed))

    def training_image(self, index: int) -> Images:
        """One training image, uint8 [H, W, C]."""
        return np.asarray(self.train.batch(np.array([index], np.int64)).images[0])

    def close(self) -> None:
        """Frees both parts."""
        self.train.close()
        self.test.close()


def check_model(model: ModelSpec) -> None:
    """Raises :class:`InputError` for a model whose output these measures don't know."""
    if "translate" in abilities(model) or talks(model):
        raise InputError(
            f"{model.name!r} translates images, and evaluate measures models that sample; compare its "
            "translations with their targets (Generator.translate, or sample for a face that talks, gives them)"
        )


def open_reference(model: ModelSpec, data: DataConfig) -> Reference:
    """Both parts of `data` at the size and with the channels of `model`, whatever `data` says of those.

    Classes are found by name: those that the model does not have, and in the test part those that are not among
    the training images, are left out, with a note. Raises :class:`InputError` for data that has no test part, only
    one image in a part, or no class in common with the model.
    """
    image = image_of(model)
    if data.source in MIXTURES or data.source.lower().endswith(".csv"):
        raise InputError(f"the model makes images, but {data.source!r} holds points; give the data it learned")
    if (model.condition("audio") is not None) != (data.inputs is not None):
        raise InputError(
            f"{model.name!r} {'is' if data.inputs is None else 'is not'} made from sounds: "
            f"{'give such of the same classes with' if data.inputs is None else 'leave out'} --inputs"
        )
    shaped = data.model_copy(update={"size": (image.height, image.width), "channels": image.channels, "only": ()})
    train = shaped.load(split="train")
    try:
        test = shaped.load(split="test")
    except InputError as failure:
        train.close()
        raise InputError(f"{failure} (--holdout 0.1 keeps a tenth for the test)") from None
    heard = test.sources
    train, test, notes = _alike(train, test, model, data.only)
    if min(len(train), len(test)) < 2:
        raise InputError(
            f"expected 2 images or more in each part, got {len(train)} and {len(test)} for training, test"
        )
    draw = label_draw(model, train)
    labels = test.labels if train.labels is not None else None
    images = _images(test, np.arange(len(test)))
    sounds = SoundDraw(heard, train.info.class_names or ()) if isinstance(heard, SoundsOfClasses) else None
    prompts, told = prompt_draw(model, test)
    return Reference(train, test, images, labels, draw, (*notes, *draw.notes, *told), sounds, prompts)


def _alike(
    train: Dataset, test: Dataset, model: ModelSpec, only: tuple[str, ...]
) -> tuple[Dataset, Dataset, list[str]]:
    """Both parts with the classes that `model` learned, numbered as in the training part."""
    notes = []
    if train.labels is None:
        if only:
            notes.append("the model learned some classes of its data; these data have no labels to choose them by")
        return train, test, notes
    train = of_classes(train, only) if only else train
    if model.class_names is not None and not set(train.info.class_names or ()) <= set(model.class_names):
        train, notes = _left_out(train, model.class_names, "the model does not have", notes)
    names = train.info.class_names or ()
    if test.labels is None:
        return train, test, [*notes, "the test images have no labels, which training images have"]
    if not set(test.info.class_names or ()) <= set(names):
        test, notes = _left_out(test, names, "are not compared" if only else "training images don't have", notes)
    if missing := [name for name in names if name not in (test.info.class_names or ())]:
        notes.append(f"no test image of {listed_names(missing)}")
    return train, as_classes(test, names), notes


def _left_out(data: Dataset, names: Sequence[str], why: str, notes: list[str]) -> tuple[Dataset, list[str]]:
    gone = [name for name in data.info.class_names or () if name not in names]
    kept = among(data, names)
    return kept, [*notes, f"{len(data) - len(kept)} images left out, of classes that {why}: {listed_names(gone)}"]


def _images(data: Dataset, indices: NDArray[np.int64]) -> Images:
    """uint8 [n, H, W, C]; :class:`InputError` for data of points."""
    images = data.batch(indices).images
    if images.dtype != np.uint8:
        raise InputError(f"the model makes images, but {data.info.name!r} holds points; give the data it learned")
    return np.asarray(images, np.uint8)


def data_of(manifest: Manifest, source: str) -> DataConfig:
    """How the model's own training brought data into shape, for `source`; the defaults where nothing is known."""
    known = manifest.provenance.config.get("data")
    kept = {k: v for k, v in known.items() if k in _TAKEN_OVER} if isinstance(known, dict) else {}
    if not any(suffix in source.lower() for suffix in (".npz", ".npy")):
        kept.pop("value_range", None)  # which is for arrays
    return DataConfig.from_dict({**kept, "source": source}, what="data")


def draw(
    generator: Generator, reference: Reference, count: int, seed: int, *, progress: bool | None, **options: Any
) -> Drawn:
    """`count` samples, uint8, with `options` of :meth:`Generator.sample`, asked for what :meth:`Reference.asked`
    draws.

    Raises :class:`InputError` for a count that is too small, or too large to hold.
    """
    shape = image_of(generator.model).shape
    if not 2 <= count <= MAX_SAMPLES or count * math.prod(shape) > MAX_BYTES:
        most = min(MAX_SAMPLES, MAX_BYTES // math.prod(shape))
        raise InputError(f"expected 2 to {most} samples of {list(shape)}, got {count}")
    how: dict[str, Any] = {"output_type": "uint8", "progress": progress, **reference.asked(count, seed)}
    return Drawn(generator.sample(count, seed=seed, **how, **options), reference.asked_labels(count, seed))


def open_bundle(bundle: str) -> Bundle:
    """The bundle, checked to be one whose samples can be measured."""
    opened = Bundle.open(bundle)
    try:
        check_model(opened.manifest.model)
    except InputError:
        opened.close()
        raise
    return opened
