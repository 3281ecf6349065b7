"""The contract of a program: a loop over graphs that turns noise into images or points, one batch at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.errors import ManifestError
from gensdk_runtime.noise import Float32, SampleKey
from gensdk_runtime.spec.manifest import ModelSpec
from gensdk_runtime.spec.signature import GraphSpec

SettingsT = TypeVar("SettingsT")
Int64 = NDArray[np.int64]
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class StepEnd:
    """What ``callback_on_step_end`` gets: step `step` of `num_steps` has ended for these samples.

    `timestep` is the model's time step, an int where it is whole (a row for autoregressive models); `first` is the
    place of the first of the `count` samples; `x0` is the present estimate of the images, float32 [count, C, H, W], or points [count, D];
    `objective`, of a model that optimizes its input, is what each sample's objective was before this step, float32
    [count].
    """

    step: int
    num_steps: int
    timestep: float
    first: int
    count: int
    x0: Float32
    objective: Float32 | None = None


StepCallback = Callable[[StepEnd], object]
"""Hears of each step; what it returns ends the run where it is true, and may be None."""


@dataclass
class Run:
    """One batch on its way: what it depends on, and the clock of its graph calls. Belongs to one thread.

    The graphs run a batch of len(run) samples, of which the first len(`images`) are wanted: a batch may be padded
    to a size that the backend is fast at; `size` tells it where no `keys` do, since nothing is drawn. `images`
    takes the result: float32 [count, C, H, W] or points [count, D], or uint8 [count, H, W, C] for a program that
    :attr:`Program.makes_uint8`; of another task what that makes. `sources`, for a translation
    model: uint8 [len(run), H, W, C] or float32 [len(run), C, H, W].
    """

    keys: tuple[SampleKey, ...]
    images: NDArray[Any]
    labels: Int64 | None = None
    latents: Float32 | None = None
    sources: NDArray[Any] | None = None
    first: int = 0
    on_step_end: StepCallback | None = None
    on_progress: Callable[[float], None] | None = None
    graph_seconds: float = 0.0
    seconds: float = 0.0
    stopped: bool = field(default=False)
    size: int = 0

    def __len__(self) -> int:
        return self.size or len(self.keys)

    def halved(self) -> list[Run]:
        """The same work as two batches, without what this one was padded with."""
        count = len(self.images)
        middle = (count + 1) // 2
        return [self._part(slice(0, middle)), self._part(slice(middle, count))]

    def _part(self, some: slice) -> Run:
        images = self.images[some]
        return Run(
            keys=self.keys[some],
            images=images,
            labels=None if self.labels is None else self.labels[some],
            latents=None if self.latents is None else self.latents[some],
            sources=None if self.sources is None else self.sources[some],
            first=self.first + some.start,
            on_step_end=self.on_step_end,
            size=len(images),
        )

    def timed(self, bound: Bound) -> None:
        """Runs a graph and adds its time to :attr:`graph_seconds`."""
        start = perf_counter()
        bound.run()
        self.graph_seconds += perf_counter() - start

    @property
    def watched(self) -> bool:
        """True if a callback listens to steps."""
        return self.on_step_end is not None or self.on_progress is not None

    def end_step(
        self,
        step: int,
        num_steps: int,
        timestep: float,
        x0: Callable[[], Float32],
        *,
        objective: Float32 | None = None,
    ) -> bool:
        """Reports a finished step; True when the caller wants to stop here. `x0` is asked only if one listens."""
        if self.on_progress is not None:
            self.on_progress((step + 1) / num_steps)
        if self.on_step_end is not None:
            count = len(self.images)
            height = None if objective is None else objective[:count].copy()
            info = StepEnd(step, num_steps, timestep, self.first, count, x0()[:count].copy(), height)
            self.stopped = bool(self.on_step_end(info))
        return self.stopped

    def finish(self, images: NDArray[Any]) -> None:
        """Keeps the result [len(run), ...] without what it was padded with."""
        np.copyto(self.images, images[: len(self.images)])

    def latent(self, out: Float32) -> None:
        """Writes the latents that the caller gave, or standard normal noise, into `out` [len(self), ...]."""
        if self.latents is None:
            noise.normal(self.keys, noise.LATENT_STREAM, out.shape[1:], out=out)
        else:
            np.copyto(out, self.latents)


WITH_LATENTS = frozenset(("latents", "interpolate", "walk", "traverse", "arithmetic"))
"""What a generator can do with a model that starts from a latent."""


class Program(ABC, Generic[SettingsT]):
    """A program over the sessions of one model. Holds no state between batches, so threads may share it.

    `options` are the arguments of :meth:`Generator.sample` that it understands beyond those all share.
    """

    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session]) -> None:
        self.model = model
        self.sessions = sessions
        self.check()

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """What a generator can do with the graphs of `model` beyond ``sample()``: names of its methods."""
        return frozenset()

    @abstractmethod
    def check(self) -> None:
        """Raises :class:`ManifestError` unless the graphs have the tensors that the program needs."""

    @abstractmethod
    def resolve(self, options: Mapping[str, Any]) -> SettingsT:
        """The full settings for the options that the caller gave; :class:`InputError` for a bad value."""

    @abstractmethod
    def describe(self, settings: SettingsT) -> dict[str, Any]:
        """The settings as plain JSON values, for the record in results and files."""

    def covers(self, settings: SettingsT, *, listening: bool) -> bool:
        """Whether this form of the program can run with `settings`, and tell a listener of each step."""
        return True

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample's first latent, or None for a program that has none."""
        return None

    @property
    def uniform_latent(self) -> bool:
        """Whether the latent is uniform on [0, 1), not normal."""
        return False

    def latents(self, keys: Sequence[SampleKey]) -> Float32 | None:
        """The first latents [len(keys), ...] as :meth:`run` draws them; None for a program that has none."""
        draw = noise.uniform if self.uniform_latent else noise.normal
        return None if self.latent_shape is None else draw(keys, noise.LATENT_STREAM, self.latent_shape)

    @property
    def makes_uint8(self) -> bool:
        """Whether it can fill ``run.images`` with bytes."""
        return False

    @property
    def null_label(self) -> int | None:
        """The label that means "no class", where the model knows one."""
        return None

    def run_timed(self, run: Run, settings: SettingsT) -> None:
        """:meth:`run`, and notes how long it took in ``run.seconds``."""
        start = perf_counter()
        self.run(run, settings)
        run.seconds = perf_counter() - start

    @abstractmethod
    def run(self, run: Run, settings: SettingsT) -> None:
        """Fills ``run.images``. Ends early where ``run.end_step`` returns True."""


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
    """Output to input of every state ``x`` that comes back as ``next_x`` in the same shape, the batch first."""
    carry = {}
    for spec in graph.inputs:
        back = graph.output(f"next_{spec.name}")
        same = back is not None and back.shape == spec.shape and back.dtype == spec.dtype
        if spec.role == "state" and same and spec.shape[:1] == ("batch",):
            carry[f"next_{spec.name}"] = spec.name
    return carry


