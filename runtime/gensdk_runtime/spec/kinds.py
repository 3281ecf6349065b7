"""Kinds of programs, outputs and conditions: each is known by its ``kind``, under which a manifest names it.

A kind is a spec, what a manifest says of it, and a class that works with it (:mod:`gensdk_runtime.programs`,
:mod:`gensdk_runtime.outputs`, :mod:`gensdk_runtime.conditions`). Both may lie in one file. gensdk's own are named
below; those of other packages are found by entry points of the groups ``gensdk.programs``, ``gensdk.outputs`` and
``gensdk.conditions``, whose name is the kind. The file of a kind is loaded when a manifest first names it.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, cast

from pydantic import PlainValidator, SerializeAsAny

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.spec.fields import Dtype, Range, Role
from gensdk_runtime.spec.settings import TAKEN
from gensdk_runtime.spec.strict import StrictModel

if TYPE_CHECKING:
    from gensdk_runtime.spec.model import ModelSpec


class OutputSpec(StrictModel):
    """What a model makes. A kind's own spec adds its fields, and ``kind: Literal["..."] = "..."``.

    The graph that makes the samples has an output of the name :attr:`tensor`, of `dtype` and of role `role`.
    `made_by`: the programs that can make this kind. `discrete_step`: the distance of two neighbouring values where
    all are discrete; None where they are continuous.
    """

    dtype: ClassVar[Dtype] = "float32"
    role: ClassVar[Role] = "output"
    discrete_step: ClassVar[float | None] = None
    made_by: ClassVar[frozenset[str]] = frozenset(("feedforward",))

    kind: str
    value_range: Range = (-1.0, 1.0)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    @property
    def tensor(self) -> str:
        """What the tensor is called that holds samples."""
        return self.kind

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the bundle, beside graphs, that the kind needs, such as a vocabulary."""
        return ()


class ConditionSpec(StrictModel):
    """What a sample is asked to be. A kind's own spec adds its fields, and ``kind: Literal["..."] = "..."``."""

    kind: str

    @property
    def sample_elements(self) -> int:
        """Elements that the condition of one sample takes in memory."""
        return 1

    @property
    def files(self) -> tuple[str, ...]:
        """As :attr:`OutputSpec.files`."""
        return ()

    def check_model(self, model: ModelSpec) -> None:
        """Raises ValueError where `model` can't have this condition."""


class ProgramSpec(StrictModel):
    """How samples come out of a model's graphs. A kind's own spec adds the names of its graphs, its ``defaults``
    where it has options (of the program's settings), and ``kind: Literal["..."] = "..."``.

    `makes`: kinds of outputs that it makes, beside those whose own spec names the program.
    """

    makes: ClassVar[frozenset[str]] = frozenset()

    kind: str

    @property
    @abstractmethod
    def graphs(self) -> tuple[str, ...]:
        """The names of the graphs that the program runs; the one that makes samples first."""

    @property
    def elements(self) -> int | None:
        """The elements of a sequence at most; None where samples are none."""
        return None

    def untaken(self, model: ModelSpec) -> frozenset[str]:
        """Options of the program's settings that the graphs of `model` have no inputs for."""
        return frozenset()

    @property
    def working(self) -> int:
        """Float32 numbers that one sample takes while it is drawn, beside the sample and the tensors of graphs."""
        return 0


SpecT = TypeVar("SpecT", bound=StrictModel)


