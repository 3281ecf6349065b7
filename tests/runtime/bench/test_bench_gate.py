"""The gate's statistics on synthetic latencies whose true ratio is known, and its refusals."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.bench.bootstrap import RatioInterval, Statistic, block_length, ratio_intervals
from gensdk_runtime.bench.gate import Limit, compare_paired, compare_with_baseline, failed, machine_warnings
from gensdk_runtime.bench.latency_report import (
    BenchSettings,
    Case,
    Comparison,
    Report,
    Run,
    SamplingOptions,
    Subject,
)
from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.errors import InputError

MEDIAN, MEAN, P95 = Statistic(50.0), Statistic(), Statistic(95.0)


def drift(rng, calls, *, spread, memory=0.95):
    """The machine's speed over time: a stationary AR(1) in logarithms."""
    steps = rng.standard_normal(calls) * spread * np.sqrt(1 - memory**2)
    steps[0] = rng.standard_normal() * spread
    for i in range(1, calls):
        steps[i] += memory * steps[i - 1]
    return steps


def noise(rng, calls, *, spikes):
    """Each call's own luck: lognormal, and rare long spikes."""
    return 0.05 * rng.standard_normal(calls) + (rng.random(calls) < spikes) * rng.exponential(0.7, calls)


def latencies(rng, *, slowdown=1.0, runs=10, calls=40, wander=0.1, luck=0.01, spikes=0.0, paired=True):
    """(new, old): float64 [calls] for each run; new is `slowdown` times old but for noise.

    Paired, both sides see the machine wander together; otherwise each has its own hour.
    """
    new, old = [], []
    for _ in range(runs):
        speed = drift(rng, 2 * calls, spread=wander)
        other = speed if paired else drift(rng, 2 * calls, spread=wander)
        load = luck * rng.standard_normal(2)
        new.append(slowdown * np.exp(speed[::2] + load[0] + noise(rng, calls, spikes=spikes)))
        old.append(np.exp(other[1::2] + load[1] + noise(rng, calls, spikes=spikes)))
    return new, old


WORLDS = {
    "quiet": {"wander": 0.02},
    "usual": {},
    "drifting threefold": {"wander": 0.5},
    "spiky": {"spikes": 0.05},
    "unlucky loads": {"luck": 0.03},
}


