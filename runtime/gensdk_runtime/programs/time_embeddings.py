"""Time-step embeddings, computed once: applications sample with the same time steps again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from gensdk_runtime.backends.base import Session
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.noise import Float32
from gensdk_runtime.spec.signature import MAX_ROWS, ROWS

MAX_KEPT_BYTES = 64 * 2**20
"""Of all embeddings that wait for the next call; the longest unused ones are forgotten."""
MAX_ELEMENTS = 2**22
"""Of the embeddings that one call of the graph makes."""

Timesteps = tuple[float, ...]
Labels = tuple[int, ...]
_Key = tuple[str, Timesteps, Labels]


class TimeEmbeddings:
    """The outputs of one embedding graph (see :class:`DiffusionSpec`), kept by time steps and labels.

    Threads may share it. Two that miss the same one at once both compute it, and get the same.
    """

    def __init__(self, session: Session, max_bytes: int = MAX_KEPT_BYTES) -> None:
        timestep = session.graph.input("timestep")
        self._session = session
        self._many = timestep is not None and timestep.shape == (ROWS,)
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, Float32] = OrderedDict()
        self._bytes = 0
        self._last: tuple[_Key, Sequence[Float32]] | None = None
        self._lock = new_lock()

    def sequence(self, timesteps: Timesteps, labels: Labels = ()) -> Sequence[Float32]:
        """For each time step read-only float32 [L, F], a row for each of `labels`; [1, F] for a model without
        classes. The last sequence is found again at once."""
        key, last = (self._session.backend, timesteps, labels), self._last  # a session may change its backend
        if last is not None and last[0] == key:
            return last[1]
        found: Sequence[Float32]
        if self._many:
            found = tuple(self._together(*key))
        else:
            found = tuple(self._one_step(key[0], timestep, labels) for timestep in timesteps)
        self._last = key, found
        return found

    def _together(self, backend: str, timesteps: Timesteps, labels: Labels) -> Float32:
        """[S, L, F]; each label is kept by itself, and those that are missing are made in one run."""
        alone: list[Labels] = [(label,) for label in labels] or [()]
        kept = {one: self._find((backend, timesteps, one)) for one in alone}
        missing = [one for one, column in kept.items() if column is None]
        together = self._compute(timesteps, missing) if missing else None
        if together is not None:
            for place, one in enumerate(missing):
                column = together[:, place]
                column = column.copy() if column.nbytes <= self._max_bytes else column
                kept[one] = self._keep((backend, timesteps, one), column)
        if len(missing) < len(alone) or together is None:
            together = np.stack([column for column in kept.values() if column is not None], axis=1)
        together.setflags(write=False)
        return together

    def _compute(self, timesteps: Timesteps, missing: Sequence[Labels]) -> Float32:
        """[S, M, F] for S time steps and each of M labels, or the one that is none.

        Rows are padded to a power of two: a backend with static shapes meets few of them. And to two at least: the
        product of a single row is summed up in another order, and what a sample gets must depend on no other.
        """
        times = np.repeat(np.array(timesteps), len(missing))
        labels = np.tile(np.array(missing, np.int64).reshape(-1), len(timesteps))
        size = self._session.graph.outputs[0].sample_elements
        step = max(2, min(MAX_ROWS, MAX_ELEMENTS // size))
        made = np.empty((len(times), size), np.float32)
        for first in range(0, len(times), step):
            count = min(step, len(times) - first)
            places = np.minimum(first + np.arange(max(2, 1 << (count - 1).bit_length())), len(times) - 1)
            with self._session.bound({ROWS: len(places)}) as bound:
                bound.input("timestep")[...] = times[places]
                if labels.size:
                    bound.input("label")[...] = labels[places]
                bound.run()
                made[first : first + count] = bound.output("embedding")[:count]
        return made.reshape(len(timesteps), len(missing), size)

    def _one_step(self, backend: str, timestep: float, labels: Labels) -> Float32:
        """[L, F], or [1, F], by a graph of the first contract, which takes one time step."""
        key = (backend, (timestep,), labels)
        rows = self._find(key)
        if rows is not None:
            return rows
        size = 1 << (len(labels) - 1).bit_length() if labels else 1
        with self._session.bound({"labels": size} if labels else {}) as bound:
            bound.input("timestep")[0] = timestep
            if labels:
                bound.input("label")[...] = labels + labels[-1:] * (size - len(labels))
            bound.run()
            return self._keep(key, bound.output("embedding")[: max(1, len(labels))].copy())

    def _find(self, key: _Key) -> Float32 | None:
        with self._lock:
            rows = self._kept.get(key)
            if rows is not None:
                self._kept.move_to_end(key)
            return rows

    def _keep(self, key: _Key, rows: Float32) -> Float32:
        rows.setflags(write=False)
        with self._lock:
            if key not in self._kept and rows.nbytes <= self._max_bytes:
                self._kept[key] = rows
                self._bytes += rows.nbytes
                while self._bytes > self._max_bytes:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return rows
