"""Measures choices against each other: each backend in a process of its own, all of them asked in turn.

A machine drifts by tens of percent within seconds, so candidates are interleaved: every round takes one reading of
each point (a choice at a batch size), in an order drawn anew. What a point costs is the lower quartile of its
readings: a disturbance only ever adds time, so low readings are the true ones; but the lowest alone is luck.
After a few readings the points that are clearly beaten are read no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from time import monotonic

from gensdk_runtime.backends.base import Availability
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.plan.costs import Choice, CostTable
from gensdk_runtime.plan.fingerprint import bundle_identity, has_nvidia_gpu, installed_packages
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.signature import Precision
from gensdk_runtime.tuning.candidates import MEASURED_BACKENDS, Processor, batch_sizes, candidates
from gensdk_runtime.tuning.child import Child, ChildLostError
from gensdk_runtime.tuning.messages import Answer, Question
from gensdk_runtime.tuning.points import Effort, Point, forecast, outside_in, rising_costs

LONG_UNIT = 0.02
"""Seconds of one step at batch 1: from here on more threads always pay, and waiting busily gains nothing."""

CLIMB = 0.6
"""The share of the time that first readings may take; the rest is for reading again."""

MAX_COPIED = 2**25
"""Bytes of weights. A backend that prepares each batch size holds them once for each worker: batches side by side
took 250 MB more on a U-Net of 36 million parameters, so larger models are not measured that way."""

REACH = (10.0, 2.0, 1.25)
"""How far above the best a point may lie after one, two and more readings to be read again."""

MAX_CRASHES = 3
"""Of one backend; after that it is left alone."""


@dataclass(frozen=True)
class Measured:
    """The costs of each precision, why choices have none, and by what part of itself a cost may be wrong."""

    tables: Mapping[Precision, CostTable]
    failures: Mapping[str, str]
    noise: float


class Measurement:
    """One measurement of a bundle; see :func:`measure`."""

    def __init__(
        self,
        bundle: Bundle,
        precisions: Sequence[Precision],
        effort: Effort,
        *,
        threads: int | None,
        batches: Sequence[int] | None,
        on_stage: Callable[[str], None],
        choices: Sequence[Choice] | None,
    ) -> None:
        self.bundle, self.precisions, self.effort, self.on_stage = bundle, precisions, effort, on_stage
        self.threads, self.batches, self.given = threads, batches, choices
        self.model = bundle.manifest.model
        self.failures: dict[str, str] = {}
        self._children: dict[str, Child] = {}
        self._crashes: dict[str, int] = {}
        self._padded: set[str] = set()
        self._points: list[Point] = []
        self._loading: dict[Choice, float] = {}
        self._prepared = 0.0
        self._start = monotonic()

    def run(self) -> Measured:
        """Loads, reads ever larger batches while there is time, then reads again what may be the fastest."""
        with ExitStack() as stack, ThreadPoolExecutor(len(MEASURED_BACKENDS)) as pool:
            identity = bundle_identity(self.bundle.manifest)
            opening = Question(
                kind="open",
                path=str(self.bundle.path.absolute()),
                identity=identity,
                trust_engines=self.bundle.trust_engines,
            )
            for name in self._backends():
                self._children[name] = stack.enter_context(Child(opening))
            self.on_stage(f"starting {', '.join(self._children) or 'nothing: no backend is installed'}")
            available = dict(pool.map(self._availability, self._children))
            choices = self.given or candidates(
                available,
                Processor.here(self.threads),
                one_call=self.bundle.manifest.one_call is not None,
                threads_only=self.threads is not None,
                thorough=self.effort.thorough,
            )
            loaded = pool.map(lambda name: self._load([c for c in choices if _base(c) == name]), self._children)
            firsts = [point for points in loaded for point in points]
            self._start = monotonic()
            self._climb(firsts)
            self._repeat()
        noises = [point.noise for point in self._points if len(point.readings) > 2]
        return Measured(self._tables(), self.failures, median(noises) if noises else 0.0)

    def _backends(self) -> list[str]:
        """The backends worth a process: installed, and with the hardware they need."""
        if self.given is not None:
            return list(dict.fromkeys(_base(choice) for choice in self.given))
        packages = installed_packages()
        return [
            name
            for name in MEASURED_BACKENDS
            if any(package.startswith(name) for package in packages) and (name != "tensorrt" or has_nvidia_gpu())
        ]

    def _availability(self, name: str) -> tuple[str, Availability]:
        try:
            answer = self._children[name].ask(Question(kind="availability", backend=name), self.effort.patience)
        except (ChildLostError, UnavailableError) as failure:
            self.failures[name] = str(failure)
            return name, Availability(False, reason=str(failure))
        if answer.padded:
            self._padded.add(name)
        if answer.error:
            self.failures[name] = answer.error
        return name, Availability(answer.available, version=answer.version, devices=answer.devices)

    def _load(self, choices: Sequence[Choice]) -> list[Point]:
        """Opens the choices of one backend, in the order given; a point at batch 1 of each that runs."""
        points: list[Point] = []
        for precision in self.precisions:
            long, heavy = False, weights_bytes(self.bundle.manifest, precision) > MAX_COPIED
            for choice in choices:
                if self.given is None and heavy and choice.workers > 1 and self._is_padded(choice):
                    continue
                if long and not self.effort.thorough and (choice.spinning or choice.threads == 1):
                    continue
                self.on_stage(f"loading {choice.label}, {precision}")
                point, start = Point(choice, precision, 1, unit=0.0, units=1), monotonic()
                if self._read(point, warm=True, patience=self.effort.patience):
                    points.append(point)
                    self._loading.setdefault(choice.alone, monotonic() - start)
                    long |= choice.form == "steps" and point.unit > LONG_UNIT
        return points

    def _climb(self, firsts: Sequence[Point]) -> None:
        """First readings: of all choices at the smallest batch, at the largest, then at those between, as far as
        there is time. What was read while others were loading counts only as a forecast."""
        known = {number: [first] for number, first in enumerate(firsts)}
        waiting = sorted(
            (rank, size * first.choice.workers, number, size)
            for number, first in enumerate(firsts)
            for rank, size in enumerate(outside_in(self._sizes(first)))
        )
        for position, (rank, _, number, size) in enumerate(waiting, start=1):
            point = forecast(known[number], size)
            if point is None:
                continue
            preparation = self._preparation(point)
            too_long = self.effort.cost_of_reading(point) > CLIMB * self.effort.budget - self._spent()
            if rank > 0 and (too_long or preparation > self.effort.preparing - self._prepared):
                continue
            self.on_stage(f"{point.choice.label}, batch {size} ({position} of {len(waiting)})")
            before = monotonic()
            if self._read(point, warm=preparation > 0 or (size > 1 and point.unit < LONG_UNIT)):
                self._points.append(point)
                known[number].append(point)
            elif size <= min(other.batch for other in known[number]):
                known[number].clear()
            if preparation:
                self._prepared += monotonic() - before

    def _preparation(self, point: Point) -> float:
        """Seconds that a backend takes to get ready for a new batch size; at batch 1 it did when it was loaded."""
        if point.batch == 1 or not self._is_padded(point.choice):
            return 0.0
        return self._loading.get(point.choice.alone, 0.0)

    def _spent(self) -> float:
        """Seconds of reading."""
        return monotonic() - self._start - self._prepared

    def _sizes(self, first: Point) -> list[int]:
        choice, thorough = first.choice, self.effort.thorough
        if self.batches is not None:
            largest = batch_sizes(self.model, choice, thorough=thorough)[-1]
            return sorted({min(-(-size // choice.workers), largest) for size in self.batches})
        weights = weights_bytes(self.bundle.manifest, first.precision)
        return batch_sizes(self.model, choice, thorough=thorough, weights=weights, padded=self._is_padded(choice))

    def _repeat(self) -> None:
        """Rounds over the points that may still be the best at their size, until time or rounds are over."""
        order = random.Random(0)
        for number in range(self.effort.rounds - 1):
            racing = self._racing()
            order.shuffle(racing)
            self.on_stage(f"round {number + 2}: {len(racing)} points")
            for point in racing:
                if self._spent() + self.effort.cost_of_reading(point) > self.effort.budget:
                    return
                self._read(point)

    def _racing(self) -> list[Point]:
        """Points within reach of the best known way to make as many samples; few readings need more room."""
        tables = self._tables()
        return [
            point
            for point in self._points
            if point.seconds
            <= REACH[min(len(point.readings), len(REACH)) - 1] * tables[point.precision].cost(point.samples)
        ]

    def _read(self, point: Point, *, warm: bool = False, patience: float = 0.0) -> bool:
        """Takes one reading; False where the choice failed, which then loses all its points."""
        units, repeats = self.effort.extent(point)
        question = Question(
            kind="run",
            choice=point.choice,
            precision=point.precision,
            batch=point.batch,
            units=units,
            repeats=repeats,
            warm=warm,
        )
        answer = self._ask(point, question, max(patience, 10.0, 30 * self.effort.cost_of_reading(point)))
        if answer.error or not answer.seconds or not answer.units:
            self._lose(point, answer.error or "it took no time")
            return False
        point.readings.append(answer.seconds)
        point.units = answer.units
        point.unit = min(answer.seconds / answer.units, point.unit or math.inf)
        return True

    def _ask(self, point: Point, question: Question, patience: float) -> Answer:
        base = _base(point.choice)
        if self._crashes.get(base, 0) >= MAX_CRASHES:
            return Answer(error=f"{base} crashed {MAX_CRASHES} times")
        try:
            return self._children[base].ask(question, patience)
        except ChildLostError as failure:
            self._crashes[base] = self._crashes.get(base, 0) + 1
            return Answer(error=str(failure)[:1000])
        except UnavailableError as failure:
            return Answer(error=str(failure)[:1000])

    def _lose(self, point: Point, reason: str) -> None:
        lost = (point.choice, point.precision)
        self.failures[f"{point.choice.label}, {point.precision}, batch {point.batch}"] = reason
        self._points = [
            other for other in self._points if (other.choice, other.precision) != lost or other.batch < point.batch
        ]

    def _is_padded(self, choice: Choice) -> bool:
        return _base(choice) in self._padded

    def _tables(self) -> dict[Precision, CostTable]:
        tables: dict[Precision, CostTable] = {}
        padded = tuple(dict.fromkeys(p.choice.backend for p in self._points if self._is_padded(p.choice)))
        for precision in self.precisions:
            costs = rising_costs(point for point in self._points if point.precision == precision)
            if costs:
                tables[precision] = CostTable(costs=costs, padded=padded)
        return tables


def measure(
    bundle: Bundle,
    precisions: Sequence[Precision],
    effort: Effort,
    *,
    threads: int | None = None,
    batches: Sequence[int] | None = None,
    on_stage: Callable[[str], None] | None = None,
    choices: Sequence[Choice] | None = None,
) -> Measured:
    """Costs of all that this machine has, in child processes that read the bundle from its path.

    `batches`: samples to measure at instead of the usual sizes; `choices`: instead of this machine's candidates.
    A choice that fails, crashes or hangs is left out, and `failures` says why.
    """
    return Measurement(
        bundle,
        precisions,
        effort,
        threads=threads,
        batches=batches,
        on_stage=on_stage or (lambda stage: None),
        choices=choices,
    ).run()


def weights_bytes(manifest: Manifest, precision: Precision) -> int:
    """About what the weights of one precision take: the files of its graphs."""
    files = {files[precision] for files in manifest.graph_files.values() if precision in files}
    return sum(manifest.files[file].size for file in files)


def _base(choice: Choice) -> str:
    """The backend without its provider: what shares a process."""
    return choice.backend.partition(":")[0]
