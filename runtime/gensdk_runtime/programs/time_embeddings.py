"""Time-step embeddings, computed once: applications sample with the same time steps again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gensdk_runtime.backends.base import Session
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.noise import Float32

MAX_KEPT_BYTES = 64 * 2**20
"""Of all embeddings that wait for the next call; the longest unused ones are forgotten."""

_Key = tuple[str, float, tuple[int, ...]]
_SequenceKey = tuple[str, tuple[float, ...], tuple[int, ...]]


class TimeEmbeddings:
    """The outputs of one embedding graph (see :class:`DiffusionSpec`), kept by time step and labels.

    Threads may share it. Two that miss the same one at once both compute it, and get the same.
    """

    def __init__(self, session: Session, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, Float32] = OrderedDict()
        self._bytes = 0
        self._last: tuple[_SequenceKey, Sequence[Float32]] | None = None
        self._lock = new_lock()

    def sequence(self, timesteps: tuple[float, ...], labels: tuple[int, ...] = ()) -> Sequence[Float32]:
        """:meth:`rows` of each time step; the last sequence is found again at once."""
        key, last = (self._session.backend, timesteps, labels), self._last
        if last is not None and last[0] == key:
            return last[1]
        found = tuple(self.rows(timestep, labels) for timestep in timesteps)
        self._last = key, found
        return found

    def rows(self, timestep: float, labels: tuple[int, ...] = ()) -> Float32:
        """Read-only float32 [L, F], a row for each of `labels`; [1, F] for a model without classes."""
        key = (self._session.backend, timestep, labels)  # a session may go over to another backend
        with self._lock:
            rows = self._kept.get(key)
            if rows is not None:
                self._kept.move_to_end(key)
                return rows
        rows = self._compute(timestep, labels)
        rows.setflags(write=False)
        self._keep(key, rows)
        return rows

    def _compute(self, timestep: float, labels: tuple[int, ...]) -> Float32:
        """Labels are padded to a power of two: a backend with static shapes meets few of them."""
        size = 1 << (len(labels) - 1).bit_length() if labels else 1
        with self._session.bound({"labels": size} if labels else {}) as bound:
            bound.input("timestep")[0] = timestep
            if labels:
                bound.input("label")[...] = labels + labels[-1:] * (size - len(labels))
            bound.run()
            rows: Float32 = bound.output("embedding")[: max(1, len(labels))].copy()
        return rows

    def _keep(self, key: _Key, rows: Float32) -> None:
        with self._lock:
            if key in self._kept or rows.nbytes > self._max_bytes:
                return
            self._kept[key] = rows
            self._bytes += rows.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
