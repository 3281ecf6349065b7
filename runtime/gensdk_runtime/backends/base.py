"""The contract of a backend: what executes one graph.

The base class owns the checks and the life cycle; a backend fills in `_run` and `_close`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from gensdk_runtime.backends.bound import Array, Bound, Carry, CopyingBound, Sizes
from gensdk_runtime.backends.chain import PACKAGE, Chain, Link
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.host.closable import Closable
from gensdk_runtime.host.forking import abandon, new_lock, renew_in_children
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

Feeds = Mapping[str, Array]
_BoundKey = tuple[tuple[tuple[str, int], ...], tuple[tuple[str, str], ...]]

MAX_IDLE_BOUND = 8
"""Buffers of so many sizes and callers wait in a session for the next run; older ones are freed."""


class GraphSource(Protocol):
    """Gives the file of one graph in one precision to a backend."""

    @property
    def path(self) -> Path | None:
        """The checked file on disk where the graph has tensors in other files beside it; else None."""

    def read(self) -> bytes:
        """The checked bytes of a graph that is whole in itself, that is, where :attr:`path` is None."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here. If not, `reason` says why and `remedy` how to mend it.

    `devices` are the providers that can follow its name; `missing` gives, for the others, reason and remedy.
    """

    available: bool
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)


class Session(Closable):
    """One graph, ready to run. Safe to call from several threads at once."""

    survives_fork: ClassVar[bool] = True
    """Whether a forked child can go on with it: not where it holds native threads, locks or a GPU."""
    idle_bytes: int | None = None
    """Bytes that buffers waiting for their next run may hold together (:attr:`Bound.nbytes`), of any number, where
    making them costs much; None: MAX_IDLE_BOUND of them, of any size."""

    fallback: str = ""
    """Where the graph runs on another backend than was asked for: that, and why."""

    waits: ClassVar[bool] = True
    """Whether a bound run returns when it is over; otherwise once it is queued on a device."""

    def __init__(self, graph: GraphSpec, *, backend: str, precision: Precision) -> None:
        self.graph = graph
        self.backend = backend
        self.precision = precision
        self._closed = False
        self._idle: OrderedDict[int, tuple[_BoundKey, Bound]] = OrderedDict()
        self._idle_lock = new_lock()
        self._forked = False
        renew_in_children(self)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Runs the graph once.

        `feeds` gives every input of :attr:`graph` by name, in its dtype and shape (named axes: any one size).
        Returns every output by name, in the dtype and shape that :attr:`graph` gives it. Raises
        :class:`InputError` for feeds that do not fit and :class:`BackendError` where the backend fails, gives
        something else than the graph promises, or was closed.
        """
        if self._closed:
            raise self.closed_error()
        sizes = check_feeds(self.graph, feeds)
        outputs = self._run(feeds)
        check_outputs(self.graph, outputs, sizes)
        return outputs

    @contextmanager
    def bound(self, sizes: Sizes, carry: Carry | None = None) -> Iterator[Bound]:
        """:meth:`lend` and :meth:`give_back`."""
        bound = self.lend(sizes, carry)
        try:
            yield bound
        except BaseException:
            self.give_back(bound, broken=True)
            raise
        self.give_back(bound)

    def lend(self, sizes: Sizes, carry: Carry | None = None) -> Bound:
        """Lends the graph with buffers for these `sizes`; see :class:`Bound`.

        Buffers are kept for the next caller with the same sizes. Raises :class:`BackendError` where the backend
        can't make them, or was closed.
        """
        carry = carry or {}
        idle = self._take_idle((tuple(sizes.items()), tuple(carry.items())))
        if idle is not None:
            return idle
        if min(sizes.values(), default=0) < 0:
            raise BackendError(f"graph {self.graph.name!r}: expected sizes from 0 on, got {dict(sizes)}")
        return self._bind(sizes, carry)

    def give_back(self, bound: Bound, *, broken: bool = False) -> None:
        """Takes back what was lent; `broken` after a run that failed, which may have left it in any state."""
        if broken:
            bound.close()
            return
        with self._idle_lock:
            surplus = [bound] if self._closed else []
            if not self._closed:
                self._idle[id(bound)] = (tuple(bound.sizes.items()), tuple(bound.carry.items())), bound
            while self._keeps_too_much():
                surplus.append(self._idle.popitem(last=False)[1][1])
        for each in surplus:
            each.close()

    def _keeps_too_much(self) -> bool:
        """The last two stay, however large: of two threads each has one, call after call."""
        if self.idle_bytes is None:
            return len(self._idle) > MAX_IDLE_BOUND
        return len(self._idle) > 2 and sum(bound.nbytes for _, bound in self._idle.values()) > self.idle_bytes

    def free_idle(self) -> None:
        """Frees the buffers that wait for their next run."""
        with self._idle_lock:
            idle = [bound for _, bound in self._idle.values()]
            self._idle.clear()
        for bound in idle:
            bound.close()

    def load(self) -> None:
        """Does now what is otherwise done at the first run, such as building an engine.

        Raises :class:`BackendError` as that would.
        """

    def largest(self, axis: str, sizes: Sizes) -> int | None:
        """The largest size of a named `axis` that it takes where other axes have these `sizes`; None: any."""
        return None

    def padded_batch(self, count: int) -> int:
        """The batch that `count` samples are best run as: larger where each size has to be prepared for."""
        return count

    def _take_idle(self, key: _BoundKey) -> Bound | None:
        with self._idle_lock:
            if self._closed:
                raise self.closed_error()
            for number in reversed(self._idle):
                if self._idle[number][0] == key:
                    return self._idle.pop(number)[1]
            return None

    @property
    def closed(self) -> bool:
        """True if :meth:`close` was called."""
        return self._closed

    def closed_error(self) -> BackendError:
        """What running a closed session raises; another thread may close it in the middle of a run."""
        if self._forked:
            return BackendError(
                f"graph {self.graph.name!r} was opened before this process was forked; load the bundle again in it"
            )
        return BackendError(f"graph {self.graph.name!r} was closed; load the bundle again")

    def after_fork(self) -> None:
        """See :class:`gensdk_runtime.host.forking.Renewable`: what does not survive is closed, but never freed."""
        if not self.survives_fork and not self._closed:
            abandon(self)
            self._closed = self._forked = True

    def close(self) -> None:
        """Frees what the session holds; running it afterwards is an error. May be called twice."""
        with self._idle_lock:
            if self._closed:
                return
            self._closed = True
        self.free_idle()
        self._close()

    @abstractmethod
    def _run(self, feeds: Feeds) -> dict[str, Array]:
        """Runs checked feeds."""

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        """Makes buffers; a backend that can keep inputs and outputs bound overrides it."""
        return CopyingBound(self, sizes, carry)

    def _close(self) -> None:
        """Frees what the backend holds."""


