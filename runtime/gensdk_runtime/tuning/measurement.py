"""Measures choices against each other: each backend in a process of its own, all of them asked in turn.

A machine drifts by tens of percent within seconds, so candidates are interleaved: every round takes one reading of
each point (a choice at a batch size), in an order drawn anew. What a point costs is the lower quartile of its
readings: a disturbance only ever adds time, so low readings are the true ones; but the lowest alone is luck.
Points that are clearly beaten are read no more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic

from gensdk_runtime.backends.base import Availability
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.fingerprint import bundle_identity, has_nvidia_gpu, installed_packages
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.signature import Precision
from gensdk_runtime.tuning.candidates import MEASURED_BACKENDS, Processor, batch_sizes, candidates
from gensdk_runtime.tuning.child import Answer, Child, ChildLostError, Question

LONG_STEP = 0.02
"""Seconds of one step at batch 1: from here on more threads always pay, and waiting busily gains nothing."""

FIRST_READINGS = 0.6
"""The share of the time that first readings may take; the rest is for reading again."""

MAX_COPIED = 2**25
"""Bytes of weights. A backend that prepares each batch size holds them once for each worker: batches side by side
took 250 MB more on a U-Net of 36 million parameters, so larger models are not measured that way."""

REACH = (10.0, 2.0, 1.25)
"""How far above the best a point may lie after one, two and more readings to be read again."""

MAX_CRASHES = 3
"""Of one backend; after that it is left alone."""


@dataclass(frozen=True)
class Effort:
    """How much measuring may cost, in seconds: all but loading (`budget`), one `reading`, waiting for an answer
    (`patience`). `rounds`: of readings, at most; `thorough` tries more thread counts and batch sizes."""

    budget: float
    reading: float
    patience: float
    rounds: int
    thorough: bool


SHORT = Effort(budget=2.8, reading=0.006, patience=10.0, rounds=5, thorough=False)
"""The first ``auto`` load."""


def full(budget: float) -> Effort:
    """``gensdk tune`` with so many seconds."""
    return Effort(budget, reading=0.02, patience=max(60.0, 2 * budget), rounds=25, thorough=True)


@dataclass
class Point:
    """A choice at a batch size, the readings of it in seconds, and what one of its steps takes."""

    choice: Choice
    precision: Precision
    batch: int
    step: float = 0.0
    readings: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The lower quartile."""
        return sorted(self.readings)[(len(self.readings) - 1) // 4]


@dataclass
class _Loaded:
    """A choice that runs: the `last` point that was read, the batch `sizes` to measure, and the seconds that
    `preparing` for one of them takes."""

    last: Point
    sizes: list[int]
    preparing: float


@dataclass(frozen=True)
class Measured:
    """The costs of each precision, and why choices have none."""

    tables: Mapping[Precision, CostTable]
    failures: Mapping[str, str]


@dataclass
class Measurement:
    """Costs of all that this machine has, from child processes that read the bundle from its path.

    `threads`: at most so many of the processor's, and no GPU; `batches`: samples to measure at instead of the
    usual sizes; `choices`: instead of this machine's candidates. A choice that fails or crashes is left out.
    """

    bundle: Bundle
    precisions: Sequence[Precision]
    effort: Effort
    threads: int | None = None
    batches: Sequence[int] | None = None
    on_stage: Callable[[str], None] = lambda stage: None
    choices: Sequence[Choice] | None = None

    def __post_init__(self) -> None:
        self.failures: dict[str, str] = {}
        self._children: dict[str, Child] = {}
        self._crashes: dict[str, int] = {}
        self._padded: set[str] = set()
        self._points: list[Point] = []

    def run(self) -> Measured:
        """Reads each choice at ever larger batches while there is time, then again what may be the fastest."""
        with ExitStack() as stack, ThreadPoolExecutor(len(MEASURED_BACKENDS)) as pool:
            opening = Question(
                kind="open",
                path=str(self.bundle.path.absolute()),
                identity=bundle_identity(self.bundle.manifest),
                trust_engines=self.bundle.trust_engines,
            )
            for name in self._backends():
                self._children[name] = stack.enter_context(Child(opening))
            self.on_stage(f"starting {', '.join(self._children) or 'nothing: no backend is installed'}")
            available = dict(pool.map(self._availability, self._children))
            choices = self.choices or candidates(
                available,
                Processor.here(self.threads),
                one_call=self.bundle.manifest.one_call is not None,
                threads_only=self.threads is not None,
                thorough=self.effort.thorough,
            )
            loads = pool.map(lambda name: self._load([c for c in choices if _base(c) == name]), self._children)
            loaded = [each for of_backend in loads for each in of_backend]
            start = monotonic()
            self._read_first(loaded, start + FIRST_READINGS * self.effort.budget)
            self._read_again(start + self.effort.budget)
        return Measured(self._tables(), self.failures)

    def _backends(self) -> list[str]:
        """The backends worth a process: installed, and with the hardware they need."""
        if self.choices is not None:
            return list(dict.fromkeys(_base(choice) for choice in self.choices))
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
            answer = Answer(error=str(failure)[:1000])
        if answer.padded:
            self._padded.add(name)
        if answer.error:
            self.failures[name] = answer.error
        return name, Availability(
            answer.available, version=answer.version, devices=answer.devices, reason=answer.error
        )

    def _load(self, choices: Sequence[Choice]) -> list[_Loaded]:
        """Opens the choices of one backend, in the order given, and runs each once."""
        loaded: list[_Loaded] = []
        for precision in self.precisions:
            long, heavy = False, weights_bytes(self.bundle.manifest, precision) > MAX_COPIED
            for choice in choices:
                if self.choices is None and heavy and choice.workers > 1 and _base(choice) in self._padded:
                    continue
                if long and not self.effort.thorough and (choice.spinning or choice.threads == 1):
                    continue
                self.on_stage(f"loading {choice.label}, {precision}")
                sizes, start = self._sizes(choice, precision), monotonic()
                point = Point(choice, precision, sizes[0])
                if self._read(point, warm=True):
                    preparing = monotonic() - start if _base(choice) in self._padded else 0.0
                    loaded.append(_Loaded(point, sizes, preparing))
                    long |= choice.form == "steps" and point.step > LONG_STEP
        return loaded

    def _read_first(self, loaded: Sequence[_Loaded], end: float) -> None:
        """First readings of all choices in turn: at the smallest batch, then at larger ones as far as they end in
        time. What was read while others were loading does not count."""
        for rank in range(max((len(each.sizes) for each in loaded), default=0)):
            for each in loaded:
                if rank >= len(each.sizes):
                    continue
                point = Point(each.last.choice, each.last.precision, each.sizes[rank])
                step = each.last.step * point.batch / each.last.batch
                in_time = rank == 0 or monotonic() + each.preparing + 2 * step < end  # one of them to warm up
                if in_time and self._read(point, warm=rank > 0):
                    self._points.append(point)
                    each.last = point
                else:
                    each.sizes = each.sizes[:rank]

    def _sizes(self, choice: Choice, precision: Precision) -> list[int]:
        model, thorough = self.bundle.manifest.model, self.effort.thorough
        if self.batches is not None:
            largest = batch_sizes(model, choice, thorough=thorough)[-1]
            return sorted({min(-(-size // choice.workers), largest) for size in self.batches})
        weights, padded = weights_bytes(self.bundle.manifest, precision), _base(choice) in self._padded
        return batch_sizes(model, choice, thorough=thorough, weights=weights, padded=padded)

    def _read_again(self, end: float) -> None:
        """Rounds over the points that may still be the best at their size, until time or rounds are over."""
        order = random.Random(0)
        for number in range(1, self.effort.rounds):
            racing = self._racing()
            order.shuffle(racing)
            self.on_stage(f"round {number + 1}: {len(racing)} points")
            for point in racing:
                if monotonic() + max(point.step, self.effort.reading) > end:
                    return
                if point in self._points:  # it is not where its choice failed meanwhile
                    self._read(point)

    def _racing(self) -> list[Point]:
        """Points within reach of the best known way to make as many samples; few readings need more room."""
        tables = self._tables()
        return [
            point
            for point in self._points
            if point.seconds
            <= REACH[min(len(point.readings), len(REACH)) - 1]
            * tables[point.precision].cost(point.batch * point.choice.workers)
        ]

    def _read(self, point: Point, *, warm: bool = False) -> bool:
        """Takes one reading; False where it fails, which costs the choice this batch size and all larger ones."""
        question = Question(
            kind="run",
            choice=point.choice,
            precision=point.precision,
            batch=point.batch,
            seconds=self.effort.reading,
            warm=warm,
        )
        answer = self._ask(_base(point.choice), question)
        if answer.error or not answer.seconds:
            self.failures[f"{point.choice.label}, {point.precision}, batch {point.batch}"] = (
                answer.error or "it took no time"
            )
            lost = (point.choice, point.precision)
            self._points = [
                other
                for other in self._points
                if (other.choice, other.precision) != lost or other.batch < point.batch
            ]
            return False
        point.readings.append(answer.seconds)
        point.step = answer.step
        return True

    def _ask(self, base: str, question: Question) -> Answer:
        """The answer of the child of one backend, or the error that came in its place."""
        if self._crashes.get(base, 0) >= MAX_CRASHES:
            return Answer(error=f"{base} crashed {MAX_CRASHES} times")
        try:
            return self._children[base].ask(question, self.effort.patience)
        except ChildLostError as failure:
            self._crashes[base] = self._crashes.get(base, 0) + 1
            return Answer(error=str(failure)[:1000])
        except UnavailableError as failure:
            return Answer(error=str(failure)[:1000])

    def _tables(self) -> dict[Precision, CostTable]:
        tables: dict[Precision, CostTable] = {}
        for precision in self.precisions:
            points = [point for point in self._points if point.precision == precision]
            costs = tuple(Cost(choice=p.choice, batch=p.batch, seconds=p.seconds) for p in points)
            padded = tuple(dict.fromkeys(p.choice.backend for p in points if _base(p.choice) in self._padded))
            if costs:
                tables[precision] = CostTable(costs=costs, padded=padded)
        return tables


def weights_bytes(manifest: Manifest, precision: Precision) -> int:
    """About what the weights of one precision take: the files of its graphs."""
    files = {files[precision] for files in manifest.graph_files.values() if precision in files}
    return sum(manifest.files[file].size for file in files)


def _base(choice: Choice) -> str:
    """The backend without its provider: what shares a process."""
    return choice.backend.partition(":")[0]
