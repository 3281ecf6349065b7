"""The contract of a program: a loop over graphs that turns noise into images, one batch at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Array, Feeds, Session
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.manifest import GraphSpec, ModelSpec
from gensdk_runtime.noise import Float32, SampleKey

SettingsT = TypeVar("SettingsT")
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class StepEnd:
    """What ``callback_on_step_end`` gets: step `step` of `num_steps` has ended for these samples.

    `timestep` is the model's time step (a row for autoregressive models); `first` is the place of the first of
    the `count` samples; `x0` is the present estimate of the images, float32 [count, C, H, W].
    """

    step: int
    num_steps: int
    timestep: int
    first: int
    count: int
    x0: Float32


@dataclass
class Run:
    """One batch on its way: what it depends on, and the clock of its graph calls. Belongs to one thread."""

    keys: tuple[SampleKey, ...]
    labels: Int64 | None = None
    latents: Float32 | None = None
    first: int = 0
    on_step_end: Callable[[StepEnd], bool] | None = None
    on_progress: Callable[[float], None] | None = None
    graph_seconds: float = 0.0
    stopped: bool = field(default=False)

    def __len__(self) -> int:
        return len(self.keys)

    def call(self, session: Session, feeds: Feeds) -> dict[str, Array]:
        """Runs a graph and adds its time to :attr:`graph_seconds`.

        Raises :class:`ManifestError` where the graph's signature does not fit the program's `feeds`: what
        callers pass was checked before.
        """
        start = perf_counter()
        try:
            outputs = session.run(feeds)
        except InputError as failure:
            raise ManifestError(
                f"the graph does not fit its program: {failure}; export the bundle again"
            ) from None
        self.graph_seconds += perf_counter() - start
        return outputs

    def end_step(self, step: int, num_steps: int, timestep: int, x0: Float32) -> bool:
        """Reports a finished step; True when the caller wants to stop here."""
        if self.on_progress is not None:
            self.on_progress((step + 1) / num_steps)
        if self.on_step_end is not None:
            info = StepEnd(step, num_steps, timestep, self.first, len(self), x0.copy())
            self.stopped = bool(self.on_step_end(info))
        return self.stopped

    def latent(self, shape: tuple[int, ...]) -> Float32:
        """The latents that the caller gave, or standard normal noise [len(self), *shape]."""
        if self.latents is None:
            return noise.normal(self.keys, noise.LATENT_STREAM, shape)
        return self.latents


class Program(ABC, Generic[SettingsT]):
    """A program over the sessions of one model. Holds no state between batches, so threads may share it.

    `options` are the arguments of :meth:`Generator.sample` that it understands beyond those all share.
    """

    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: ModelSpec, sessions: Mapping[str, Session]) -> None:
        self.model = model
        self.sessions = sessions
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raises :class:`ManifestError` unless the graphs have the tensors that the program needs."""

    @abstractmethod
    def resolve(self, options: Mapping[str, Any]) -> SettingsT:
        """The full settings for the options that the caller gave; :class:`InputError` for a bad value."""

    @abstractmethod
    def describe(self, settings: SettingsT) -> dict[str, Any]:
        """The settings as plain JSON values, for the record in results and files."""

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample's first latent, or None for a program that has none."""
        return None

    @property
    def null_label(self) -> int | None:
        """The label that means "no class", where the model knows one."""
        return None

    @abstractmethod
    def run(self, run: Run, settings: SettingsT) -> Float32:
        """Images float32 [len(run), C, H, W]. Ends early where ``run.end_step`` returns True."""


def require_tensors(graph: GraphSpec, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Raises :class:`ManifestError` unless the graph has these `inputs` and `outputs`."""
    for kind, names, specs in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        known = {spec.name for spec in specs}
        for name in names:
            if name not in known:
                raise ManifestError(
                    f"graph {graph.name!r} has no {kind} {name!r}, which its program needs; it has "
                    f"{', '.join(sorted(known))}; export the bundle again"
                )


def label_feeds(graph: GraphSpec, run: Run) -> dict[str, Array]:
    """The label input int64 [B], for a graph that has one."""
    if graph.input("label") is None:
        return {}
    if run.labels is None:
        raise InputError(f"graph {graph.name!r} needs a label for each sample")
    return {"label": run.labels}


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
