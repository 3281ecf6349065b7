"""Leaves out choices that hardly pay: each open backend holds the weights once more."""

from __future__ import annotations

from collections.abc import Iterable

from gensdk_runtime.plan.batches import largest_batch
from gensdk_runtime.plan.costs import Choice, CostTable
from gensdk_runtime.spec.model import ModelSpec

GAIN = 0.03
"""What a choice has to gain at some number of samples to be kept: what two measurements of one thing differ by."""

USUAL_COUNTS = (1, 8, 64)


def counts_to_compare(model: ModelSpec, table: CostTable) -> list[int]:
    """The numbers of samples at which choices are compared: all that were measured, and the usual ones."""
    return sorted({*USUAL_COUNTS, largest_batch(model), *(cost.samples for cost in table.costs)})


def pruned(table: CostTable, counts: Iterable[int]) -> CostTable:
    """`table` without the choices whose lack costs at most 3 % at each of these `counts` of samples.

    The most complex go first. Choices that run step by step are compared among themselves, since a one-call graph
    serves its own settings alone.
    """
    counts, kept = list(counts), list[Choice]()
    for steps in (True, False):
        doubtful = [choice for choice in table.choices if (choice.form == "steps") == steps]
        kept += doubtful
        best = {n: table.only(kept).cost(n) for n in counts} if doubtful else {}
        for choice in sorted(doubtful, key=complexity, reverse=True):
            fewer = [other for other in kept if other != choice]
            smaller = table.only(fewer) if fewer else None
            if smaller and all(smaller.cost(n) <= (1 + GAIN) * seconds for n, seconds in best.items()):
                kept = fewer
    return table.only(kept)


def complexity(choice: Choice) -> tuple[object, ...]:
    """Orders choices from the simple to the complex, so that a tie is decided the same way each time."""
    return (
        choice.form != "steps",
        choice.spinning,  # takes the processor from others
        choice.backend != "onnxruntime",
        choice.workers,
        choice.backend,
        choice.threads or 0,
    )
