"""The classes that samples are asked for: in the shares of the training images, found in the model by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.data.classes import listed_names
from gensdk_training.data.dataset import Dataset, Labels


@dataclass(frozen=True)
class LabelDraw:
    """How the classes of samples are drawn.

    `training`: the labels of the training images, None where classes are taken in turn. `numbers` [K]: of each
    class of the data, its number in the model. `model_classes`: how many the model has, None: it takes no label.
    `told` says it in words. `notes`: what a reader must know.

    Not the shares of the test images: samples would then be nearer to them than training images can be. The labels
    of `count` samples are those of the very training images that make the floor of `count`, so that the floor is
    drawn alike.
    """

    training: Labels | None
    numbers: NDArray[np.int64]
    model_classes: int | None
    told: str
    notes: tuple[str, ...] = ()

    def of_data(self, count: int, seed: int) -> Labels | None:
        """The class of each of `count` samples, int64 [count] in the data's numbers; None where it has none."""
        if self.training is None or self.model_classes is None:
            return None
        some = self.training[_order(len(self.training), count, seed)]
        return some[np.arange(count) % len(some)]

    def for_model(self, count: int, seed: int) -> list[int] | None:
        """The same in the model's numbers, as :meth:`Generator.sample` takes them."""
        if self.model_classes is None:
            return None
        labels = self.of_data(count, seed)
        if labels is None:
            return [number % self.model_classes for number in range(count)]
        return self.in_model(labels)

    def in_model(self, labels: Labels) -> list[int] | None:
        """`labels` of the data, int64 [n], in the model's numbers; where these are unknown, classes in turn; None
        for a model that takes no label."""
        if self.model_classes is None:
            return None
        if self.training is None:
            return [number % self.model_classes for number in range(len(labels))]
        return [int(number) for number in self.numbers[labels]]


def label_draw(model: ModelSpec, train: Dataset) -> LabelDraw:
    """How the classes of samples of `model` are drawn, whose training images are `train`.

    Raises :class:`InputError` where both name their classes and the model lacks one of the data's.
    """
    names, classes = train.info.class_names or (), model.num_classes
    numbers: NDArray[np.int64] = np.arange(len(names), dtype=np.int64)
    if classes is None:
        return LabelDraw(None, numbers, None, "")
    in_turn = f"each of the model's {classes} classes in turn"
    if train.labels is None:
        return LabelDraw(None, numbers, classes, in_turn, ("the data have no labels: classes are drawn in turn",))
    if model.class_names is None:
        if len(names) > classes:
            return LabelDraw(None, numbers, classes, in_turn, (_unlike(len(names), classes),))
        note = "the model does not name its classes: class 0 is taken for the first of the data, and so on"
        return LabelDraw(train.labels, numbers, classes, _SHARES, (note,))
    place = {name: number for number, name in enumerate(model.class_names)}
    if strange := [name for name in names if name not in place]:
        raise InputError(f"the model has no class {listed_names(strange)}; name the data's classes as the model's")
    numbers = np.array([place[name] for name in names], np.int64)
    absent = [name for name in model.class_names if name not in names]
    notes = (
        (f"classes of the model that the data don't have are not drawn: {listed_names(absent)}",) if absent else ()
    )
    return LabelDraw(train.labels, numbers, classes, _SHARES, notes)


_SHARES = "in the shares of the training images; the floor is drawn alike"


def chosen_of(train: Dataset, count: int, seed: int) -> NDArray[np.int64]:
    """The places of `count` training images, or of all, drawn without repetition."""
    return _order(len(train), count, seed)


def _order(length: int, count: int, seed: int) -> NDArray[np.int64]:
    order = np.random.Generator(np.random.Philox(seed)).permutation(length)[:count]
    return np.asarray(order, np.int64)


def _unlike(have: int, classes: int) -> str:
    return f"the data have {have} classes and the model {classes} without names: they are drawn in turn"
