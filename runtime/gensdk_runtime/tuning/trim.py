"""Keeps the choices that pay: each open backend holds the weights once more."""

from __future__ import annotations

from collections.abc import Iterable

from gensdk_runtime.plan.costs import Choice, CostTable

GAIN = 0.02
"""What a choice has to gain at some number of samples to be kept. Below the 3 % by which ``auto`` may lag behind
the best, and about what two measurements of the same thing differ by on a quiet machine."""

MAX_GAIN = 0.1


def trimmed(table: CostTable, sizes: Iterable[int], noise: float = 0.0) -> CostTable:
    """`table` without the choices whose lack costs next to nothing at each of `sizes` samples.

    Next to nothing is 2 % of the best time, or twice the `noise` of the costs where that is more (but at most
    10 %): the lowest of several equal costs always looks like a gain. The most complex go first: first whole
    backends with all their workers, then single choices. Choices that run step by step are compared among
    themselves, since a one-call graph serves its own settings alone.
    """
    ns, gain = sorted(set(sizes)), min(MAX_GAIN, max(GAIN, 2 * noise))
    steps = [choice for choice in table.choices if choice.form == "steps"]
    whole = [choice for choice in table.choices if choice.form != "steps"]
    kept = list(_trim(table.only(steps), steps, ns, gain).choices) if steps else []
    return _trim(table.only([*kept, *whole]), whole, ns, gain) if whole else table.only(kept)


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


def _trim(table: CostTable, doubtful: Iterable[Choice], ns: list[int], gain: float) -> CostTable:
    """`table` without those of the `doubtful` choices that don't pay."""
    best = {n: table.cost(n) for n in ns}
    doubted = sorted(doubtful, key=complexity, reverse=True)
    for alone in dict.fromkeys(choice.alone for choice in doubted):
        table = _without(table, {choice for choice in doubted if choice.alone == alone}, best, gain)
    for choice in doubted:
        table = _without(table, {choice}, best, gain)
    return table


def _without(table: CostTable, gone: set[Choice], best: dict[int, float], gain: float) -> CostTable:
    kept = [choice for choice in table.choices if choice not in gone]
    if not kept:
        return table
    smaller = table.only(kept)
    return smaller if all(smaller.cost(n) <= (1 + gain) * seconds for n, seconds in best.items()) else table
