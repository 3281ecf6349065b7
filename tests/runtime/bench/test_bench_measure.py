"""Measuring, on fakes and on a real graph; what reports hold, and which files are refused as baselines."""

from __future__ import annotations

import gc
import json
import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gensdk_runtime.bench import suite
from gensdk_runtime.bench.latency_report import (
    MAX_CALLS_PER_RUN,
    MAX_REPORT_BYTES,
    BenchSettings,
    Report,
    SamplingOptions,
)
from gensdk_runtime.bench.machine import speed_probe_ns, this_machine
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.bench.plot import plot_report
from gensdk_runtime.errors import BundleError, InputError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_files import decode
from support.models import MODELS, generator
from support.refusals import refusal_of
from support.step_bundle import write_step_bundle

QUICK = BenchSettings(warmup_ms=1, duration_s=0.02, iterations=12, runs=3, patience=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_step_bundle(tmp_path_factory.mktemp("bench") / "tiny.gsdk")


@pytest.fixture(scope="module")
def report(bundle) -> Report:
    return suite.bench(bundle, batches=[1, 3], backends=["fake", "onnxruntime"], threads=1, settings=QUICK)


@pytest.mark.parametrize("program", MODELS)
def test_every_program_can_be_measured(program) -> None:
    (case,) = measure([Target("x", lambda: generator(MODELS[program]()), batch=3)], QUICK)
    summary = case.summary
    assert [len(run.latencies_ns) >= 4 for run in case.runs] == [True] * 3
    assert summary.calls == sum(len(run.latencies_ns) for run in case.runs)
    tails = [summary.percentiles_ms[name] for name in ("p50", "p90", "p95", "p99")]
    assert sorted(tails) == tails
    assert 0 < summary.min_ms <= tails[0] <= tails[-1] <= summary.max_ms
    assert summary.min_ms <= summary.mean_ms <= summary.max_ms
    assert summary.samples_per_second == pytest.approx(3000 / summary.mean_ms)
    assert 0 < summary.graphs_ms < summary.max_ms


def test_each_case_is_measured_as_asked(report, bundle) -> None:
    asked = [("fake", 1), ("fake", 3), ("onnxruntime", 1), ("onnxruntime", 3)]
    assert [(case.subject.backend, case.subject.batch) for case in report.cases] == asked
    subject = report.cases[0].subject
    assert (subject.bundle, subject.model, subject.precision, subject.threads) == (str(bundle), "tiny", "fp32", 1)
    assert subject.options.solver == "ddim", "the defaults that held are part of what was measured"
    assert subject.options.num_inference_steps == 20
    assert report.comparisons == ()


def test_options_reach_the_sampler(bundle) -> None:
    few = QUICK.model_copy(update={"options": SamplingOptions(num_inference_steps=3, solver="ddpm")})
    (case,) = suite.bench(bundle, backends=["fake"], settings=few).cases
    assert (case.subject.options.num_inference_steps, case.subject.options.solver) == (3, "ddpm")


class Tally:
    """A sampler that writes down who was called."""

    def __init__(self, name, log) -> None:
        self.name, self.log, self.inner = name, log, generator(MODELS["feedforward"]())
        self.model, self.sessions = self.inner.model, self.inner.sessions
        log.append(("open", name))

    def sample(self, *args, **keywords):
        self.log.append((gc.isenabled(), self.name))
        return self.inner.sample(*args, **keywords)

    def close(self) -> None:
        self.log.append(("close", self.name))


def test_targets_are_called_in_turn_with_the_collector_off() -> None:
    log: list[tuple[object, str]] = []
    targets = [Target(name, lambda name=name: Tally(name, log)) for name in ("a", "b")]
    settings = BenchSettings(warmup_ms=0, duration_s=0, iterations=40, runs=2)
    first, second = measure(targets, settings)
    timed = "".join(name for event, name in log if event is False)
    pairs = [timed[i : i + 2] for i in range(0, len(timed), 2)]
    assert len(pairs) == 40
    assert set(pairs) == {"ab", "ba"}, "both, in an order that changes"
    assert first.summary.calls == second.summary.calls == 40
    events = [event for event, _ in log]
    assert (events.count("open"), events.count("close")) == (4, 4), "each run loads anew, and closes"
    assert gc.isenabled()


def test_the_collector_comes_back_and_samplers_are_closed_after_an_error() -> None:
    log: list[tuple[object, str]] = []

    class Broken(Tally):
        def sample(self, *args, **keywords):
            if not gc.isenabled():
                raise RuntimeError("in the middle")
            return super().sample(*args, **keywords)

    with pytest.raises(RuntimeError, match="in the middle"):
        measure([Target("a", lambda: Tally("a", log)), Target("b", lambda: Broken("b", log))], QUICK)
    assert gc.isenabled()
    assert sorted(name for event, name in log if event == "close") == ["a", "b"]


class Slow(Tally):
    def sample(self, *args, **keywords):
        time.sleep(0.02)
        return super().sample(*args, **keywords)


def slow_against_quick(patience, limits):
    targets = Target("new", lambda: Slow("new", [])), Target("old", lambda: Tally("old", []))
    settings = BenchSettings(warmup_ms=0, duration_s=0, iterations=16, runs=4, patience=patience)
    return suite.measure_in_turn(*targets, settings, [suite.Limit.parse(text) for text in limits])


def test_a_model_that_is_several_times_slower_is_never_called_the_same() -> None:
    _, _, (comparison,) = slow_against_quick(1, ["p50:+5%"])
    assert comparison.verdict in ("slower", "can't tell")
    assert comparison.confidence == pytest.approx(0.95)


def test_each_run_has_enough_calls_however_long_a_call_takes() -> None:
    """Time for one call a run only: without more calls there would be no verdict at all."""
    targets = Target("new", lambda: Slow("new", [])), Target("old", lambda: Tally("old", []))
    settings = BenchSettings(warmup_ms=0, duration_s=0, iterations=1, runs=10, patience=1)
    new, old, (comparison,) = suite.measure_in_turn(*targets, settings, [suite.Limit.parse("p50:+5%")])
    assert [len(run.latencies_ns) for run in (*new.runs, *old.runs)] == [4] * 20
    assert comparison.ratio is not None
    assert comparison.ratio > 1.05


def test_patience_measures_again_what_did_not_tell_and_pays_for_each_look() -> None:
    """A p99 of 48 calls is never told, so that all looks are taken; the limit of 900 % is not in doubt."""
    new, old, comparisons = slow_against_quick(3, ["p99:+5%", "p50:+900%"])
    assert len(new.runs) == len(old.runs) == 12
    assert new.summary.calls == old.summary.calls == 48
    assert comparisons[0].verdict == "can't tell"
    assert all(comparison.confidence == pytest.approx(1 - 0.05 / 3) for comparison in comparisons)


def test_calls_in_a_run_are_bounded() -> None:
    class Instant(Tally):
        def sample(self, *args, **keywords):
            self.samples = getattr(self, "samples", None) or self.inner.sample(*args, **keywords)
            return self.samples

    endless = BenchSettings(warmup_ms=0, duration_s=3600)
    (case,) = measure([Target("x", lambda: Instant("x", []))], endless)
    assert case.summary.calls == MAX_CALLS_PER_RUN


def test_a_batch_that_would_be_split_is_refused(bundle) -> None:
    with pytest.raises(InputError, match="1 to 64"):
        suite.bench(bundle, batches=[65], backends=["fake"], settings=QUICK)


@pytest.mark.parametrize("fail_on", [["p50:+5%"], ["p90:+5%", "throughput:-50%"]])
def test_against_another_bundle(bundle, fail_on) -> None:
    report = suite.bench(bundle, against=bundle, backends=["fake"], fail_on=fail_on, settings=QUICK)
    assert [comparison.limit for comparison in report.comparisons] == fail_on
    assert len(report.cases) == 2
    assert all(c.verdict in ("faster", "same", "slower", "can't tell") for c in report.comparisons)


def test_refusals_before_anything_is_measured(bundle, report, tmp_path) -> None:
    with pytest.raises(InputError, match="got both"):
        suite.bench(bundle, against=bundle, baseline=report)
    with pytest.raises(InputError, match="p95"):
        suite.bench(bundle, fail_on=["p95"])
    with pytest.raises(BundleError):
        suite.bench(tmp_path / "none.gsdk")


def test_reports_come_back_from_files_as_they_were(report, bundle, tmp_path) -> None:
    report.save(tmp_path / "baseline.json")
    again = Report.load(tmp_path / "baseline.json")
    assert again == report
    compared = suite.bench(
        bundle, baseline=again, batches=[1, 3], backends=["fake", "onnxruntime"], threads=1, settings=QUICK
    )
    assert len(compared.comparisons) == 4
    assert json.loads(report.without_latencies().to_json())["cases"][0]["runs"] == []


def damaged(report: Report, **changes) -> str:
    return json.dumps(json.loads(report.to_json()) | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2, "colour": 1}, "version 2.*upgrade"),
        ({"version": 10**400}, "upgrade"),
        ({"version": 0}, "version"),
        ({"kind": "resume"}, "kind"),
        ({"colour": 1}, "colour"),
        ({"cases": "many"}, "cases"),
        ({"machine": {}}, "machine"),
        ({"created": "\x1b[2J"}, "created: .*not printable"),
    ],
)
def test_damaged_baselines_are_refused(report, tmp_path, changes, message) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(damaged(report, **changes))
    with pytest.raises(InputError, match=message) as failure:
        Report.load(path)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 1000