class Kinds(Generic[SpecT]):
    """The specs that are known, by kind. `modules`: where gensdk's own kinds lie; `taken`: no names of kinds."""

    def __init__(
        self,
        base: type[StrictModel],
        what: str,
        group: str,
        modules: Mapping[str, str],
        *,
        taken: Collection[str] = (),
    ) -> None:
        self._base = base
        self._what = what
        self._group = group
        self._modules = modules
        self._taken = taken
        self._specs: dict[str, type[SpecT]] = {}
        self._classes: dict[str, type[Any]] = {}

    def register(self, spec: type[SpecT]) -> type[SpecT]:
        """Makes `spec` known under its kind; ValueError where another one, or something else, has that name."""
        kind = _kind_of(spec)
        if kind in self._taken or not kind.isidentifier():
            raise ValueError(f"no {self._what} can be called {kind!r}: it is no name, or one of something else")
        self._add(self._specs, kind, spec)
        return spec

    def register_class(self, spec: type[SpecT], works: type[Any]) -> None:
        """Makes the class known that works with the kind of `spec`; ValueError where it has another one."""
        self._add(self._classes, _kind_of(spec), works)

    def _add(self, table: dict[str, type[Any]], kind: str, added: type[Any]) -> None:
        known = table.setdefault(kind, added)
        if not same_class(known, added):
            raise ValueError(f"two {self._what}s of the kind {kind!r}: {known.__module__}, {added.__module__}")

    def known_class(self, kind: str) -> type[Any] | None:
        """The class that works with a kind, where it is loaded."""
        return self._classes.get(kind)

    def class_of(self, spec: SpecT) -> type[Any]:
        """The class that works with the kind of `spec`; ManifestError where there is none."""
        kind = _kind_of(type(spec))
        if kind not in self._classes:
            self.load(kind)
        if kind not in self._classes:
            raise ManifestError(f"nothing works with the {self._what} {kind!r}; register a class for it")
        return self._classes[kind]

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds that are known; of other packages those that are loaded."""
        return tuple(sorted({*self._specs, *self._modules}))

    def load(self, kind: str) -> bool:
        """Loads the file of a kind, of gensdk or of a package that is installed; False where there is none."""
        if kind in self._modules:
            import_module(self._modules[kind])
            return True
        from gensdk_runtime.host.installed import load_entry_point  # here: few bundles need to look for packages

        return load_entry_point(self._group, kind)

    def load_others(self) -> None:
        """Loads the files of all kinds of packages that are installed."""
        from gensdk_runtime.host.installed import load_entry_points  # here, as above

        load_entry_points(self._group)

    def spec(self, kind: str) -> type[SpecT]:
        """The spec of a kind; ValueError where it is not known."""
        if kind not in self._specs:
            self.load(kind)
        if kind not in self._specs:
            raise ValueError(
                f"no {self._what} of the kind {kind[:60]!r} is known (known: {', '.join(self.names)}); upgrade "
                "gensdk, or install the package that brings it"
            )
        return self._specs[kind]

    def read(self, value: Any) -> SpecT:
        """A spec as it is, or from what a manifest says of it."""
        if isinstance(value, self._base):
            return cast(SpecT, value)
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(kind, str):
            raise ValueError(f"expected {self._what}, an object with a kind such as {min(self._modules)!r}")
        try:
            text = json.dumps(dict(value))
        except TypeError as failure:
            raise ValueError(f"not writable as JSON ({failure})") from None
        return self.spec(kind).model_validate_json(text)


def same_class(one: type[Any], other: type[Any]) -> bool:
    """True for a class and what its module makes of it when it is loaded again, as notebooks do."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _kind_of(spec: type[StrictModel]) -> str:
    kind = spec.model_fields["kind"].default
    if not isinstance(kind, str):
        raise TypeError(f'{spec.__qualname__} has no kind; give it kind: Literal["name"] = "name"')
    return kind


PROGRAMS: Kinds[ProgramSpec] = Kinds(
    ProgramSpec,
    "program",
    "gensdk.programs",
    {
        kind: f"gensdk_runtime.programs.{kind}"
        for kind in ("feedforward", "diffusion", "autoregressive", "sequence", "ascent")
    },
)
OUTPUTS: Kinds[OutputSpec] = Kinds(
    OutputSpec,
    "output",
    "gensdk.outputs",
    {kind: f"gensdk_runtime.outputs.{kind}" for kind in ("audio", "image", "pianoroll", "points", "text")},
)
CONDITIONS: Kinds[ConditionSpec] = Kinds(
    ConditionSpec,
    "condition",
    "gensdk.conditions",
    {kind: f"gensdk_runtime.conditions.{kind}" for kind in ("audio", "image", "label", "prompt")},
    taken=TAKEN | {"latent", "setting"},  # results call values as the kind is, with an s
)

AnyProgram = Annotated[ProgramSpec, PlainValidator(PROGRAMS.read), SerializeAsAny()]
"""The field that holds a program of any kind."""
AnyOutput = Annotated[OutputSpec, PlainValidator(OUTPUTS.read), SerializeAsAny()]
"""The field that holds an output of any kind."""
AnyCondition = Annotated[ConditionSpec, PlainValidator(CONDITIONS.read), SerializeAsAny()]
"""The field that holds a condition of any kind."""
