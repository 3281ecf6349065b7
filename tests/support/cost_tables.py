"""Costs in the user's cache as if they had been measured, so that ``backend="auto"`` takes what a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.fingerprint import measurement_key
from gensdk_runtime.tuning import store


def table_for(choices: Sequence[Choice], largest: int = 4) -> CostTable:
    """One sample is cheapest with the first of `choices`, `largest` for each worker with the last."""
    costs = [Cost(choice=choice, batch=1, seconds=1.0 + place) for place, choice in enumerate(choices)]
    costs.append(Cost(choice=choices[-1], batch=largest, seconds=1.5 + len(choices)))
    padded = tuple(dict.fromkeys(choice.backend for choice in choices if choice.backend == "openvino"))
    return CostTable(costs=tuple(costs), padded=padded)


def store_costs(bundle: str | Path, choices: Sequence[Choice]) -> None:
    """Keeps :func:`table_for` in the cache that GENSDK_CACHE names."""
    with Bundle.open(bundle) as opened:
        manifest = opened.manifest
        store.save_table(measurement_key(manifest, "fp32", None), table_for(choices), manifest)
