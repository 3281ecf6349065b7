"""The contract of a backend: what executes one graph.

The base class owns the checks and the life cycle; a backend fills in `_run` and `_close`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.manifest import GraphSpec, Precision, TensorSpec

Array = NDArray[Any]
Feeds = Mapping[str, Array]


class GraphSource(Protocol):
    """Where a backend gets the file of one graph in one precision from."""

    @property
    def path(self) -> Path | None:
        """The checked file on disk where the graph has tensors in other files beside it; else None."""

    def read(self) -> bytes:
        """The checked bytes of a graph that is whole in itself, that is, where :attr:`path` is None."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here; if not, `reason` says why and `remedy` what mends it."""

    available: bool
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""


class Session(ABC):
    """One graph, ready to run. Safe to call from several threads at once."""

    def __init__(self, graph: GraphSpec, *, backend: str, precision: Precision) -> None:
        self.graph = graph
        self.backend = backend
        self.precision = precision
        self._closed = False

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Runs the graph once.

        `feeds` gives every input of :attr:`graph` by name, in its dtype and shape (named axes: any one size).
        Returns every output by name, in the dtype and shape that :attr:`graph` gives it. Raises
        :class:`InputError` for feeds that do not fit and :class:`BackendError` where the backend fails, gives
        something else than the graph promises, or was closed.
        """
        if self._closed:
            raise self._closed_error()
        sizes = check_feeds(self.graph, feeds)
        outputs = self._run(feeds)
        check_outputs(self.graph, outputs, sizes)
        return outputs

    def _closed_error(self) -> BackendError:
        """For :meth:`_run` too: another thread may close the session in between."""
        return BackendError(f"graph {self.graph.name!r} was closed; load the bundle again")

    def close(self) -> None:
        """Frees what the session holds; running it afterwards is an error. May be called twice."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _run(self, feeds: Feeds) -> dict[str, Array]:
        """Runs checked feeds."""

    def _close(self) -> None:  # noqa: B027 - not every backend holds something
        """Frees what the backend holds."""


class Backend(ABC):
    """Opens graphs as sessions. `name` is what users write, as in ``backend="onnxruntime:cuda"``."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Whether this backend can run here, found out without raising."""

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None) -> Self:
        """An instance for an execution provider; a backend without providers takes None only."""
        if provider is not None:
            raise InputError(f"backend {cls.name!r} has no execution providers, got {provider!r}")
        return cls()

    @property
    def label(self) -> str:
        """What results and reports call it, with its execution provider."""
        return self.name

    @abstractmethod
    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """Loads one graph. Raises :class:`BackendError`, or UnavailableError with the remedy."""


def check_feeds(graph: GraphSpec, feeds: Feeds) -> dict[str, int]:
    """The size of each named axis in `feeds`.

    Raises :class:`InputError` unless `feeds` has exactly the graph's inputs in their dtypes and shapes.
    """
    sizes: dict[str, int] = {}
    for spec in graph.inputs:
        array = feeds.get(spec.name)
        if array is None:
            raise InputError(f"graph {graph.name!r} needs input {spec.name!r}; got {', '.join(feeds) or 'none'}")
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(f"{graph.name}.{spec.name}: expected dtype {spec.dtype}, got {array.dtype}")
        if not _fits(spec, array, sizes):
            wanted = ", ".join(str(axis) for axis in spec.shape)
            raise InputError(f"{graph.name}.{spec.name}: expected shape [{wanted}], got {list(array.shape)}")
    if len(feeds) != len(graph.inputs):
        extra = sorted(set(feeds) - {spec.name for spec in graph.inputs})
        raise InputError(f"graph {graph.name!r} has no input {extra[0]!r}")
    return sizes


def check_outputs(graph: GraphSpec, outputs: Mapping[str, Any], sizes: dict[str, int]) -> None:
    """Raises :class:`BackendError` unless `outputs` has the graph's outputs in their dtypes and shapes.

    `sizes`: the named axes as :func:`check_feeds` found them. A graph is not trusted to be what its manifest
    says: wrong outputs would come up later, as errors that blame the caller.
    """
    for spec in graph.outputs:
        array = outputs.get(spec.name)
        if not isinstance(array, np.ndarray):
            got = "none" if array is None else type(array).__name__
            raise BackendError(f"{graph.name}.{spec.name}: expected an array from the graph, got {got}")
        if array.dtype != np.dtype(spec.dtype) or not _fits(spec, array, sizes):
            wanted = ", ".join(str(sizes.get(str(axis), axis)) for axis in spec.shape)
            raise BackendError(
                f"{graph.name}.{spec.name}: expected {spec.dtype} [{wanted}] from the graph, got {array.dtype}"
                f" {list(array.shape)}; export the bundle again"
            )


def _fits(spec: TensorSpec, array: Array, sizes: dict[str, int]) -> bool:
    """Whether `array` has the shape of `spec`; named axes that are new are noted in `sizes`."""
    return len(array.shape) == len(spec.shape) and all(
        have == (want if isinstance(want, int) else sizes.setdefault(want, have))
        for want, have in zip(spec.shape, array.shape, strict=True)
    )
