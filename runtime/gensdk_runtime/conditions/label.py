"""Classes: by number or by name, one for all samples or one for each; left open, drawn from the seed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import shown
from gensdk_runtime.conditions.base import Array, Condition, register_condition
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.spec.conditions import LabelSpec

Label = int | np.integer | str | Sequence[int | np.integer | str] | NDArray[np.integer] | NDArray[np.str_]


@register_condition
class LabelCondition(Condition[LabelSpec]):
    """int64 [n], the numbers of classes."""

    Spec: ClassVar = LabelSpec
    dtype = "int64"
    absent = "has no classes"

    @property
    def in_words(self) -> str:
        """How many classes."""
        return f"{self.spec.num_classes} classes"

    @property
    def example(self) -> str:
        """The first class."""
        return "0"

    def check(self, given: Any, n: int | None) -> Array:
        """A class for all samples, or one for each."""
        if isinstance(given, np.ndarray):
            given = given.tolist()
        if isinstance(given, str) or not isinstance(given, Sequence):
            return np.full(1 if n is None else n, self._number(given), np.int64)
        if n is not None and len(given) != n:
            raise InputError(f"expected one label for each of the {n} samples, got {len(given)}")
        return np.array([self._number(entry) for entry in given], np.int64)

    def drawn(self, keys: Sequence[SampleKey]) -> Array:
        """A class for each sample; all are equally likely."""
        classes = self.spec.num_classes
        places = noise.uniform(keys, noise.LABEL_STREAM, (1,))[:, 0] * classes
        return np.minimum(places, classes - 1).astype(np.int64)

    def examples(self, n: int, first: int = 0) -> Array:
        """One class after another."""
        return np.arange(first, first + n, dtype=np.int64) % self.spec.num_classes

    def parsed(self, text: str) -> Any:
        """One class number or name, or with commas a list of them."""
        return text if text in (self.spec.class_names or ()) else parse_label(text)

    def _number(self, label: Any) -> int:
        names, classes = self.spec.class_names or (), self.spec.num_classes
        if isinstance(label, str):
            if label in names:
                return self._named(label)
            if not label.isascii() or not label.isdigit() or len(label) > 9:
                known = names or (f"0 .. {classes - 1}",)
                raise InputError(f"no class {label[:80]!r}{did_you_mean(label[:80], known)}")
            label = int(label)
        try:
            number = operator.index(label)
        except TypeError:
            raise InputError(f"expected label as a class number or name, got {type(label).__name__}") from None
        if isinstance(label, bool | np.bool_) or not 0 <= number < classes:
            raise InputError(f"expected label from 0 to {classes - 1}, got {shown(label)}")
        return number

    def _named(self, label: str) -> int:
        """The one class of this name; ImageNet has two cranes."""
        names = self.spec.class_names or ()
        first, *others = (number for number, name in enumerate(names) if name == label)
        if others:
            raise InputError(
                f"{1 + len(others)} classes are called {shown(label)!r}; pass the number of one, such as {first}"
            )
        return first


def parse_label(text: str) -> Any:
    """One class number or name, or a list of them, of a command line."""
    parts = [part.strip() for part in text.split(",")]
    return parts[0] if len(parts) == 1 else parts
