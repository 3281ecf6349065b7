"""Finds out what runs a bundle fastest on this machine, and remembers it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.backends import check_threads
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, InputError, did_you_mean
from gensdk_runtime.plan.costs import CostTable, Round
from gensdk_runtime.plan.fingerprint import measurement_key
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.tuning import store
from gensdk_runtime.tuning.pruning import USUAL_COUNTS, counts_to_compare, pruned

DEFAULT_BUDGET = 20.0


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
            "plans": {
                str(n): {"seconds": self.kept.cost(n), "rounds": [*map(describe_round, self.kept.plan(n))]}
                for n in sizes
            },
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
        return tuple(sorted({*USUAL_COUNTS, self.max_batch}))

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

    `precisions`: None for all that the bundle has. `batches`: sizes to measure at, None for the usual ones.
    `threads`: at most so many of the processor's threads, and no GPU; a later ``Generator.load(threads=...)``
    finds what was measured with the same number. `budget_s`: seconds of measuring, and of preparing backends for
    batch sizes; loading comes on top. Raises BundleError, InputError for arguments that don't fit, and
    BackendError where nothing could be measured.
    """
    start = time.monotonic()
    if not 0.1 <= budget_s <= 86400:
        raise InputError(f"expected a budget from 0.1 to 86400 seconds, got {budget_s:g}")
    threads = check_threads(threads)
    from gensdk_runtime.tuning.measurement import Measurement

    with _open(bundle) as opened:
        manifest = opened.manifest
        wanted = _check_precisions(manifest, precisions)
        sizes = None if batches is None else _check_batches(manifest.model, batches)
        measurement = Measurement(
            opened,
            wanted,
            budget_s,
            thorough=True,
            threads=threads,
            batches=sizes,
            on_stage=on_stage or (lambda stage: None),
        )
        with store.measuring_alone(patience=60.0):
            tables = measurement.run()
        if not tables:
            reasons = "; ".join(f"{what}: {why}" for what, why in measurement.failures.items())
            raise BackendError(
                f"nothing could be measured ({reasons[:300] or 'no backend is installed'}); gensdk env"
            )
        reports = {}
        for precision, table in tables.items():
            kept = pruned(table, counts_to_compare(manifest.model, table))
            key = measurement_key(manifest, precision, threads)
            reports[precision] = PrecisionReport(table, kept, store.save_table(key, kept, manifest))
        return TuneReport(
            bundle=str(opened.path),
            model=manifest.model.name,
            max_batch=manifest.model.max_batch,
            precisions=reports,
            failures=measurement.failures,
            seconds=time.monotonic() - start,
        )


def clear(bundle: str | Path | Bundle, threads: int | None = None) -> int:
    """Forgets what was measured for `bundle` on this machine with these `threads`; how many files there were."""
    with _open(bundle) as opened:
        keys = [measurement_key(opened.manifest, each, threads) for each in opened.manifest.precisions]
        return store.clear_tables(keys)


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
        raise InputError("expected batch sizes to measure at, got none; leave batches out for the usual ones")
    return [check_whole(size, "batch_size", least=1, most=model.max_batch) for size in batches]


@contextmanager
def _open(bundle: str | Path | Bundle) -> Iterator[Bundle]:
    if isinstance(bundle, Bundle):
        yield bundle
        return
    with Bundle.open(bundle) as opened:
        yield opened
