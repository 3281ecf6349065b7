"""The contract of a program: a loop over graphs that turns noise into samples, one batch at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.conditions.base import Condition, conditions_of
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.noise import Float32, SampleKey
from gensdk_runtime.programs.run import Run, State
from gensdk_runtime.spec.kinds import PROGRAMS, ProgramSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import settings_under
from gensdk_runtime.spec.settings import SETTINGS, ProgramSettings, register_settings
from gensdk_runtime.spec.signature import GraphSpec

if TYPE_CHECKING:
    from gensdk_runtime.outputs.base import Output

SettingsT = TypeVar("SettingsT", bound=ProgramSettings)
Int64 = NDArray[np.int64]
Shape = tuple[int | str, ...]


WITH_LATENTS = frozenset(("latents", "interpolate", "walk", "traverse", "arithmetic"))
"""What a generator can do with a model that starts from a latent."""


class Judged(NamedTuple):
    """Samples whose likelihood is asked for: what is fed of them, by name, [n, ...], and how many dimensions each
    has, [n]. `elements`: what the graph makes at most of one on its way; 0: not more than its inputs."""

    feeds: Mapping[str, NDArray[Any]]
    dimensions: NDArray[np.int64]
    elements: int = 0


class Program(ABC, Generic[SettingsT]):
    """A program over the sessions of one model. Holds no state between batches, so threads may share it.

    `Spec` is what a manifest says of it. `Settings` declares its options: arguments of :meth:`Generator.sample`
    beyond those that all programs share.
    """

    Spec: ClassVar[type[ProgramSpec]]
    Settings: ClassVar[type[ProgramSettings]]
    ends: ClassVar[bool] = False
    """Whether a sample may end before the end of its array, so that ``run.lengths`` tells how long it is."""
    starts: ClassVar[bool] = False
    """Whether samples may start from images, in ``run.conditions["image"]``, of which what
    ``run.conditions["mask_image"]`` leaves out is kept."""
    continues: ClassVar[bool] = False
    """Whether this form of the program goes on from the beginnings in ``run.conditions["prefix"]``."""

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session]) -> None:
        self.model = model
        self.sessions = sessions
        self.conditions = conditions_of(model)
        self.check()

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """What a generator can do with the graphs of `model` beyond ``sample()``: names of its methods."""
        return frozenset()

    @abstractmethod
    def check(self) -> None:
        """Raises :class:`ManifestError` unless the graphs have the tensors that the program needs."""

    @property
    def defaults(self) -> SettingsT:
        """The bundle's settings, which hold where the caller says nothing."""
        own: Any = getattr(self.model.program, "defaults", None)
        return cast(SettingsT, self.Settings() if own is None else own)

    def resolve(self, options: Mapping[str, Any], *, others: Iterable[str] = ()) -> SettingsT:
        """The full settings for the options that the caller gave, where None is left to the bundle.

        Raises :class:`InputError` for an option that the program does not have (the nearest match may be one of
        `others`, which the caller takes too), a bad value, and settings that the model can't run with.
        """
        return self.fit(settings_under(self.defaults, options, others=others), options)

    def fit(self, settings: SettingsT, options: Mapping[str, Any]) -> SettingsT:
        """`settings`, made of the caller's `options`, as this model runs with them; :class:`InputError` where it
        can't."""
        return settings

    def starting(self, settings: SettingsT, *, given: bool) -> SettingsT:
        """`settings` for samples that start from images, where those are `given`; :class:`InputError` where they
        don't go with that."""
        return settings

    def describe(self, settings: SettingsT) -> dict[str, Any]:
        """The settings as plain JSON values, for the record in results and files."""
        return settings.model_dump()

    def covers(self, settings: SettingsT, *, listening: bool) -> bool:
        """True if this form of the program can run with `settings`, and report its steps where `listening`."""
        return True

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample's first latent, or None for a program that has none."""
        return None

    @property
    def uniform_latent(self) -> bool:
        """True if the latent is uniform on [0, 1), not normal."""
        return False

    def latents(self, keys: Sequence[SampleKey]) -> Float32 | None:
        """The first latents [len(keys), ...] as :meth:`run` draws them; None for a program that has none."""
        draw = noise.uniform if self.uniform_latent else noise.normal
        return None if self.latent_shape is None else draw(keys, noise.LATENT_STREAM, self.latent_shape)

    @property
    def starts_encoded(self) -> bool:
        """True if the images that samples start from are latents that :meth:`encode` makes of them."""
        return False

    @property
    def encoder_conditions(self) -> tuple[str, ...] | None:
        """The kinds of conditions that its encoder wants beside images; None for a program without an encoder."""
        return None

    def encode(self, run: Run) -> None:
        """Fills the run with latents [count, ...] of its sources, images float32 [len(run), C, H, W]."""
        raise NotImplementedError

    def prefix(self, given: Any, output: Output[Any]) -> NDArray[Any]:
        """The beginnings of samples [m, ...] that the caller gave, checked, as :meth:`run` takes them; `output`:
        what works with the samples.

        Raises :class:`InputError` where they don't fit, and for a program whose samples have no beginning.
        """
        raise InputError(f"model {self.model.name!r} makes its samples as a whole; leave prefix out")

    @property
    def makes_uint8(self) -> bool:
        """True if it can fill ``run.data`` with bytes."""
        return False

    @classmethod
    def null(cls, model: ModelSpec, kind: str) -> Any | None:
        """The value of this kind of condition that means "not asked for", where the model knows one."""
        return None

    def to_judge(self, output: Output[Any], values: Any, lengths: Any) -> Judged:
        """What :meth:`log_likelihood` is given for samples that a caller hands back, of which `lengths` count, or
        None: all.

        Raises :class:`InputError` where they don't fit, and for a program that knows no likelihood.
        """
        raise InputError(
            f"log_likelihood needs an autoregressive model; {self.model.name!r} is {self.model.program.kind}"
        )

    def log_likelihood(self, run: Run) -> None:
        """Fills the run with nats [count] of what :meth:`to_judge` gave, under ``run.conditions``."""
        raise NotImplementedError

    def run_timed(self, run: Run, settings: SettingsT) -> None:
        """:meth:`run`, and notes how long it took in ``run.seconds``."""
        start = perf_counter()
        self.run(run, settings)
        run.seconds = perf_counter() - start

    def run(self, run: Run, settings: SettingsT) -> None:
        """Fills ``run.data``. Ends early where ``run.end_step`` returns True."""
        with self.begin(run, settings) as state:
            state.complete()

    @abstractmethod
    def begin(self, run: Run, settings: SettingsT) -> State:
        """The batch before its first step."""


