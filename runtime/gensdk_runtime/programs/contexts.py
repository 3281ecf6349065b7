"""What is made of conditions once for a batch, before the graph that makes samples runs: the context graph.

An encoder looks at a prompt, or listens to a sound, once, however many steps follow; and once for samples that are
asked for the same, since no sample depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Array, Bound
from gensdk_runtime.conditions.base import Condition
from gensdk_runtime.errors import ManifestError
from gensdk_runtime.programs.base import Wanted, condition_inputs, conditions_wanted, require_signature
from gensdk_runtime.programs.run import State
from gensdk_runtime.spec.signature import GraphSpec


def require_contexts(
    graph: GraphSpec, conditions: Sequence[Condition[Any]], step: GraphSpec, taken: Collection[str]
) -> None:
    """Raises :class:`ManifestError` unless a context `graph` makes contexts of `conditions` alone, under names
    that the `step` graph, which takes them, has for nothing else: neither those that are `taken` nor its
    states."""
    for each in graph.outputs:
        fixed = all(isinstance(axis, int) for axis in each.shape[1:])
        if each.role != "context" or each.shape[:1] != ("batch",) or not fixed:
            raise ManifestError(
                f"graph {graph.name!r} does not fit its program: expected output {each.name!r} as a context "
                f"[batch, ...] of one size, got a {each.role} {list(each.shape)}; export the bundle again"
            )
        if each.name in taken or step.output(f"next_{each.name}") is not None:
            raise ManifestError(
                f"graph {graph.name!r} makes a context {each.name!r}, which graph {step.name!r} has for something "
                "else; export the bundle again"
            )
    made = {each.name: Wanted(each.shape, each.dtype) for each in graph.outputs}
    require_signature(graph, conditions_wanted(conditions, graph, "batch"), made)


class Contexts:
    """The context graph of `session`, for a run that begins in `state`.

    `asked`: what it takes, by the name of the input: of samples that are asked for the same once.
    """

    def __init__(self, session: Session, conditions: Sequence[Condition[Any]], state: State) -> None:
        graph, self._run = session.graph, state.run
        wanted = [each for each in conditions if graph.input(each.tensor) is not None]
        given = self._run.conditions
        first, self._places = _distinct([given[each.kind] for each in wanted])
        size = max(len(first), min(session.padded_batch(len(first)), len(self._run)))
        rows = [*first, *[first[-1]] * (size - len(first))]
        self._made = state.borrow(session, {"batch": size})
        self.asked = condition_inputs(wanted, self._made, {each.kind: given[each.kind][rows] for each in wanted})

    def resident(self, bound: Bound) -> bool:
        """True if it runs on a device, and `bound` there too."""
        return self._made.on_device and bound.on_device

    def hand_over(self, asked: Mapping[str, Any], bound: Bound) -> None:
        """Runs the graph on :attr:`asked`, which may lie on the device where it is :meth:`resident`, and writes
        what it makes into the inputs of `bound`, where it stays on the device."""
        made = self._made
        for name, values in asked.items():
            place = made.feed(name) if self.resident(bound) else made.overwrite(name)
            place[...] = values
        self._run.timed(made)
        for spec in made.session.graph.outputs:
            if self.resident(bound):
                there, here = made.made(spec.name), bound.feed(spec.name)
                for start, end, source in _pieces(self._places):
                    here[start:end] = there[source : source + end - start]
            else:
                np.take(made.output(spec.name), self._places, axis=0, out=bound.overwrite(spec.name), mode="clip")


def _distinct(values: Sequence[Array]) -> tuple[list[int], list[int]]:
    """Of rows, which lie beside each other in several arrays: the place of the first of each that differ, and for
    every row the number of the one that it equals."""
    found: dict[bytes, int] = {}
    first: list[int] = []
    numbers = []
    for place in range(len(values[0])):
        row = b"".join(each[place].tobytes() for each in values)
        if row not in found:
            found[row] = len(first)
            first.append(place)
        numbers.append(found[row])
    return first, numbers


def _pieces(places: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """`places` as parts in which each is one more than the one before: (start, end, the first of them)."""
    start = 0
    for at in range(1, len(places) + 1):
        if at == len(places) or places[at] != places[at - 1] + 1:
            yield start, at, places[start]
            start = at