@functools.cache
def intervals(world="usual", statistic=MEDIAN, *, slowdown=1.0, paired=True) -> tuple[RatioInterval, ...]:
    """Intervals of 40 seeded data sets."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        new, old = latencies(rng, slowdown=slowdown, paired=paired, **WORLDS[world])
        found += ratio_intervals(new, old, [statistic], paired=paired, resamples=200, seed=seed)
    return tuple(found)


@pytest.mark.parametrize(
    ("world", "statistic", "paired"),
    [
        *((world, MEDIAN, True) for world in WORLDS),
        ("usual", MEAN, True),
        ("usual", P95, True),
        ("usual", MEDIAN, False),
    ],
)
def test_intervals_hold_the_truth(world, statistic, paired) -> None:
    """A 95 % interval misses on each side in 2.5 % of cases; 40 trials may by chance show 5 (p < 0.001)."""
    found = intervals(world, statistic, paired=paired)
    assert sum(interval.low > 1.0 for interval in found) <= 5
    assert sum(interval.high < 1.0 for interval in found) <= 5


@pytest.mark.parametrize("world", WORLDS)
def test_the_gate_is_right_about_none_and_about_a_fifth(world) -> None:
    """The promise of the gate: no false alarm, and 20 % of delay always found, in each world."""
    limit = Limit.parse("p50:+5%")
    assert all(limit.verdict(interval) != "slower" for interval in intervals(world))
    assert all(limit.verdict(interval) == "slower" for interval in intervals(world, slowdown=1.2))


def test_an_unpaired_half_is_found() -> None:
    assert all(interval.low > 1.05 for interval in intervals(slowdown=1.5, paired=False))


def test_pairing_pays_on_a_drifting_machine() -> None:
    def width(paired):
        new, old = latencies(np.random.default_rng(0), paired=paired, wander=0.3)
        (interval,) = ratio_intervals(new, old, [MEDIAN], paired=paired)
        return interval.high / interval.low

    assert width(True) ** 3 < width(False)


def test_blocks_grow_with_the_memory_of_the_machine() -> None:
    rng = np.random.default_rng(0)
    independent = [rng.standard_normal(400) for _ in range(3)]
    drifting = [drift(rng, 400, spread=1.0, memory=0.95) for _ in range(3)]
    assert block_length(independent) <= 12
    assert 20 <= block_length(drifting) <= 100


@given(unit=st.floats(1e-3, 1e3), slowdown=st.floats(0.2, 5))
@settings(deadline=None, max_examples=30)
def test_a_factor_on_one_side_scales_the_interval_and_a_unit_does_nothing(unit, slowdown) -> None:
    new, old = latencies(np.random.default_rng(3), calls=12, runs=3, spikes=0.05)
    slow, other = [unit * slowdown * run for run in new], [unit * run for run in old]
    for statistic in (MEDIAN, MEAN, P95):
        (one,) = ratio_intervals(new, old, [statistic], paired=True, resamples=50)
        (two,) = ratio_intervals(slow, other, [statistic], paired=True, resamples=50)
        scaled = (slowdown * one.ratio, slowdown * one.low, slowdown * one.high)
        assert (two.ratio, two.low, two.high) == pytest.approx(scaled)


@pytest.mark.parametrize(
    ("limit", "interval", "verdict"),
    [
        ("p50:+5%", (1.06, 1.20), "slower"),
        ("p50:+5%", (0.97, 1.04), "same"),
        ("p50:+5%", (0.70, 0.90), "faster"),
        ("p50:+5%", (0.93, 0.99), "faster"),
        ("p50:+5%", (1.01, 1.09), "can't tell"),
        ("p50:+5%", (0.80, 1.30), "can't tell"),
        ("throughput:-5%", (1.06, 1.20), "slower"),
        ("throughput:-5%", (1.051, 1.20), "can't tell"),  # 1 / 0.95 = 1.0526
        ("throughput:-5%", (0.97, 1.04), "same"),
    ],
)
def test_verdicts_follow_the_interval(limit, interval, verdict) -> None:
    low, high = interval
    assert Limit.parse(limit).verdict(RatioInterval((low + high) / 2, low, high)) == verdict


@pytest.mark.parametrize(
    "text",
    ["p95", "p95:5%", "p95:-5%", "throughput:+5%", "min:+5%", "max:+5%", "p100:+5%", "p0:+5%", "mean:+5", "",
     "p95:+5%;", "throughput:-100%", "p95:+nan%", "x" * 10_000],
)  # fmt: skip
def test_limits_that_mean_nothing_are_refused(text) -> None:
    with pytest.raises(InputError):
        Limit.parse(text)


def subject(**changes) -> Subject:
    given = {
        "bundle": "a.gsdk", "model": "a", "image": (1, 8, 8), "backend": "fake", "precision": "fp32", "batch": 4,
        "threads": 1, "options": SamplingOptions(num_inference_steps=20),
    }  # fmt: skip
    return Subject(**(given | changes))


def case(runs, *, probe_ns=100_000, graphs_share=0.0, **changes) -> Case:
    kept = tuple(
        Run(
            load_ns=10**7, first_call_ns=10**7, probe_ns=probe_ns,
            graphs_ns=int(graphs_share * np.median(run) * 1e6) or 10**6,
            latencies_ns=tuple(int(ms * 1e6) for ms in run),
        )
        for run in runs
    )  # fmt: skip
    return Case.of(subject(**changes), kept, (95.0,))


def report(*cases: Case, **machine) -> Report:
    return Report(
        created="2026-01-01T00:00:00+00:00",
        machine=this_machine().model_copy(update=machine),
        settings=BenchSettings(runs=10),
        cases=cases,
    )


def verdict(comparisons: tuple[Comparison, ...]) -> str:
    (comparison,) = comparisons
    return comparison.verdict


def test_baseline_finds_slower_and_same() -> None:
    new, old = latencies(np.random.default_rng(0), slowdown=1.3, paired=False, wander=0.02)
    limits = [Limit.parse("mean:+10%")]
    assert verdict(compare_with_baseline(case(new), report(case(old)), limits)) == "slower"
    assert verdict(compare_with_baseline(case(old), report(case(old)), limits)) == "same"
    assert verdict(compare_with_baseline(case(old), report(case(new)), limits)) == "faster"


def test_a_slow_hour_of_the_machine_is_no_slow_model() -> None:
    new, old = latencies(np.random.default_rng(0), slowdown=1.3, paired=False, wander=0.02)
    limits = [Limit.parse("p50:+5%")]
    (comparison,) = compare_with_baseline(case(new, probe_ns=130_000), report(case(old)), limits)
    assert comparison.verdict == "can't tell"
    assert "0.77 of the baseline's speed" in comparison.reason
    (comparison,) = compare_with_baseline(case(old, probe_ns=70_000), report(case(old)), limits)
    assert comparison.verdict == "can't tell", "a fast hour must not hide a slow model"


def test_throughput_is_told_in_its_own_direction() -> None:
    new, old = latencies(np.random.default_rng(0), slowdown=1.25)
    mean, throughput = compare_paired(
        case(new), case(old), [Limit.parse("mean:+5%"), Limit.parse("throughput:-5%")]
    )
    assert mean.verdict == throughput.verdict == "slower"
    assert throughput.ratio == pytest.approx(1 / mean.ratio)
    assert throughput.low < throughput.ratio < throughput.high < 0.95


@pytest.mark.parametrize(
    ("runs", "calls", "limit", "reason"),
    [(2, 40, "p50:+5%", "runs"), (5, 3, "p50:+5%", "--iterations"), (5, 10, "p95:+5%", "too few for p95")],
)
def test_too_little_data_is_said_and_not_judged(runs, calls, limit, reason) -> None:
    new, old = latencies(np.random.default_rng(0), slowdown=9.0, runs=runs, calls=calls)
    (comparison,) = compare_paired(case(new), case(old), [Limit.parse(limit)])
    assert (comparison.verdict, comparison.ratio) == ("can't tell", None)
    assert reason in comparison.reason


@pytest.mark.parametrize(
    ("limit", "verdict", "ratio", "fails"),
    [
        ("p50:+5%", "slower", 1.2, True),
        ("p50:+5%", "can't tell", None, True),
        ("p50:+5%", "can't tell", 3.0, True),
        ("p50:+5%", "can't tell", 1.03, False),
        ("p50:+5%", "can't tell", 0.9, False),
        ("throughput:-5%", "can't tell", 0.4, True),
        ("throughput:-5%", "can't tell", 1.4, False),
        ("p50:+5%", "same", 1.01, False),
        ("p50:+5%", "faster", 0.5, False),
    ],
)
def test_what_could_not_be_told_passes_only_where_it_looks_right(limit, verdict, ratio, fails) -> None:
    comparison = Comparison(
        subject=case([np.ones(4)]).subject, against="old", limit=limit, ratio=ratio, low=None, high=None,
        confidence=0.95, verdict=verdict, reason="",
    )  # fmt: skip
    found = report().model_copy(update={"comparisons": (comparison,)})
    assert bool(failed(found)) == fails


def test_the_share_inside_the_graphs_is_never_above_one() -> None:
    """Runs at different speeds: the median run is not the run of the median call."""
    paces = [1.0] * 4 + [10.0]
    made = [np.full(1 if pace == 1.0 else 40, pace) for pace in paces]
    summary = case(made, graphs_share=0.9).summary
    assert summary.graphs_ms / summary.percentiles_ms["p50"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "b"), ("backend", "onnxruntime"), ("precision", "fp16"), ("batch", 8), ("threads", None),
     ("image", (3, 8, 8)), ("options", SamplingOptions(num_inference_steps=50))],
)  # fmt: skip
def test_other_settings_are_named(key, value) -> None:
    new, old = latencies(np.random.default_rng(0))
    with pytest.raises(
        InputError, match="num_inference_steps: 20 here, 50 there" if key == "options" else f"{key}: "
    ):
        compare_with_baseline(case(new), report(case(old, **{key: value})), [Limit.parse("p50:+5%")])


def test_the_nearest_case_is_the_one_that_is_named() -> None:
    new, old = latencies(np.random.default_rng(0))
    far, near = case(old, model="b", batch=1, backend="onnxruntime"), case(old, batch=8)
    with pytest.raises(InputError, match=r"batch 4 \(batch: 4 here, 8 there\);"):
        compare_with_baseline(case(new), report(far, near), [Limit.parse("p50:+5%")])


def test_another_name_of_the_bundle_is_the_same_subject() -> None:
    new, old = latencies(np.random.default_rng(0))
    assert compare_with_baseline(case(new, bundle="new.gsdk"), report(case(old)), [Limit.parse("p50:+5%")])


def test_another_machine_is_refused_unless_allowed() -> None:
    new, old = report(), report(cpu="Z80", cores=1)
    with pytest.raises(InputError, match=r"cpu: .*'Z80' there"):
        machine_warnings(new, old, allow_other_machine=False)
    assert len(machine_warnings(new, old, allow_other_machine=True)) == 2
    upgraded = report(versions={"numpy": "0.1"}, python="2.7")
    warnings = machine_warnings(new, upgraded, allow_other_machine=False)
    assert any("numpy" in warning for warning in warnings)
    assert any("python" in warning for warning in warnings)


def test_a_report_without_latencies_is_no_baseline() -> None:
    new, old = latencies(np.random.default_rng(0))
    with pytest.raises(InputError, match="--save"):
        compare_with_baseline(case(new), report(case(old)).without_latencies(), [Limit.parse("p50:+5%")])
