"""What a sample is asked to be, kind by kind: what the caller passed, what a batch takes, what results say of it.

One class a kind, in a file of its own; nothing else branches on the kind of a condition. :func:`conditions_of`
finds the classes that belong to a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.spec.fields import Dtype
from gensdk_runtime.spec.kinds import CONDITIONS, ConditionSpec
from gensdk_runtime.spec.model import ModelSpec

SpecT = TypeVar("SpecT", bound=ConditionSpec)
ConditionT = TypeVar("ConditionT", bound="type[Condition[Any]]")

Array = NDArray[Any]


Size = tuple[int, ...]


class Growth(NamedTuple):
    """How the size of what was given compares with the model's own: `given` elements to `own` ones."""

    given: int
    own: int


class Condition(ABC, Generic[SpecT]):
    """One kind of condition of one model. A kind of its own overrides what is different of it.

    Values are arrays [n, ...], a row for each sample. `Spec`: what manifests say of the kind; `dtype` and
    `row_shape`: of a row as graphs take it, in the input of the name :attr:`tensor`.

    `required`: samples can't do without. `kept`: values are few, so that the request that they belong to keeps
    them, and may be left open; others are checked in each call, None too. `recorded`: results keep them, and their
    settings tell them; None: where they are `kept`. `absent`: what is said of a model that has no such condition.
    """

    Spec: ClassVar[type[ConditionSpec]]
    dtype: ClassVar[Dtype] = "float32"
    required: ClassVar[bool] = False
    kept: ClassVar[bool] = True
    recorded: ClassVar[bool | None] = None
    absent: ClassVar[str] = ""

    def __init__(self, spec: SpecT, model: ModelSpec) -> None:
        self.spec = spec
        self.model = model
        self.kind = spec.kind

    def with_files(self, files: ModelFiles) -> Self:
        """This, with what :meth:`check` and :meth:`told` need of the :attr:`ConditionSpec.files`; programs write
        rows without. BundleError where they don't fit."""
        return self

    @property
    def tensor(self) -> str:
        """What the input of a graph is called that takes it."""
        return self.kind

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row as graphs take it."""
        return ()

    @property
    def in_words(self) -> str:
        """What can be asked for, in a few words."""
        return self.kind

    @property
    def example(self) -> str | None:
        """What a reader of the model card may pass, as Python and a command line write it; None: nothing."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What else ``gensdk inspect`` says, a line each."""
        return ()

    @abstractmethod
    def check(self, given: Any, n: int | None) -> Array:
        """Values [n, ...] of what the caller passed as the argument of :meth:`Generator.sample` that is called as
        the kind is; `n` None: as many as it holds. :class:`InputError` where it does not fit."""

    def drawn(self, keys: Sequence[SampleKey]) -> Array:
        """Values of samples for which the condition was left open, from their seeds alone."""
        raise InputError(f"model {self.model.name!r} needs {self.kind}: pass one for each sample")

    def filled(self, n: int, value: Any) -> Array:
        """`value` for each of `n` samples."""
        return np.full(n, value, self.dtype)

    @abstractmethod
    def examples(self, n: int, first: int = 0) -> Array:
        """Values to measure and to prove a model with, for samples from number `first` on: the same on every
        machine."""

    @property
    def in_results(self) -> bool:
        """True if results keep the values."""
        return self.kept if self.recorded is None else self.recorded

    def told(self, values: Array) -> list[Any]:
        """`values` for the settings of results, as plain JSON, an entry each: :meth:`check` takes them back."""
        told: list[Any] = values.tolist()
        return told

    def parsed(self, text: str) -> Any:
        """What `text`, of a command line, passes to :meth:`Generator.sample`."""
        return text

    @property
    def own_size(self) -> Size | None:
        """The size of rows that the model was trained with, from which that of a sample follows, such as (height,
        width); None where rows have no size of their own."""
        return None

    def size(self, values: Array) -> Size | None:
        """The size of the rows of `values`; see :attr:`own_size`."""
        return None

    def growth(self, size: Size) -> Growth | None:
        """How much larger samples become by rows of this size; None where it does not matter."""
        return None

    def sample_shape(self, size: Size) -> tuple[int, ...]:
        """The shape of a sample that is made from a row of this size."""
        return self.model.output.shape

    def sized(self, n: int, size: Size) -> Array:
        """Any values of this size."""
        return self.examples(n)

    def write(self, bound: Bound, values: Array) -> None:
        """Writes `values`, a row for each sample of the batch, into a graph's input, where it has one for them."""
        if bound.session.graph.input(self.tensor) is not None:
            self.fill(bound.input(self.tensor), values)

    def fill(self, out: Array, values: Array) -> None:
        """Writes `values` into an array that a graph takes."""
        np.copyto(out, values)


def register_condition(condition: ConditionT) -> ConditionT:
    """Class decorator: makes a kind of condition known, and its spec; ValueError where the kind is taken."""
    CONDITIONS.register(condition.Spec)
    CONDITIONS.register_class(condition.Spec, condition)
    return condition


def conditions_of(model: ModelSpec, files: ModelFiles | None = None) -> tuple[Condition[Any], ...]:
    """What works with the conditions of a model, in their order, with what they need of its `files`."""
    found: Iterable[Condition[Any]] = (CONDITIONS.class_of(spec)(spec, model) for spec in model.conditions)
    return tuple(found if files is None else (each.with_files(files) for each in found))


def examples_of(model: ModelSpec, n: int, *, first: int = 0) -> dict[str, Array]:
    """Values of all conditions of a model, by kind, to measure and to prove it with; see
    :meth:`Condition.examples`."""
    return {condition.kind: condition.examples(n, first) for condition in conditions_of(model)}


def required_examples(model: ModelSpec, n: int) -> dict[str, Array]:
    """As :func:`examples_of`, of those conditions that `n` samples can't do without."""
    return {each.kind: each.examples(n) for each in conditions_of(model) if each.required}


def checked(
    given: Mapping[str, Any], model: ModelSpec, n: int, conditions: Sequence[Condition[Any]] | None = None
) -> dict[str, Array]:
    """The values [n, ...] of the conditions that were `given`, by kind; None is as if it were left out.

    `conditions`: what works with those of the model, where they have their files. Raises :class:`InputError` for
    what does not fit, and for a condition that the model does not have.
    """
    given = {kind: value for kind, value in given.items() if value is not None}
    check_known(given, model)
    works = conditions_of(model) if conditions is None else conditions
    return {each.kind: each.check(given[each.kind], n) for each in works if each.kind in given}


def check_known(given: Iterable[str], model: ModelSpec) -> None:
    """Raises :class:`InputError` where something was `given`, by kind, that the model can't be asked for."""
    known = [spec.kind for spec in model.conditions]
    for kind in given:
        if kind not in known:
            if kind in CONDITIONS.names:
                CONDITIONS.load(kind)  # a kind that this model lacks says so in its own words
            works = CONDITIONS.known_class(kind)
            absent = "" if works is None else works.absent
            if absent:
                raise InputError(f"model {model.name!r} {absent}; leave {kind} out")
            raise InputError(f"model {model.name!r} takes no {kind[:80]}{did_you_mean(kind[:80], known)}")
