"""The request of one call of ``sample``: checked, resolved and split, but for its seeds.

Applications ask for the same again and again, so requests are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.conditions.inputs import check_count, check_labels
from gensdk_runtime.plan.executor import Executor, Rounds
from gensdk_runtime.programs.base import Program

Label = int | np.integer | str | Sequence[int | np.integer | str] | NDArray[np.integer] | NDArray[np.str_]

MAX_KEPT = 64
MAX_KEPT_SAMPLES = 4096
"""Larger requests take long enough to be made anew each time."""
ARGUMENTS = (
    *("seed", "label", "latents", "image", "settings"),
    *("callback_on_step_end", "progress", "batch_size", "output_type"),
)
"""What :meth:`Generator.sample` takes by name beside options."""
_PLAIN = (int, float, str, bool, type(None))


class Asked(NamedTuple):
    """Arguments of a call: `listening` where a callback listens to steps; `size`, height and width, of the sources
    of a translation model."""

    n: int
    label: Label | None = None
    batch_size: int | None = None
    listening: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Request:
    """`n` samples with `settings`, in `rounds`, each with its open runner.

    `size`: height and width of the images that go in. `labels`: read-only int64 [n], None where there are none or
    where `draws_labels`, each from its sample's seed; `unlabelled`: they are not the caller's, but the model's "no
    class". `splits`: the batch size was left open. `record`: what results say of `settings`.
    """

    n: int
    settings: Any
    labels: NDArray[np.int64] | None
    draws_labels: bool
    unlabelled: bool
    rounds: Rounds
    size: tuple[int, int] | None
    splits: bool
    record: Mapping[str, Any]


class Requests:
    """Makes requests of one generator, and finds those again that it made. Threads may share it."""

    def __init__(self, program: Program[Any], executor: Executor) -> None:
        self._model = executor.model
        self._program = program
        self._executor = executor
        self._kept: dict[tuple[Any, ...], tuple[tuple[int, int | None], Request]] = {}

    @property
    def state(self) -> tuple[int, int | None]:
        """What a request was planned for: where it has changed, it must be made anew."""
        return self._executor.runners.generation, self._executor.most

    def get(self, asked: Asked, options: Mapping[str, Any]) -> Request:
        """The request for these arguments of :meth:`Generator.sample`, where None means "left open".

        Raises as it does: :class:`InputError` for arguments that don't fit, :class:`BackendError` where nothing
        can be opened.
        """
        runners = self._executor.runners
        runners.look()
        given = (asked.n, asked.label, asked.batch_size, *options.values())
        if not all(type(value) in _PLAIN for value in given):
            return self._make(asked, options)
        # 1, 1.0 and True are one key of a dict, but not one argument; what was dropped must be planned anew
        key = (asked, *options.items(), *map(type, given))
        kept = self._kept.get(key)
        if kept is not None and kept[0] == self.state:
            return kept[1]
        made = self._make(asked, options)
        if made.n <= MAX_KEPT_SAMPLES:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = self.state, made
        return made

    def _make(self, asked: Asked, options: Mapping[str, Any]) -> Request:
        count = check_count(asked.n)
        settings = self._program.resolve(options, others=ARGUMENTS)
        labels = check_labels(asked.label, count, self._model)
        null = self._program.null_label
        open_label = labels is None and self._model.num_classes is not None
        if open_label and null is not None:
            labels = np.full(count, null, np.int64)
        if labels is not None:
            labels.setflags(write=False)

        def accept(program: Program[Any]) -> bool:
            return program.covers(settings, listening=asked.listening)

        # A caller who listens hears of each batch, and may end in the middle of one: how large it is must not be
        # this machine's affair.
        rounds = self._executor.plan(
            count, asked.batch_size, size=asked.size, fixed=asked.listening, accept=accept
        )
        return Request(
            count,
            settings,
            labels,
            draws_labels=open_label and null is None,
            unlabelled=open_label and null is not None,
            rounds=rounds,
            size=asked.size,
            splits=asked.batch_size is None,
            record=self._program.describe(settings),
        )
