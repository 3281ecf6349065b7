"""Laws of planning: what is made is what was asked for, and nothing that was measured would have been cheaper."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.tuning.pruning import GAIN, pruned

CHOICES = (
    Choice(threads=1),
    Choice(threads=4),
    Choice(threads=4, spinning=True),
    Choice(threads=1, workers=3),
    Choice(threads=1, workers=4),
    Choice(backend="openvino", threads=4),
    Choice(backend="openvino", threads=1, workers=2),
    Choice(backend="tensorrt"),
)


@st.composite
def tables(draw, choices=CHOICES) -> CostTable:
    costs = []
    for choice in draw(st.lists(st.sampled_from(choices), min_size=1, max_size=4, unique=True)):
        batches = draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 13, 16]), min_size=1, max_size=5, unique=True))
        for batch in sorted(batches):
            costs.append(Cost(choice=choice, batch=batch, seconds=draw(st.floats(1e-4, 1.0))))
    padded = draw(st.sampled_from([(), ("openvino",), ("openvino", "tensorrt")]))
    return CostTable(costs=tuple(costs), padded=padded)


def planned_seconds(table: CostTable, n: int) -> float:
    return sum(table.seconds(found.choice, found.samples) for found in table.plan(n))


@given(tables(), st.integers(1, 200))
def test_a_plan_makes_just_what_was_asked_for(table, n) -> None:
    plan = table.plan(n)
    assert sum(found.samples for found in plan) == n
    assert [found.samples for found in plan] == sorted((found.samples for found in plan), reverse=True)
    for found in plan:
        assert 1 <= len(found.counts) <= found.choice.workers
        assert max(found.counts) - min(found.counts) <= 1
        largest = max(cost.batch for cost in table.costs if cost.choice == found.choice)
        assert max(found.counts) <= largest
        if found.choice.backend in table.padded:
            sizes = {cost.batch for cost in table.costs if cost.choice == found.choice}
            assert found.batch in sizes
            assert found.batch >= max(found.counts)
        else:
            assert found.batch is None


@given(tables(), st.integers(1, 200))
def test_no_single_choice_repeated_is_cheaper(table, n) -> None:
    cost = planned_seconds(table, n)
    assert cost == pytest.approx(table.cost(n))
    for measured in table.costs:
        full, rest = divmod(n, measured.samples)
        tail = table.seconds(measured.choice, rest) if rest else 0.0
        assert cost <= (full * measured.seconds + tail) * (1 + 1e-9)


@given(tables(), st.integers(1, 12))
def test_no_split_at_all_is_cheaper(table, n) -> None:
    """Against all ways to write `n` as a sum of whole rounds that were measured, and one more."""
    sizes = {cost.samples for cost in table.costs if cost.samples <= n}
    seconds = []
    for count in range(4):
        for split in itertools.combinations_with_replacement(sorted(sizes), count):
            if sum(split) <= n:
                parts = [*split, *([n - sum(split)] if sum(split) < n else [])]
                seconds.append(sum(min(table.seconds(c, part) for c in table.choices) for part in parts))
    assert table.cost(n) <= min(seconds) * (1 + 1e-9)


def test_a_padded_round_may_be_the_cheapest_at_a_size_of_another() -> None:
    """Three samples as four in a batch that is fast, and not as the three that another choice was measured at."""
    slow, padded = Choice(backend="tensorrt"), Choice(backend="openvino", workers=2)
    costs = [Cost(choice=slow, batch=3, seconds=1.0)]
    costs += [Cost(choice=padded, batch=batch, seconds=cost) for batch, cost in ((1, 1.0), (2, 0.25), (3, 1.0))]
    table = CostTable(costs=tuple(costs), padded=("openvino",))
    assert table.cost(9) == pytest.approx(0.75)
    plan = table.plan(9)
    assert [(found.choice, found.batch) for found in plan] == [(padded, 2)] * 3
    assert sum(sum(found.counts) for found in plan) == 9


@given(tables(), st.lists(st.integers(1, 150), min_size=1, max_size=6))
def test_a_plan_does_not_depend_on_what_was_asked_before(table, ns) -> None:
    fresh = [CostTable(costs=table.costs, padded=table.padded).plan(n) for n in ns]
    assert [table.plan(n) for n in ns] == fresh
    assert [table.plan(n) for n in reversed(ns)] == fresh[::-1]


@given(tables(), st.integers(1, 60))
def test_a_table_survives_json(table, n) -> None:
    again = CostTable.from_json(table.to_json(), what="test")
    assert again == table
    assert again.plan(n) == table.plan(n)


@given(tables(), st.integers(1, 100), st.integers(1, 20))
def test_batches_of_a_given_size(table, n, batch) -> None:
    plan = table.plan_batches(n, batch)
    counts = [count for found in plan for count in found.counts]
    assert counts == [batch] * (n // batch) + ([n % batch] if n % batch else [])
    assert len({found.choice for found in plan}) == 1
    for found in plan:
        assert len(found.counts) <= found.choice.workers
        assert found.batch == (batch if found.choice.backend in table.padded else None)


def test_padding_is_chosen_only_where_it_is_cheaper() -> None:
    def plan(eight: float) -> list[tuple[int, int | None]]:
        choice = Choice(backend="openvino")
        costs = (Cost(choice=choice, batch=1, seconds=1.0), Cost(choice=choice, batch=8, seconds=eight))
        table = CostTable(costs=costs, padded=("openvino",))
        return [(found.samples, found.batch) for found in table.plan(3)]

    assert plan(2.9) == [(3, 8)]
    assert plan(3.1) == [(1, 1)] * 3
    assert plan(0.9) == [(3, 8)]


def test_what_is_padded_goes_to_the_cheapest_size() -> None:
    choice = Choice(backend="openvino")
    costs = [
        Cost(choice=choice, batch=size, seconds=each) for size, each in ((1, 1.0), (3, 0.25), (5, 2.0), (8, 1.5))
    ]
    table = CostTable(costs=tuple(costs), padded=("openvino",))
    assert [(found.samples, found.batch) for found in table.plan(7)] == [(3, 3), (3, 3), (1, 3)]
    assert table.cost(7) == pytest.approx(0.75)
    assert table.seconds(choice, 4) == 1.5


def test_rounds_of_several_sizes_are_combined_beyond_the_largest() -> None:
    choice = Choice()
    costs = [Cost(choice=choice, batch=size, seconds=each) for size, each in ((1, 1.0), (2, 0.75), (3, 1.0))]
    table = CostTable(costs=tuple(costs))
    assert [found.samples for found in table.plan(10)] == [3, 3, 2, 2]
    assert table.cost(10) == pytest.approx(3.5)


def test_one_batch_does_not_wait_for_workers_it_does_not_use() -> None:
    alone, both = Choice(threads=1), Choice(threads=1, workers=2)
    costs = (Cost(choice=both, batch=8, seconds=1.1), Cost(choice=alone, batch=8, seconds=1.0))
    table = CostTable(costs=costs)
    assert table.plan_batches(8, 8)[0].choice == alone
    assert table.plan_batches(16, 8)[0].choice == both


@given(tables())
def test_pruning_costs_next_to_nothing(table) -> None:
    ns = [1, 2, 8, 40]
    small = pruned(table, ns)
    assert set(small.costs) <= set(table.costs)
    assert all(small.cost(n) <= (1 + GAIN) * table.cost(n) * (1 + 1e-9) for n in ns)


@given(st.floats(0.985, 1.015), st.sampled_from(CHOICES[1:]))
def test_of_equal_choices_the_simplest_stays(ratio, other) -> None:
    simple = Choice(threads=1)
    assume(other.alone != simple)
    costs = []
    for batch in (1, 8):
        costs += [Cost(choice=other, batch=batch, seconds=ratio * batch * other.workers)]
        costs += [Cost(choice=simple, batch=batch, seconds=float(batch))]
    assert pruned(CostTable(costs=tuple(costs)), [1, 8, 64]).choices == (simple,)


def test_a_second_backend_stays_where_it_pays() -> None:
    small, large = Choice(threads=1), Choice(backend="tensorrt")
    costs = [Cost(choice=small, batch=b, seconds=1.0 * b) for b in (1, 64)]
    costs += [Cost(choice=large, batch=b, seconds=4.0) for b in (1, 64)]
    table = pruned(CostTable(costs=tuple(costs)), [1, 8, 64])
    assert set(table.choices) == {small, large}
    assert table.plan(2)[0].choice == small
    assert table.plan(64)[0].choice == large


def test_steps_stay_beside_one_call() -> None:
    """The one-call graph can't serve other settings."""
    steps, whole = Choice(threads=1), Choice(threads=1, form="one_call")
    slow = Choice(threads=4, spinning=True)
    costs = [Cost(choice=c, batch=1, seconds=s) for c, s in ((steps, 2.0), (whole, 1.0), (slow, 3.0))]
    assert set(pruned(CostTable(costs=tuple(costs)), [1, 8]).choices) == {steps, whole}
