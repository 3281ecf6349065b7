"""``backend="auto"``: what measured fastest on this machine; a bundle that is new here is measured briefly."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gensdk_runtime.backends import create_backend, get_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, GensdkError
from gensdk_runtime.plan.batches import largest_batch
from gensdk_runtime.plan.costs import Choice, CostTable
from gensdk_runtime.plan.fingerprint import bundle_identity, measurement_key
from gensdk_runtime.plan.opening import open_choice
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.plan.runners import Look, Runners
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.tuning import store
from gensdk_runtime.tuning.pruning import GAIN, counts_to_compare, pruned

ENVIRONMENT = "GENSDK_TUNE"
SHORT = 1.6
"""Seconds for measuring a bundle that is met for the first time; loading comes on top."""
MEASURING = "not measured: another process is measuring this bundle, and what it finds is taken when it is done"

_failed: set[str] = set()  # bundles that could not be measured in this process


@dataclass(frozen=True)
class Tuned:
    """The precision to use, and its costs."""

    precision: Precision
    table: CostTable


def auto_runners(bundle: Bundle, precision: Precision | Literal["auto"], threads: int | None) -> Runners:
    """The choices that measured fastest, each opened when it is first needed.

    Without a measurement: ONNX Runtime on CUDA where a GPU really runs it, on the CPU otherwise.
    """
    wanted = Wanted(bundle, precision, threads)
    found = wanted.find()
    if found is None:
        return wanted.unmeasured()
    if found == "measuring":
        return wanted.unmeasured([MEASURING], awaited=wanted.look)
    try:
        return wanted.runners(found)
    except BackendError as failure:
        return wanted.unmeasured([f"what measured fastest failed: {failure}"])


@dataclass(frozen=True)
class Wanted:
    """What is loaded: `bundle` in a `precision` (``"auto"``: the faster one), on at most so many `threads`."""

    bundle: Bundle
    precision: Precision | Literal["auto"]
    threads: int | None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those to choose from."""
        return self.bundle.manifest.precisions if self.precision == "auto" else (self.precision,)

    def key(self, precision: Precision) -> dict[str, str]:
        """Under which costs are stored."""
        return measurement_key(self.bundle.manifest, precision, self.threads)

    def find(self) -> Tuned | Literal["measuring"] | None:
        """The costs to sample by: stored ones, or those of a short measurement, which is then stored.

        ``"measuring"`` where another process is at it, which is not waited for. None where nothing can be known:
        GENSDK_TUNE=off, the arguments don't fit the bundle, or nothing can be measured here.
        """
        if switched_off() or not set(self.precisions) <= set(self.bundle.manifest.precisions):
            return None
        found = self.stored()
        if found is not None or self._name in _failed:
            return found
        with store.measuring_this(self.key(self.precisions[0])) as alone:
            return self._measure() if alone else "measuring"

    def look(self) -> Runners | Literal["measuring"] | None:
        """What another process has found by now, open; None where it found nothing, or it can't be opened."""
        if self.bundle.closed:
            return None
        with store.measuring_this(self.key(self.precisions[0])) as over:
            found = self.stored()
        if found is None:
            return None if over else "measuring"
        try:
            return self.runners(found)
        except GensdkError:
            return None

    def stored(self) -> Tuned | None:
        """The stored costs; None where those of one precision are missing."""
        tables: dict[Precision, CostTable] = {}
        for each in self.precisions:
            table = store.load_table(self.key(each), self.bundle.manifest)
            if table is None:
                return None
            tables[each] = table
        return faster(self.bundle.manifest.model, tables)

    def _measure(self) -> Tuned | None:
        """Measures and stores; None, and not tried again in this process, where that can't be done."""
        from gensdk_runtime.tuning.measurement import Measurement

        manifest = self.bundle.manifest
        _announce(manifest.model)
        with store.measuring_alone(patience=30.0):
            found = self.stored()  # by another process, while this one waited
            if found is not None:
                return found
            try:
                tables = Measurement(self.bundle, self.precisions, SHORT, threads=self.threads).run()
            except (GensdkError, OSError):
                tables = {}
        if set(tables) != set(self.precisions):
            _failed.add(self._name)
            return None
        kept = {each: pruned(table, counts_to_compare(manifest.model, table)) for each, table in tables.items()}
        for each, table in kept.items():
            store.save_table(self.key(each), table, manifest)
        return faster(manifest.model, kept)

    @property
    def _name(self) -> str:
        """Of bundle and thread limit, within this process."""
        return f"{bundle_identity(self.bundle.manifest)} {self.threads}"

    def runners(self, found: Tuned) -> Runners:
        """Over the choices of `found`."""
        opener = partial(open_choice, self.bundle, precision=found.precision)
        return Runners({}, costs=found.table, opener=opener, resort=Choice(threads=self.threads))

    def unmeasured(self, fallbacks: Sequence[str] = (), *, awaited: Look | None = None) -> Runners:
        """Over ONNX Runtime; see :func:`auto_runners`."""
        devices = get_backend("onnxruntime").availability().devices
        spec = "onnxruntime:cuda" if "cuda" in devices else "onnxruntime"
        chosen: Precision = "fp32" if self.precision == "auto" else self.precision
        runner = open_runner(self.bundle, create_backend(spec, threads=self.threads), chosen)
        opener = partial(open_choice, self.bundle, precision=chosen)
        choice = Choice(backend=spec, threads=self.threads)
        return Runners({choice: runner}, opener=opener, fallbacks=fallbacks, awaited=awaited)


def faster(model: ModelSpec, tables: dict[Precision, CostTable]) -> Tuned:
    """The precision that is faster on the whole; fp32, the exact one, where the gain is not worth it."""
    counts = sorted({1, min(8, largest_batch(model)), largest_batch(model)})
    best: Precision = next(iter(tables))
    for each, table in tables.items():
        ratio = 1.0
        for n in counts:
            ratio *= table.cost(n) / tables[best].cost(n)
        if ratio ** (1 / len(counts)) < 1 - GAIN:
            best = each
    return Tuned(best, tables[best])


def switched_off() -> bool:
    """True if GENSDK_TUNE=off forbids measuring and the use of what was measured."""
    return os.environ.get(ENVIRONMENT, "").strip().lower() in ("off", "0", "no", "false")


def _announce(model: ModelSpec) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print(
            f"measuring what runs {printable(model.name)} fastest on this machine: once, seconds (gensdk tune "
            f"takes longer and knows better; {ENVIRONMENT}=off leaves it out)",
            file=sys.stderr,
        )
