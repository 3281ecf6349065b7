"""The order of the data, as a function of the seed alone, so that no state has to be saved.

Epoch after epoch of permutations makes one endless stream of indices. Each is drawn by NumPy's Philox, keyed
by (seed, epoch), so any part of the stream is found without going through what came before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ORDER_STREAM = 1 << 63
"""Keeps the keys apart from those of the runtime's noise."""


def permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `count` items in one epoch: int64 [count]."""
    key = np.array([seed, _ORDER_STREAM | epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count).astype(np.int64)


class DataOrder:
    """The endless stream of indices for `count` items and a `seed` in 0 .. 2**63 - 1."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def indices(self, first: int, number: int) -> NDArray[np.int64]:
        """The `number` indices from position `first` of the stream on: int64 [number]."""
        parts: list[NDArray[np.int64]] = []
        while number > 0:
            epoch, start = divmod(first, self.count)
            part = self._epoch(epoch)[start : start + number]
            parts.append(part)
            first += len(part)
            number -= len(part)
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            self._epochs = {e: order for e, order in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = permutation(self.count, self.seed, epoch)
        return self._epochs[epoch]