@pytest.mark.parametrize("latency", [0, -1, 1.5, "1", None, True, 10**17, float("nan"), float("inf")])
def test_impossible_latencies_are_refused(report, tmp_path, latency) -> None:
    raw = json.loads(report.to_json())
    raw["cases"][0]["runs"][0]["latencies_ns"][0] = latency
    (tmp_path / "baseline.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="latencies_ns"):
        Report.load(tmp_path / "baseline.json")


def test_more_latencies_than_a_run_holds_are_refused(report, tmp_path) -> None:
    raw = json.loads(report.to_json())
    raw["cases"][0]["runs"][0]["latencies_ns"] = [1] * (MAX_CALLS_PER_RUN + 1)
    (tmp_path / "baseline.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="latencies_ns"):
        Report.load(tmp_path / "baseline.json")


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version": "1"}'])
def test_what_is_no_report_is_refused(tmp_path, text) -> None:
    (tmp_path / "baseline.json").write_bytes(text)
    with pytest.raises(InputError, match=r"baseline\.json"):
        Report.load(tmp_path / "baseline.json")


def test_what_is_no_plain_file_is_refused_without_reading_it(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    for name in ("none", "pipe", ".", "huge"):
        with pytest.raises(InputError):
            Report.load(tmp_path / name)


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_gives_a_report_or_an_input_error(report, tmp_path, data) -> None:
    small = report.model_copy(update={"cases": report.cases[:1]})
    text = bytearray(small.to_json().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "baseline.json").write_bytes(text)
    refusal_of(lambda: Report.load(tmp_path / "baseline.json").to_json(), InputError)


def test_a_failed_save_leaves_the_old_report(report, tmp_path, monkeypatch) -> None:
    report.save(tmp_path / "baseline.json")
    monkeypatch.setattr("gensdk_runtime.bench.latency_report.MAX_REPORT_BYTES", 100)
    with pytest.raises(InputError, match="fewer cases"):
        report.save(tmp_path / "baseline.json")
    monkeypatch.undo()
    assert Report.load(tmp_path / "baseline.json") == report


def test_the_machine_is_described_without_raising() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert {"gensdk", "numpy"} <= machine.versions.keys()
    assert speed_probe_ns(5) > 0
    assert machine.hardware_differences(this_machine()) == machine.software_differences(this_machine()) == ()


@pytest.mark.filterwarnings("default::DeprecationWarning:matplotlib")
def test_the_plot_is_a_png_with_something_on_it(report, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    plot_report(report, tmp_path / "plot.png")
    image = decode((tmp_path / "plot.png").read_bytes(), 3)
    assert image.shape[0] > 300
    assert np.unique(image.reshape(-1, 3), axis=0).shape[0] > 50
    with pytest.raises(InputError, match=r"\.png"):
        plot_report(report, tmp_path / "plot.gif")
    with pytest.raises(InputError, match="--save"):
        plot_report(report.without_latencies(), tmp_path / "plot.png")


def test_without_matplotlib_the_extra_is_named(report, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UnavailableError, match=r'pip install "gensdk\[plot\]"'):
        plot_report(report, tmp_path / "plot.png")


def test_recorded_latencies_lie_within_the_clock(bundle) -> None:
    """The sum of what was measured fits into the time that passed."""
    start = time.perf_counter_ns()
    (case,) = measure([Target("x", lambda: Generator.load(bundle, backend="onnxruntime", threads=1))], QUICK)
    passed = time.perf_counter_ns() - start
    assert sum(sum(run.latencies_ns) + run.load_ns + run.first_call_ns for run in case.runs) <= passed


def test_bundles_that_are_not_alike_are_compared_with_a_warning(bundle, tmp_path) -> None:
    other = write_step_bundle(tmp_path / "other.gsdk", size=4, name="other")
    report = suite.bench(bundle, against=other, backends=["fake"], settings=QUICK)
    assert any("image: (1, 8, 8) here, (1, 4, 4) there" in warning for warning in report.warnings)
