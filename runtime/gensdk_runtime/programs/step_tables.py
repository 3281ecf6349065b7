"""What all steps of a batch are fed, on a device: it goes there once, not at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.backends.bound import Bound, Resident
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.guidance import Passes

MAX_BYTES = 2**26
"""Of the tables that are on the device at a time: of longer ones some steps at a time."""


class StepTables:
    """The rows that differ from step to step, and `fixed` inputs, which are the same in all steps.

    `bounds`: the graphs that take turns, all on one device; the first one keeps the tables. `rows`: of each step,
    as :class:`Steps` has them; `passes` and `embeddings` as for :class:`Cohort`.
    """

    def __init__(
        self,
        bounds: Sequence[Bound],
        rows: Mapping[str, Sequence[Any]],
        fixed: Mapping[str, NDArray[Any]],
        *,
        passes: Passes | None = None,
        embeddings: Sequence[Float32] | None = None,
    ) -> None:
        self._bounds, self._rows, self._fixed = bounds, rows, fixed
        self._passes, self._embeddings = passes, embeddings
        shapes = {spec.name: spec for spec in bounds[0].session.graph.inputs}
        names = [*rows, *(() if embeddings is None else ("embedding",))]
        self._names = names
        self._shapes = {name: bounds[0].shape(name) for name in names}
        self._dtypes = {name: np.dtype(shapes[name].dtype) for name in names}
        step = sum(int(np.prod(self._shapes[name])) * self._dtypes[name].itemsize for name in names)
        self._at_a_time = max(1, MAX_BYTES // max(1, step))
        self._steps = len(next(iter(rows.values())))
        self._first, self._end = 0, 0
        self._tables: Mapping[str, Resident] = {}

    @property
    def whole(self) -> bool:
        """True if all steps are on the device at once."""
        return (self._first, self._end) == (0, self._steps)

    def feed(self, bound: Bound, step: int) -> None:
        """Has `bound` read the rows of this step in its next run."""
        if not self._first <= step < self._end:
            self._upload(step)
        for name in self._names:
            bound.feed(name)[...] = self._tables[name][step - self._first]

    def _upload(self, first: int) -> None:
        """Takes the steps from `first` on to the device, and with the first of them what is fixed."""
        fresh = self._end == 0
        self._first, self._end = first, min(first + self._at_a_time, self._steps)
        made = {name: self._table(name) for name in self._names}
        self._tables = self._bounds[0].upload({**made, **(self._fixed if fresh else {})})
        for bound in self._bounds if fresh else ():
            for name in self._fixed:
                bound.feed(name)[...] = self._tables[name]

    def _table(self, name: str) -> NDArray[Any]:
        """[S, *shape] of an input, for the steps that are taken."""
        shape = self._shapes[name]
        table = np.empty((self._end - self._first, *shape), self._dtypes[name])
        for place, step in enumerate(range(self._first, self._end)):
            if name != "embedding" or self._embeddings is None:
                table[place] = self._rows[name][step]
            elif self._passes is None:
                table[place] = self._embeddings[step][0]
            else:
                self._passes.spread(self._embeddings[step], table[place])
        return table
