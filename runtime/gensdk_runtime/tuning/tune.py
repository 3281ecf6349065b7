"""Finds out what runs a bundle fastest on this machine, and remembers it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, GensdkError, InputError, did_you_mean
from gensdk_runtime.plan.batches import largest_batch
from gensdk_runtime.plan.costs import CostTable, Round
from gensdk_runtime.plan.fingerprint import measurement_key
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.manifest import Manifest, ModelSpec
from gensdk_runtime.spec.signature import Precision
from gensdk_runtime.tuning import store
from gensdk_runtime.tuning.trim import GAIN, trimmed

ENVIRONMENT = "GENSDK_TUNE"
DEFAULT_BUDGET = 20.0
PLANNED = (1, 8, 64)

_failed: set[str] = set()  # bundles that could not be measured in this process


@dataclass(frozen=True)
class Tuned:
    """The precision to use, and its costs."""

    precision: Precision
    table: CostTable


@dataclass(frozen=True)
class PrecisionReport:
    """What was measured in one precision: all costs (`measured`), those that pay (`kept`), and the file that keeps
    them (None: the cache can't be written)."""

    measured: CostTable
    kept: CostTable
    path: Path | None

    def to_dict(self, sizes: Sequence[int]) -> dict[str, Any]:
        """For JSON; `sizes` are the numbers of samples to show plans for."""
        return {
            "costs": [
                {**cost.choice.model_dump(), "batch": cost.batch, "seconds": cost.seconds}
                for cost in self.measured.costs
            ],
            "kept": [choice.label for choice in self.kept.choices],
            "plans": {str(n): _plan_dict(self.kept, n) for n in sizes},
            "stored": None if self.path is None else str(self.path),
        }


@dataclass(frozen=True)
class TuneReport:
    """The result of :func:`tune`; `failures` says why choices have no costs, `seconds` how long it all took."""

    bundle: str
    model: str
    max_batch: int
    precisions: Mapping[Precision, PrecisionReport]
    failures: Mapping[str, str]
    seconds: float

    @property
    def planned(self) -> tuple[int, ...]:
        """The numbers of samples that reports show plans for."""
        return tuple(sorted({*PLANNED, self.max_batch}))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; seconds for each choice and batch size, and the plans."""
        return {
            "bundle": self.bundle,
            "model": self.model,
            "seconds": self.seconds,
            "precisions": {name: each.to_dict(self.planned) for name, each in self.precisions.items()},
            "failures": dict(self.failures),
        }


def tune(
    bundle: str | Path | Bundle,
    *,
    precisions: Sequence[Precision] | None = None,
    batches: Sequence[int] | None = None,
    threads: int | None = None,
    budget_s: float = DEFAULT_BUDGET,
    on_stage: Callable[[str], None] | None = None,
) -> TuneReport:
    """Measures all that this machine has for `bundle`, and keeps what is fastest for ``backend="auto"``.

    `precisions`: None for all that the bundle has. `batches`: sizes to measure, None for powers of two.
    `threads`: at most so many of the processor's threads, and no GPU; a later ``Generator.load(threads=...)``
    finds what was measured with the same number. `budget_s`: seconds of measuring; loading comes on top. Raises
    BundleError, InputError for arguments that don't fit, and BackendError where nothing could be measured.
    """
    start = time.monotonic()
    if not 0.1 <= budget_s <= 86400:
        raise InputError(f"expected a budget from 0.1 to 86400 seconds, got {budget_s:g}")
    _check_threads(threads)
    from gensdk_runtime.tuning.measure import measure
    from gensdk_runtime.tuning.points import full

    with _open(bundle) as opened:
        manifest = opened.manifest
        wanted = _check_precisions(manifest, precisions)
        sizes = None if batches is None else _check_batches(manifest.model, batches)
        with store.measuring_alone(patience=60.0):
            measured = measure(opened, wanted, full(budget_s), threads=threads, batches=sizes, on_stage=on_stage)
        if not measured.tables:
            reasons = "; ".join(f"{what}: {why}" for what, why in measured.failures.items())
            raise BackendError(
                f"nothing could be measured ({reasons[:300] or 'no backend is installed'}); gensdk env"
            )
        reports = {}
        for precision, table in measured.tables.items():
            kept = trimmed(table, _sizes(manifest.model, table), measured.noise)
            key = measurement_key(manifest, precision, threads)
            reports[precision] = PrecisionReport(table, kept, store.save_table(key, kept, manifest, "full"))
        return TuneReport(
            bundle=str(opened.path),
            model=manifest.model.name,
            max_batch=manifest.model.max_batch,
            precisions=reports,
            failures=dict(measured.failures),
            seconds=time.monotonic() - start,
        )


@dataclass(frozen=True)
class Awaited:
    """Another process is measuring at this moment, and stores what it finds."""

    bundle: Bundle
    precision: Precision | Literal["auto"]
    threads: int | None

    def look(self) -> Tuned | Literal["measuring"] | None:
        """What was found; None where the other process ended without; ``"measuring"`` as long as it is at it."""
        manifest = self.bundle.manifest
        wanted = manifest.precisions if self.precision == "auto" else (self.precision,)
        with store.measuring_this(measurement_key(manifest, wanted[0], self.threads)) as over:
            tables = _stored(manifest, wanted, self.threads)
        if tables is None:
            return None if over else "measuring"
        best = _faster(manifest.model, tables)
        return Tuned(best, tables[best])


def tuned(bundle: Bundle, precision: Precision | Literal["auto"], threads: int | None) -> Tuned | Awaited | None:
    """The costs to sample by: stored ones, or those of a short measurement, which is then stored.

    ``"auto"`` takes the faster of the bundle's precisions. Where another process measures the same, it is not
    waited for. None where nothing can be known: GENSDK_TUNE=off, the arguments don't fit the bundle, or nothing
    can be measured here.
    """
    manifest = bundle.manifest
    wanted = manifest.precisions if precision == "auto" else (precision,)
    if switched_off() or not set(wanted) <= set(manifest.precisions) or not _threads_fit(threads):
        return None
    tables = _stored(manifest, wanted, threads)
    if tables is None and manifest_name(manifest, threads) not in _failed:
        with store.measuring_this(measurement_key(manifest, wanted[0], threads)) as alone:
            if not alone:
                return Awaited(bundle, precision, threads)
            tables = _measure_shortly(bundle, wanted, threads)
    if not tables:
        return None
    best = _faster(manifest.model, tables)
    return Tuned(best, tables[best])


def clear(bundle: str | Path | Bundle, threads: int | None = None) -> int:
    """Forgets what was measured for `bundle` on this machine with these `threads`; how many files there were."""
    with _open(bundle) as opened:
        keys = [measurement_key(opened.manifest, each, threads) for each in opened.manifest.precisions]
        return store.clear_tables(keys)


def switched_off() -> bool:
    """Whether GENSDK_TUNE=off forbids measuring and the use of what was measured."""
    return os.environ.get(ENVIRONMENT, "").strip().lower() in ("off", "0", "no", "false")


def manifest_name(manifest: Manifest, threads: int | None) -> str:
    """Names a bundle and thread limit within this process."""
    return f"{measurement_key(manifest, 'fp32', threads)['bundle']} {threads}"


def _stored(
    manifest: Manifest, precisions: Sequence[Precision], threads: int | None
) -> dict[Precision, CostTable] | None:
    """The stored costs; None where those of one precision are missing."""
    tables = {}
    for each in precisions:
        table = store.load_table(measurement_key(manifest, each, threads), manifest)
        if table is None:
            return None
        tables[each] = table
    return tables


def _measure_shortly(
    bundle: Bundle, precisions: Sequence[Precision], threads: int | None
) -> dict[Precision, CostTable]:
    """Measures and stores; empty, and not tried again in this process, where that can't be done."""
    from gensdk_runtime.tuning.measure import Measured, measure
    from gensdk_runtime.tuning.points import SHORT

    manifest = bundle.manifest
    _announce(manifest.model)
    with store.measuring_alone(patience=30.0):
        found = _stored(manifest, precisions, threads)  # by another process, while this one waited
        if found is not None:
            return found
        try:
            measured = measure(bundle, precisions, SHORT, threads=threads)
        except (GensdkError, OSError):
            measured = Measured({}, {}, 0.0)
    if set(measured.tables) != set(precisions):
        _failed.add(manifest_name(manifest, threads))
        return {}
    tables = {
        each: trimmed(table, _sizes(manifest.model, table), measured.noise)
        for each, table in measured.tables.items()
    }
    for each, table in tables.items():
        store.save_table(measurement_key(manifest, each, threads), table, manifest, "short")
    return tables


def _faster(model: ModelSpec, tables: Mapping[Precision, CostTable]) -> Precision:
    """The precision that is faster on the whole; fp32, the exact one, where the gain is not worth it."""
    sizes = sorted({1, min(8, largest_batch(model)), largest_batch(model)})
    best: Precision = next(iter(tables))
    for each, table in tables.items():
        ratio = 1.0
        for n in sizes:
            ratio *= table.cost(n) / tables[best].cost(n)
        if ratio ** (1 / len(sizes)) < 1 - GAIN:
            best = each
    return best


def _sizes(model: ModelSpec, table: CostTable) -> list[int]:
    """The numbers of samples at which choices are compared: all that were measured, and the usual ones."""
    return sorted({*PLANNED, largest_batch(model), *(cost.samples for cost in table.costs)})


def _plan_dict(table: CostTable, n: int) -> dict[str, Any]:
    return {"seconds": table.cost(n), "rounds": [describe_round(found) for found in table.plan(n)]}


def describe_round(found: Round) -> dict[str, Any]:
    """A round for JSON: who runs it, the samples of each batch, and what they are padded to."""
    return {"choice": found.choice.label, "counts": list(found.counts), "padded_to": found.batch}


def _check_precisions(manifest: Manifest, precisions: Sequence[Precision] | None) -> tuple[Precision, ...]:
    for each in precisions or ():
        if each not in manifest.precisions:
            raise InputError(f"the bundle has no precision {each!r}{did_you_mean(each, manifest.precisions)}")
    return manifest.precisions if precisions is None else tuple(dict.fromkeys(precisions))


def _check_batches(model: ModelSpec, batches: Sequence[int]) -> list[int]:
    if not batches:
        raise InputError("expected batch sizes to measure at, got none; leave batches out for powers of two")
    return [check_whole(size, "batch_size", least=1, most=model.max_batch) for size in batches]


def _check_threads(threads: int | None) -> None:
    create_backend("fake", threads=threads)  # the one place that knows what is allowed


def _threads_fit(threads: int | None) -> bool:
    try:
        _check_threads(threads)
    except InputError:
        return False
    return True


@contextmanager
def _open(bundle: str | Path | Bundle) -> Iterator[Bundle]:
    if isinstance(bundle, Bundle):
        yield bundle
        return
    with Bundle.open(bundle) as opened:
        yield opened


def _announce(model: ModelSpec) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print(
            f"measuring what runs {printable(model.name)} fastest on this machine: once, seconds (gensdk tune "
            f"takes longer and knows better; {ENVIRONMENT}=off leaves it out)",
            file=sys.stderr,
        )