ProgramT = TypeVar("ProgramT", bound=type[Program[Any]])


def register_program(program: ProgramT) -> ProgramT:
    """Makes a class the program of the models whose manifest names the kind of its `Spec`."""
    PROGRAMS.register(program.Spec)
    PROGRAMS.register_class(program.Spec, program)
    kind = program.Spec.model_fields["kind"].default
    if SETTINGS.get(kind) is not program.Settings:
        register_settings(kind)(program.Settings)
    return program


@dataclass(frozen=True)
class Wanted:
    """A tensor as a program needs it; `shape` None: any."""

    shape: Shape | None
    dtype: str = "float32"


def require_signature(
    graph: GraphSpec, inputs: Mapping[str, Wanted], outputs: Mapping[str, Wanted], *, states: bool = False
) -> None:
    """Raises :class:`ManifestError` unless the graph has just these inputs, and these outputs.

    `states`: inputs of role "state" beyond those are fine where they start with the batch and come back.
    """
    for kind, wanted, specs in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        known = {spec.name: spec for spec in specs}
        for name, want in wanted.items():
            spec = known.get(name)
            if spec is None:
                raise ManifestError(
                    f"graph {graph.name!r} has no {kind} {name!r}, which its program needs; it has "
                    f"{', '.join(sorted(known))}; export the bundle again"
                )
            if spec.dtype != want.dtype or (want.shape is not None and spec.shape != want.shape):
                raise ManifestError(
                    f"graph {graph.name!r} does not fit its program: expected {kind} {name!r} as {want.dtype} "
                    f"{list(want.shape or ())}, got {spec.dtype} {list(spec.shape)}; export the bundle again"
                )
    held = carried_states(graph) if states else {}
    for spec in graph.inputs:
        if spec.name not in inputs and f"next_{spec.name}" not in held:
            raise ManifestError(
                f"graph {graph.name!r} has an input {spec.name!r} of role {spec.role!r}, which this gensdk does "
                "not feed; upgrade gensdk"
            )


def carried_states(graph: GraphSpec) -> dict[str, str]:
    """Output to input of every state ``x`` that comes back as ``next_x`` in the same shape."""
    carry = {}
    for spec in graph.inputs:
        back = graph.output(f"next_{spec.name}")
        same = back is not None and back.shape == spec.shape and back.dtype == spec.dtype
        if spec.role == "state" and same and "batch" in spec.shape:
            carry[f"next_{spec.name}"] = spec.name
    return carry


def conditions_wanted(
    conditions: Sequence[Condition[Any]], graph: GraphSpec, *axes: int | str
) -> dict[str, Wanted]:
    """The inputs that take conditions, for those that the graph has one for; `axes` come before a row's own."""
    return {
        condition.tensor: Wanted((*axes, *condition.row_shape), condition.dtype)
        for condition in conditions
        if graph.input(condition.tensor) is not None
    }


def write_conditions(conditions: Sequence[Condition[Any]], bound: Bound, run: Run) -> None:
    """Writes what the samples are asked to be into the inputs that the graph has for it."""
    for condition in conditions:
        values = run.conditions.get(condition.kind)
        if values is not None:
            condition.write(bound, values)


def condition_inputs(
    conditions: Sequence[Condition[Any]], bound: Bound, values: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The same by the names of these inputs, of conditions whose `values` [n, ...] are given by kind."""
    made = {}
    for condition in conditions:
        spec = bound.session.graph.input(condition.tensor)
        if spec is not None and condition.kind in values:
            made[spec.name] = np.empty(bound.shape(spec.name), spec.dtype)
            condition.fill(made[spec.name], values[condition.kind])
    return made


def image_input(graph: GraphSpec) -> str:
    """What a graph that judges images calls them: ``image``, and in bundles of older versions ``images``."""
    return "image" if graph.input("image") is not None else "images"


def run_images(session: Session, output: str, run: Run) -> None:
    """Fills the run with one output of a graph that takes its images, and what else is given if it wants that."""
    feeds = {kind: values for kind, values in run.conditions.items() if session.graph.input(kind) is not None}
    feeds[image_input(session.graph)] = run.conditions["image"]
    start = perf_counter()
    found = session.run(feeds)[output]
    run.graph_seconds += perf_counter() - start
    run.finish(found)


def fixed_shape(graph: GraphSpec, name: str) -> tuple[int, ...]:
    """The shape of input `name` without its batch axis; :class:`ManifestError` where another is dynamic."""
    spec = graph.require_input(name)
    sizes = [axis for axis in spec.shape if axis != "batch"]
    if any(isinstance(axis, str) for axis in sizes):
        raise ManifestError(
            f"input {name!r} of graph {graph.name!r} has dynamic axes besides the batch: {list(spec.shape)}; "
            "export the bundle again"
        )
    return tuple(int(axis) for axis in sizes)
