"""What one call of ``sample`` comes down to: checked, resolved and split, but for its seeds.

Applications ask for the same again and again, so requests are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.batches import largest_batch
from gensdk_runtime.errors import InputError
from gensdk_runtime.inputs import check_batch_size, check_count, check_labels
from gensdk_runtime.manifest import ModelSpec
from gensdk_runtime.programs.base import Program
from gensdk_runtime.runner import Runner
from gensdk_runtime.tuning.costs import Round
from gensdk_runtime.tuning.lineup import Lineup

Label = int | str | Sequence[int | str]

MAX_KEPT = 64
MAX_KEPT_SAMPLES = 4096
"""Larger requests take long enough to be made anew each time."""
_PLAIN = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class Request:
    """`n` samples with `settings`, in `rounds`, each with its open runner.

    `labels`: read-only int64 [n], None where there are none or where `draws_labels`, each from its sample's seed;
    `unlabelled`: they are not the caller's, but the model's "no class". `record`: what results say of `settings`.
    """

    n: int
    settings: Any
    labels: NDArray[np.int64] | None
    draws_labels: bool
    unlabelled: bool
    rounds: Sequence[tuple[Round, Runner]]
    record: Mapping[str, Any]


class Requests:
    """Makes requests of one generator, and finds those again that it made. Threads may share it."""

    def __init__(self, model: ModelSpec, program: Program[Any], lineup: Lineup) -> None:
        self._model = model
        self._program = program
        self._lineup = lineup
        self._kept: dict[tuple[Any, ...], Request] = {}

    def get(
        self, n: int, label: Label | None, batch_size: int | None, options: Mapping[str, Any], *, listening: bool
    ) -> Request:
        """The request for these arguments of :meth:`Generator.sample`, where None means "left open".

        Raises as it does: :class:`InputError` for arguments that don't fit, :class:`BackendError` where nothing
        can be opened.
        """
        given = (n, label, batch_size, *options.values())
        if not all(type(value) in _PLAIN for value in given):
            return self._make(n, label, batch_size, options, listening)
        # 1, 1.0 and True are one key of a dict, but not one argument; what the lineup dropped must be planned anew
        key = (listening, self._lineup.generation, *given, *map(type, given))
        found = self._kept.get(key)
        if found is None:
            found = self._make(n, label, batch_size, options, listening)
            if found.n <= MAX_KEPT_SAMPLES:
                if len(self._kept) >= MAX_KEPT:
                    self._kept.clear()
                self._kept[(listening, self._lineup.generation, *key[2:])] = found
        return found

    def _make(
        self, n: int, label: Label | None, batch_size: int | None, options: Mapping[str, Any], listening: bool
    ) -> Request:
        count = check_count(n)
        settings = self._program.resolve(self._understood(options))
        labels = check_labels(label, count, self._model)
        null = self._program.null_label
        open_label = labels is None and self._model.num_classes is not None
        if open_label and null is not None:
            labels = np.full(count, null, np.int64)
        if labels is not None:
            labels.setflags(write=False)
        rounds = self._rounds(count, batch_size, settings, listening=listening)
        return Request(
            count,
            settings,
            labels,
            draws_labels=open_label and null is None,
            unlabelled=open_label and null is not None,
            rounds=rounds,
            record=self._program.describe(settings),
        )

    def _understood(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options that were set; an option that this program does not have is an error."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        options = {name: value for name, value in plain.items() if value is not None}
        for name in options:
            if name not in self._program.options:
                raise InputError(f"{name} means nothing to a {self._model.program.kind} model; leave it out")
        return options

    def _rounds(
        self, n: int, batch_size: int | None, settings: Any, *, listening: bool
    ) -> Sequence[tuple[Round, Runner]]:
        """How the samples are split, with an open runner for each round."""
        limit = batch_limit(self._model, batch_size)

        def accept(program: Program[Any]) -> bool:
            return program.covers(settings, listening=listening)

        return self._lineup.plan(n, None if batch_size is None else limit, limit, accept=accept)


def batch_limit(model: ModelSpec, batch_size: int | None) -> int:
    """The largest batch: what the caller asked for, or the bundle's, or what fits into memory."""
    return largest_batch(model) if batch_size is None else check_batch_size(batch_size, model.max_batch)
