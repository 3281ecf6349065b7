"""The request of one call of ``sample``: checked, resolved and split, but for its seeds.

Applications ask for the same again and again, so requests are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import as_array, check_count
from gensdk_runtime.conditions.base import Condition, Size
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Float32
from gensdk_runtime.plan.executor import Executor, Rounds
from gensdk_runtime.programs.base import Program
from gensdk_runtime.spec.settings import CALL

MAX_KEPT = 64
MAX_KEPT_SAMPLES = 4096
"""Larger requests take long enough to be made anew each time."""
ARGUMENTS = (*CALL, "label", "image", "prompt", "negative_prompt", "audio")
"""What :meth:`Generator.sample` takes by name beside options."""
_PLAIN = (int, float, str, bool, type(None))


class Asked(NamedTuple):
    """Arguments of a call: `listening` where a callback listens to steps; `size`, such as height and width, of
    what samples are made from, where their own follows from it; `continued`: their beginnings are given;
    `started`: the images that they start from."""

    n: int
    batch_size: int | None = None
    listening: bool = False
    size: Size | None = None
    continued: bool = False
    started: bool = False


@dataclass(frozen=True)
class Request:
    """`n` samples with `settings`, in `rounds`, each with its open runner.

    `shape`: of a sample; `size`: of what it is made from, see :class:`Asked`. `conditions`: those that were asked
    for, by kind, read-only [n, ...]; `drawn`: those of which each sample's comes from its seed; `unasked`: the
    kinds whose values are not the caller's, but the model's "none". `splits`: the batch size was left open.
    `record`: what results say of `settings`. `started`: they start from images.
    """

    n: int
    settings: Any
    shape: tuple[int, ...]
    conditions: Mapping[str, NDArray[Any]]
    drawn: tuple[Condition[Any], ...]
    unasked: frozenset[str]
    rounds: Rounds
    size: Size | None
    splits: bool
    record: Mapping[str, Any]
    started: bool = False


class Requests:
    """Makes requests of one generator, and finds those again that it made. Threads may share it.

    `arguments`: what :meth:`Generator.sample` takes beside options, by name, conditions of other packages too.
    """

    def __init__(self, program: Program[Any], executor: Executor, conditions: Sequence[Condition[Any]]) -> None:
        self._model = executor.model
        self._program = program
        self._conditions = conditions
        self.arguments = frozenset((*ARGUMENTS, *(condition.kind for condition in conditions)))
        self._executor = executor
        self._kept: dict[tuple[Any, ...], tuple[tuple[int, int | None], Request]] = {}

    @property
    def state(self) -> tuple[int, int | None]:
        """What a request was planned for: where it has changed, it must be made anew."""
        return self._executor.runners.generation, self._executor.most

    def get(self, asked: Asked, conditions: Mapping[str, Any], options: Mapping[str, Any]) -> Request:
        """The request for these arguments of :meth:`Generator.sample`: `conditions` by kind, as the caller passed
        them, and `options`, of which None means "left open".

        Raises as it does: :class:`InputError` for arguments that don't fit, :class:`BackendError` where nothing
        can be opened.
        """
        runners = self._executor.runners
        runners.look()
        given = (asked.n, asked.batch_size, *conditions.values(), *options.values())
        if not all(type(value) in _PLAIN for value in given):
            return self._make(asked, conditions, options)
        # 1, 1.0 and True are one key of a dict, but not one argument; what was dropped must be planned anew
        key = (asked, *conditions.items(), *options.items(), *map(type, given))
        kept = self._kept.get(key)
        if kept is not None and kept[0] == self.state:
            return kept[1]
        made = self._make(asked, conditions, options)
        if made.n <= MAX_KEPT_SAMPLES:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = self.state, made
        return made

    def _make(self, asked: Asked, conditions: Mapping[str, Any], options: Mapping[str, Any]) -> Request:
        count = check_count(asked.n)
        settings = self._program.resolve(options, others=self.arguments)
        settings = self._program.starting(settings, given=asked.started)
        kept: dict[str, NDArray[Any]] = {}
        drawn: list[Condition[Any]] = []
        unasked: set[str] = set()
        growth, shape = None, self._model.output.shape
        for condition in self._conditions:
            kind = condition.kind
            if not condition.kept:
                if asked.size is not None and condition.own_size is not None:
                    growth, shape = condition.growth(asked.size), condition.sample_shape(asked.size)
            elif kind in conditions:
                kept[kind] = condition.check(conditions[kind], count)
            elif (null := self._program.null(self._model, kind)) is not None:
                kept[kind] = condition.filled(count, null)
                unasked.add(kind)
            else:
                drawn.append(condition)
        if asked.size is not None and growth is None:
            raise InputError(f"the samples of model {self._model.name!r} have one size; leave size out")
        for values in kept.values():
            values.setflags(write=False)

        def accept(program: Program[Any]) -> bool:
            if asked.continued and not program.continues:
                return False
            return program.covers(settings, listening=asked.listening)

        # A callback may end the run in the middle of a batch: what is drawn until then must not depend on what was
        # measured here.
        rounds = self._executor.plan(
            count, asked.batch_size, growth=growth, size=asked.size, fixed=asked.listening, accept=accept
        )
        return Request(
            count,
            settings,
            shape,
            kept,
            tuple(drawn),
            frozenset(unasked),
            rounds=rounds,
            size=asked.size,
            splits=asked.batch_size is None,
            record=self._program.describe(settings),
            started=asked.started,
        )


def check_latents(latents: Any, n: int, shape: tuple[int, ...] | None) -> Float32:
    """Finite float32 [n, *shape], contiguous."""
    if shape is None:
        raise InputError("this model takes no latents; leave latents out")
    given = as_array(latents, "latents")
    if given.dtype.kind not in "fiub":
        kind = given.dtype if isinstance(latents, np.ndarray) else type(latents).__name__
        raise InputError(f"expected latents as a float array, got {kind}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        array = np.ascontiguousarray(given, dtype=np.float32)
    if array.shape != (n, *shape):
        raise InputError(f"expected latents of shape {[n, *shape]}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise InputError("latents hold NaN or infinity; expected finite numbers")
    return array
