"""Starts on one backend, and changes over to another when that is ready: no waiting for engines to be built.

``backend="tensorrt:background"`` samples on ONNX Runtime while TensorRT builds. A model's graphs change over one
after another, and a loop over a graph ends on the backend that it began on. Both give the same samples up to
rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session
from gensdk_runtime.backends.bound import Array, Bound, Carry, Sizes
from gensdk_runtime.backends.tensorrt.source import HeldSource
from gensdk_runtime.errors import BackendError, GensdkError, tell
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec


class BackgroundBackend(Backend):
    """Opens graphs on `now`, and on what `later` makes in a thread beside, one graph after another.

    `later` is called there, so that a slow import delays nothing. If it fails, the next use warns (or the end,
    where there is none), the graphs stay on `now`, and samples say so under ``fallback`` in their settings.
    """

    name = "background"

    def __init__(self, now: Backend, later: Callable[[], Backend], *, label: str = "") -> None:
        self._now = now
        self._later = later
        self._label = label
        self._backend: Backend | None = None
        self._turn = new_lock()

    @classmethod
    def availability(cls) -> Availability:
        """Always available: the two backends that it is made of say for themselves what is missing."""
        return Availability(True)

    @property
    def label(self) -> str:
        """The name it was made with, as in ``tensorrt:background``; :attr:`Session.backend` is the one that runs
        now."""
        return self._label or f"{self._now.label}, then another"

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> BackgroundSession:
        """A session that runs at once. Raises :class:`BackendError` where `now` can't open the graph."""
        first = self._now.open(graph, source, precision=precision)
        held = HeldSource.of(source)
        return BackgroundSession(first, lambda: self._open_later(graph, held, precision))

    def _open_later(self, graph: GraphSpec, source: GraphSource, precision: Precision) -> Session:
        with self._turn:  # builders side by side would only slow each other down
            if self._backend is None:
                self._backend = self._later()
            session = self._backend.open(graph, source, precision=precision)
            session.load()  # here, and not in the first run
            return session


class BackgroundSession(Session):
    """A session on the first backend, then on the second; `backend` says which one it is."""

    survives_fork = False

    def __init__(self, first: Session, open_second: Callable[[], Session]) -> None:
        super().__init__(first.graph, backend=first.backend, precision=first.precision)
        self._current = first
        self._users: dict[int, int] = {}  # of each session, by id
        self._retired: Session | None = None
        self._failure: GensdkError | None = None
        self._served = False
        self._changing = new_lock()
        self._settled = threading.Event()
        # A daemon: the end of the program does not wait for an engine that nobody will use.
        threading.Thread(target=self._change_over, args=(open_second,), daemon=True, name="gensdk-engine").start()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits at most `timeout` seconds until the second backend is ready or has failed; True if that is so."""
        return self._settled.wait(timeout)

    def lend(self, sizes: Sizes, carry: Carry | None = None) -> Bound:
        """As :meth:`Session.lend`, on the backend that is current, to the end."""
        session = self._take()
        try:
            return session.lend(sizes, carry)
        except BaseException:
            self._release(session)
            raise

    def give_back(self, bound: Bound, *, broken: bool = False) -> None:
        """To the session that lent it."""
        try:
            bound.session.give_back(bound, broken=broken)
        finally:
            self._release(bound.session)

    def largest(self, axis: str, sizes: Sizes) -> int | None:
        """Of the one that is current."""
        return self._current.largest(axis, sizes)

    def padded_batch(self, count: int) -> int:
        """Of the one that is current."""
        return self._current.padded_batch(count)

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        session = self._take()
        try:
            return session.run(feeds)
        finally:
            self._release(session)

    def _take(self) -> Session:
        """The session that is current, which is not closed until it is released."""
        failure, self._failure = self._failure, None
        if failure is not None:
            tell(self._stays(failure))
        with self._changing:
            if self.closed:
                raise self.closed_error()
            session, self._served = self._current, True
            self._users[id(session)] = self._users.get(id(session), 0) + 1
            return session

    def _release(self, session: Session) -> None:
        with self._changing:
            self._users[id(session)] -= 1
            done = self._take_retired()
        if done is not None:
            done.close()

    def _change_over(self, open_second: Callable[[], Session]) -> None:
        second: Session | None = None
        failure: GensdkError | None = None
        try:
            if not self.closed:
                second = open_second()
        except GensdkError as known:
            failure = known
        except Exception as unknown:  # nobody would see it in this thread
            failure = BackendError(f"{type(unknown).__name__}: {unknown}")
        with self._changing:
            self._failure = failure
            self.fallback = "" if failure is None else self._stays(failure)
            if second is not None and not self.closed:
                self._retired, self._current = self._current, second
                self.backend, second = second.backend, None
            done = self._take_retired()
        for session in (second, done):
            if session is not None:
                session.close()
        self._settled.set()

    def _stays(self, failure: GensdkError) -> str:
        return printable(f"graph {self.graph.name!r} stays on {self.backend}: {failure}")

    def _take_retired(self) -> Session | None:
        """The first session, once it is not used any more."""
        if self._retired is None or self._users.get(id(self._retired), 0):
            return None
        session, self._retired = self._retired, None
        return session

    def _close(self) -> None:
        with self._changing:
            sessions = [self._current, *([self._retired] if self._retired is not None else [])]
            self._retired = None
            failure, self._failure = self._failure, None
        for session in sessions:
            session.close()
        if failure is not None and self._served:  # since the last use
            tell(self._stays(failure))
