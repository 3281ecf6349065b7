"""Measures choices against each other: each backend and device in a process of its own, all asked in turn.

A machine drifts by tens of percent within seconds, so candidates are interleaved: every round takes one reading of
each point (a choice at a batch size), in an order drawn anew. What a point costs is the lower quartile of its
readings: a disturbance only ever adds time, so low readings are the true ones; but the lowest alone is luck.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.fingerprint import bundle_identity, has_nvidia_gpu, installed_packages
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.tuning.candidates import MEASURED_BACKENDS, Processor, batch_sizes, candidates
from gensdk_runtime.tuning.child import Answer, Child, ChildLostError, ChildSlowError, Question

LONG_STEP = 0.02
"""Seconds of one step at batch 1: from here on more threads always pay, and waiting busily gains nothing."""

FIRST_READINGS = 0.6
"""The share of the time that first readings may take; the rest is for reading again."""

MAX_COPIED = 2**25
"""Bytes of weights. A backend that prepares each batch size holds them once for each worker: batches side by side
took 250 MB more on a U-Net of 36 million parameters, so larger models are not measured that way."""

REACH = 3.0
"""A point that takes so many times as long as the best known way to make as many samples is not read again."""

MAX_CRASHES, MAX_SLOW = 3, 2
"""Of one backend on one device: how often its process may crash, or be late; after that it is left alone."""

READY_SECONDS, THOROUGH_READY_SECONDS = 60.0, 900.0
"""For a choice to open and to run a batch size for the first time: engines are built then. What is built is kept
by its backend, graph by graph, so that the next attempt goes on from there."""

MAX_AT_ONCE = 8
"""Backends and devices that get ready side by side."""

ROUNDS, THOROUGH_ROUNDS = 5, 10
"""Readings of one point, at most."""


@dataclass
class Candidate:
    """A choice in one precision, the batch `sizes` to measure it at, rising, and its readings at each of them.

    `preparing`: seconds that the backend takes to get ready for a batch size; `step`: those of a sample's step.
    """

    choice: Choice
    precision: Precision
    sizes: list[int]
    preparing: float = 0.0
    step: float = 0.0
    readings: dict[int, list[float]] = field(default_factory=dict)

    @property
    def costs(self) -> list[Cost]:
        """The lower quartile of the readings at each size."""
        return [
            Cost(choice=self.choice, batch=batch, seconds=sorted(seconds)[(len(seconds) - 1) // 4])
            for batch, seconds in self.readings.items()
        ]

    def give_up(self, batch: int) -> None:
        """Leaves out this batch size, which failed, and all larger ones."""
        self.sizes = [size for size in self.sizes if size < batch]
        self.readings = {size: seconds for size, seconds in self.readings.items() if size < batch}


@dataclass
class Measurement:
    """Costs of all that this machine has, from child processes that read the bundle from its path.

    `budget`: seconds that it may take, loading not counted; `thorough`: tries more thread counts; `threads`: at
    most so many of the processor's, and no GPU; `batches`: samples to measure at instead of the usual sizes;
    `choices`: instead of this machine's candidates. What fails or crashes is left out, and told in `failures`;
    `late` are the choices among it that took too long to get ready.
    """

    bundle: Bundle
    precisions: Sequence[Precision]
    budget: float
    thorough: bool = False
    threads: int | None = None
    batches: Sequence[int] | None = None
    on_stage: Callable[[str], None] = lambda stage: None
    choices: Sequence[Choice] | None = None

    def __post_init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.late: list[str] = []
        self._reading = min(0.02, self.budget / 500)
        self._patience = max(10.0, 3 * self.budget)
        self._ready = max(self._patience, THOROUGH_READY_SECONDS if self.thorough else READY_SECONDS)
        self._children: dict[str, Child] = {}
        self._crashes: Counter[str] = Counter()
        self._slow: Counter[str] = Counter()
        self._padded: set[str] = set()
        self._candidates: list[Candidate] = []

    def run(self) -> dict[Precision, CostTable]:
        """Loads all choices, reads each at its batch sizes, then again what may be the fastest; the costs."""
        with ExitStack() as stack, ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            opening = Question(
                kind="open",
                path=str(self.bundle.path.absolute()),
                identity=bundle_identity(self.bundle.manifest),
                trust_engines=self.bundle.trust_engines,
            )
            backends = self._backends()
            for name in backends:
                self._children[name] = stack.enter_context(Child(opening))
            self.on_stage(f"starting {', '.join(backends) or 'nothing: no backend is installed'}")
            devices = dict(zip(backends, pool.map(self._devices, backends), strict=True))
            choices = self.choices or candidates(
                devices,
                Processor.here(self.threads),
                one_call=self.bundle.manifest.one_call is not None,
                threads_only=self.threads is not None,
                thorough=self.thorough,
            )
            places = dict.fromkeys(choice.backend for choice in choices)
            for place in places:
                if place not in self._children:  # a device's own: what it crashes or delays is no other's
                    self._children[place] = stack.enter_context(Child(opening))
            loads = pool.map(lambda place: self._load([c for c in choices if c.backend == place]), places)
            self._candidates = [each for of_backend in loads for each in of_backend]
            start = monotonic()
            self._read_all(start + FIRST_READINGS * self.budget)
            self._read_again(start + self.budget)
        return self._tables()

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

    def _devices(self, backend: str) -> Sequence[str] | None:
        """What a backend can run on here; None where it can't run."""
        answer = self._ask(backend, Question(kind="availability", backend=backend))
        if answer.error:
            self.failures[backend] = answer.error
        if answer.padded:
            self._padded.add(backend)
        return answer.devices if answer.available else None

    def _load(self, choices: Sequence[Choice]) -> list[Candidate]:
        """Opens the choices of one backend, in the order given, and runs each once; those that run."""
        loaded: list[Candidate] = []
        for precision in self.precisions:
            long, weights = False, self._weights(precision)
            for choice in choices:
                padded = _base(choice) in self._padded
                if self.choices is None and padded and choice.workers > 1 and weights > MAX_COPIED:
                    continue
                if long and not self.thorough and (choice.spinning or choice.threads == 1):
                    continue
                self.on_stage(f"loading {choice.label}, {precision}")
                candidate = Candidate(choice, precision, self._sizes(choice, weights, padded=padded))
                start, first = monotonic(), candidate.sizes[0]
                if self._read(candidate, first, warm=True):
                    candidate.readings.clear()  # the other backends loaded at the same time
                    candidate.preparing = monotonic() - start if padded else 0.0
                    loaded.append(candidate)
                    long |= choice.form == "steps" and candidate.step * first > LONG_STEP
        return loaded

    def _weights(self, precision: Precision) -> int:
        """Bytes of the files of all graphs: about what the weights take."""
        manifest = self.bundle.manifest
        names = {files[precision] for files in manifest.graph_files.values() if precision in files}
        return sum(manifest.files[name].size for name in names)

    def _sizes(self, choice: Choice, weights: int, *, padded: bool) -> list[int]:
        model = self.bundle.manifest.model
        if self.batches is None:
            return batch_sizes(model, choice, weights=weights, padded=padded)
        largest = batch_sizes(model, choice)[-1]
        return sorted({min(-(-size // choice.workers), largest) for size in self.batches})

    def _read_all(self, end: float) -> None:
        """First readings, of all candidates in turn: at the smallest batch, the largest, then those between, as
        far as they end in time."""
        waiting = [
            (rank, number, batch)
            for number, each in enumerate(self._candidates)
            for rank, batch in enumerate(dict.fromkeys([each.sizes[0], each.sizes[-1], *each.sizes]))
        ]
        for rank, number, batch in sorted(waiting):
            candidate = self._candidates[number]
            expected = candidate.preparing + 2 * candidate.step * batch  # a step to warm up, and one that counts
            if batch in candidate.sizes and (rank == 0 or monotonic() + expected < end):
                self._read(candidate, batch, warm=rank > 0)

    def _read_again(self, end: float) -> None:
        """Rounds over what may still be the fastest at its size, until time or rounds are over."""
        order = random.Random(0)
        for number in range(1, THOROUGH_ROUNDS if self.thorough else ROUNDS):
            points = self._within_reach()
            order.shuffle(points)
            self.on_stage(f"round {number + 1}: {len(points)} points")
            for candidate, batch in points:
                if monotonic() + max(candidate.step * batch, self._reading) > end:
                    return
                if batch in candidate.readings:  # it is not where the choice has failed meanwhile
                    self._read(candidate, batch)

    def _within_reach(self) -> list[tuple[Candidate, int]]:
        """Candidates and batch sizes that are not clearly beaten."""
        tables = self._tables()
        return [
            (candidate, cost.batch)
            for candidate in self._candidates
            for cost in candidate.costs
            if cost.seconds <= REACH * tables[candidate.precision].cost(cost.samples)
        ]

    def _read(self, candidate: Candidate, batch: int, *, warm: bool = False) -> bool:
        """Takes one reading; False where it fails, which costs the choice this batch size and all larger ones."""
        choice, precision = candidate.choice, candidate.precision
        question = Question(
            kind="run", choice=choice, precision=precision, batch=batch, seconds=self._reading, warm=warm
        )
        slow = self._slow[choice.backend]
        answer = self._ask(choice.backend, question)
        if answer.error or not answer.seconds:
            what = f"{choice.label}, {precision}, batch {batch}"
            self.failures[what] = answer.error or "it took no time"
            self.late += [what] if self._slow[choice.backend] > slow else []
            candidate.give_up(batch)
            return False
        candidate.readings.setdefault(batch, []).append(answer.seconds)
        candidate.step = answer.step / batch
        return True

    def _ask(self, place: str, question: Question) -> Answer:
        """The answer of the child of one backend and device, or the error that came in its place."""
        if self._crashes[place] >= MAX_CRASHES:
            return Answer(error=f"{place} crashed {MAX_CRASHES} times")
        if self._slow[place] >= MAX_SLOW:
            return Answer(error=f"{place} was not ready in time, {MAX_SLOW} times")
        try:
            return self._children[place].ask(question, self._ready if question.warm else self._patience)
        except ChildSlowError as failure:
            self._slow[place] += 1
            more = "" if self.thorough else "; gensdk tune waits longer, and what was built is kept"
            return Answer(error=f"{failure}{more if question.warm else ''}"[:1000])
        except ChildLostError as failure:
            self._crashes[place] += 1
            return Answer(error=str(failure)[:1000])
        except UnavailableError as failure:
            return Answer(error=str(failure)[:1000])

    def _tables(self) -> dict[Precision, CostTable]:
        tables: dict[Precision, CostTable] = {}
        for precision in self.precisions:
            costs = [cost for each in self._candidates if each.precision == precision for cost in each.costs]
            padded = dict.fromkeys(c.choice.backend for c in costs if _base(c.choice) in self._padded)
            if costs:
                tables[precision] = CostTable(costs=tuple(costs), padded=tuple(padded))
        return tables


def _base(choice: Choice) -> str:
    """The backend without its device."""
    return choice.backend.partition(":")[0]