def label_wanted(model: ModelSpec, graph: GraphSpec, *shape: str) -> dict[str, Wanted]:
    """The label input, for a graph that has one."""
    if graph.input("label") is None:
        return {}
    if model.num_classes is None:
        raise ManifestError(f"graph {graph.name!r} needs a label, but the model has no classes; export again")
    return {"label": Wanted(shape, "int64")}


def write_label(bound: Bound, run: Run) -> None:
    """Writes the label input int64 [B], where the graph has one."""
    if bound.session.graph.input("label") is not None and run.labels is not None:
        np.copyto(bound.input("label"), run.labels)


def run_images(session: Session, output: str, run: Run) -> None:
    """Fills the run with one output of a graph that takes its sources as ``images``, and its label if it wants
    one."""
    feeds: dict[str, Any] = {"images": run.sources}
    if session.graph.input("label") is not None and run.labels is not None:
        feeds["label"] = run.labels
    start = perf_counter()
    found = session.run(feeds)[output]
    run.graph_seconds += perf_counter() - start
    run.finish(found)


def fixed_shape(graph: GraphSpec, name: str) -> tuple[int, ...]:
    """The shape of input `name` without its batch axis; :class:`ManifestError` where another is dynamic."""
    spec = graph.input(name)
    if spec is None:
        raise ManifestError(f"graph {graph.name!r} has no input {name!r}; export the bundle again")
    sizes = [axis for axis in spec.shape if axis != "batch"]
    if any(isinstance(axis, str) for axis in sizes):
        raise ManifestError(
            f"input {name!r} of graph {graph.name!r} has dynamic axes besides the batch: {list(spec.shape)}; "
            "export the bundle again"
        )
    return tuple(int(axis) for axis in sizes)