class Backend(ABC):
    """Opens graphs as sessions. `name` is what users write, as in ``backend="onnxruntime:cuda"``."""

    name: ClassVar[str]
    padded: ClassVar[bool] = False
    """Whether each batch size has to be prepared for (static shapes), so that padding to a known one may pay."""

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Whether this backend can run here, found out without raising."""

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None, spinning: bool) -> Self:
        """An instance for an execution provider; a backend without providers takes None only.

        `threads` and `spinning` as in :func:`gensdk_runtime.backends.create_backend`; a backend to which they
        mean nothing ignores them.
        """
        if provider is not None:
            raise InputError(f"backend {cls.name!r} has no execution providers, got {provider!r}")
        return cls()

    @classmethod
    def check_here(cls, provider: str | None) -> None:
        """Refuses at once what :meth:`create` would refuse, for a backend that is made later, in a thread.

        Raises :class:`InputError` for a `provider` that is not known, and :class:`UnavailableError` for a package,
        a driver or a device that is missing. A backend whose `create` takes long says here what it can without.
        """
        cls.create(provider=provider, threads=None, spinning=False)

    @classmethod
    def chains(cls) -> dict[str, Chain]:
        """For each provider, or "" where there are none: what it needs, from the driver to the package."""
        found = cls.availability()
        link = Link(PACKAGE, found.available, f"{cls.name} {found.version}".strip())
        if not found.available:
            link = Link(PACKAGE, False, found.reason, found.remedy)
        return {"": Chain((link,))}

    def rounding(self) -> Backend | None:
        """This backend with less exact arithmetic (TF32) for the same graphs; None where it has no such thing.

        May raise :class:`UnavailableError` where it has, and it can't be used now.
        """
        return None

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

    `sizes`: the named axes as :func:`check_feeds` found them. A graph need not be what its manifest says: without
    this check, wrong outputs would cause errors later that blame the caller.
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
    """True if `array` has the shape of `spec`; named axes that are new are noted in `sizes`."""
    return len(array.shape) == len(spec.shape) and all(
        have == (want if isinstance(want, int) else sizes.setdefault(want, have))
        for want, have in zip(spec.shape, array.shape, strict=True)
    )
