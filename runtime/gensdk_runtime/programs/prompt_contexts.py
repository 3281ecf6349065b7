"""What a diffusion model's context graph makes of texts: once for each distinct one, and kept for the next
call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from gensdk_runtime.backends.base import Session
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Int64

MAX_KEPT_BYTES = 64 * 2**20
"""Of all contexts that wait for the next call; the longest unused ones are forgotten."""

_Context = Mapping[str, Float32]


class PromptContexts:
    """The outputs of one context graph (see :class:`DiffusionSpec`), kept by texts.

    Texts go through the graph one by one: what a text becomes must depend on no other, to the last bit, and an
    encoder takes little beside the steps that follow. Threads may share it. Two that miss the same one at once
    both compute it, and get the same.
    """

    def __init__(self, session: Session, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, bytes], _Context] = OrderedDict()
        self._bytes = 0
        self._lock = new_lock()

    def of(self, prompts: Sequence[Int64]) -> dict[str, Float32]:
        """Contexts by name, float32 [K, ...], of K texts int64 [length], all of them different."""
        found = [self._one(prompt) for prompt in prompts]
        return {name: np.stack([each[name] for each in found]) for name in found[0]}

    def _one(self, prompt: Int64) -> _Context:
        key = self._session.backend, prompt.tobytes()  # a session may change its backend
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        made = {name: values[0] for name, values in self._session.run({"prompt": prompt[None]}).items()}
        size = _size(made)
        with self._lock:
            if key not in self._kept and size <= self._max_bytes:
                self._kept[key] = made
                self._bytes += size
                while self._bytes > self._max_bytes:
                    self._bytes -= _size(self._kept.popitem(last=False)[1])
        return made


def _size(context: _Context) -> int:
    return sum(values.nbytes for values in context.values())


def numbered(rows: Int64) -> tuple[list[Int64], Int64]:
    """Of rows [..., L], those that differ, in the order in which they come, and for each row the number of its
    equal, int64 [...]."""
    flat = rows.reshape(-1, rows.shape[-1])
    found: dict[bytes, int] = {}
    numbers = [found.setdefault(row.tobytes(), len(found)) for row in flat]
    first = {number: place for place, number in reversed(list(enumerate(numbers)))}
    distinct = [flat[first[number]] for number in range(len(found))]
    return distinct, np.array(numbers, np.int64).reshape(rows.shape[:-1])
