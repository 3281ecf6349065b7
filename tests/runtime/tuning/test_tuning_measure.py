"""Measuring in real child processes: what it finds, what it survives, and what ``auto`` makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gensdk.cli.sample import sample
from gensdk.cli.tune import tune as tune_verb
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, InputError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.fingerprint import bundle_identity, measurement_key
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.programs.run import Run
from gensdk_runtime.tuning import auto as auto_module
from gensdk_runtime.tuning import child as child_module
from gensdk_runtime.tuning import measurement as measurement_module
from gensdk_runtime.tuning import store
from gensdk_runtime.tuning.auto import Tuned, Wanted, faster
from gensdk_runtime.tuning.candidates import Processor, batch_sizes, candidates
from gensdk_runtime.tuning.child import Child, ChildLostError, Question
from gensdk_runtime.tuning.measurement import Candidate, Measurement
from gensdk_runtime.tuning.stopwatch import time_batches
from gensdk_runtime.tuning.tune import tune
from support.models import feedforward_model
from support.step_bundle import write_step_bundle

QUICK = 0.6
ONE, TWO = Choice(threads=1), Choice(threads=1, workers=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_step_bundle(tmp_path_factory.mktemp("tuning") / "tiny.gsdk")


@pytest.fixture
def bundle(path):
    with Bundle.open(path) as opened:
        yield opened


@pytest.fixture
def measured_here(tmp_path, monkeypatch):
    """Tuning is on, with a cache of its own, and short: one backend, one thread."""
    monkeypatch.setenv("GENSDK_TUNE", "on")
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})
    monkeypatch.setattr(auto_module, "_failed", set())
    monkeypatch.setattr(measurement_module, "MEASURED_BACKENDS", ("onnxruntime",))


def tuned(bundle: Bundle, precision: str, threads: int | None) -> Tuned | str | None:
    return Wanted(bundle, precision, threads).find()


def opening(bundle: Bundle) -> Question:
    return Question(kind="open", path=str(bundle.path), identity=bundle_identity(bundle.manifest))


def test_real_choices_have_real_costs(bundle) -> None:
    measurement = Measurement(bundle, ["fp32"], QUICK, choices=[ONE, TWO], batches=[1, 4])
    table = measurement.run()["fp32"]
    assert measurement.failures == {}
    assert {(cost.choice, cost.batch) for cost in table.costs} == {(ONE, 1), (ONE, 4), (TWO, 1), (TWO, 2)}
    assert all(0 < cost.seconds < 60 for cost in table.costs)


def test_what_can_not_run_loses_its_place_alone(bundle) -> None:
    gone = Choice(backend="onnxruntime:cuda")
    broken = Choice(backend="onnxruntime:nonsense")
    measurement = Measurement(bundle, ["fp32"], QUICK, choices=[gone, broken, ONE], batches=[1])
    assert measurement.run()["fp32"].choices == (ONE,)
    assert len(measurement.failures) == 2
    assert any("nonsense" in reason for reason in measurement.failures.values())


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_crash_and_a_hang_cost_one_answer(bundle) -> None:
    question = Question(kind="run", choice=ONE)
    with Child(opening(bundle)) as child:
        assert child.ask(question, 60).seconds > 0
        os.kill(child._process.pid, signal.SIGSEGV)
        with pytest.raises(ChildLostError, match="crashed \\(SIGSEGV\\)"):
            child.ask(question, 60)
        assert child.ask(question, 60).seconds > 0, "the next one starts another"
        os.kill(child._process.pid, signal.SIGSTOP)
        with pytest.raises(ChildLostError, match="no answer"):
            child.ask(question, 0.2)
        last = child._process
        assert last is None, "a process that hangs is ended"


def test_another_bundle_at_the_same_path_is_not_measured(bundle) -> None:
    question = opening(bundle).model_copy(update={"identity": "0" * 64})
    with Child(question) as child, pytest.raises(UnavailableError, match="replaced"):
        child.ask(Question(kind="run"), 60)


def test_a_child_ends_when_its_parent_does(bundle) -> None:
    with Child(opening(bundle)) as child:
        child.ask(Question(kind="run", choice=ONE), 60)
        process = child._process
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_program_that_is_no_python_starts_no_children(bundle, monkeypatch, measured_here) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/app/photo-editor")
    assert tuned(bundle, "fp32", 1) is None
    with Generator.load(bundle, threads=1) as generator:
        assert generator.sample(1, seed=0).settings["backend"] == "onnxruntime"
    with pytest.raises(BackendError, match="no Python interpreter"):
        tune(bundle, threads=1, budget_s=0.2)


def test_the_first_auto_measures_and_the_second_remembers(bundle, measured_here, monkeypatch) -> None:
    first = tuned(bundle, "fp32", 1)
    assert first is not None
    assert first.table.choices == (ONE,)
    monkeypatch.setattr(child_module, "MODULE", "gensdk_runtime.no_such_module")
    assert tuned(bundle, "fp32", 1) == first
    assert tuned(bundle, "auto", 1) == first
    with Generator.load(bundle, threads=1) as generator, Generator.load(bundle, backend="onnxruntime") as plain:
        samples = generator.sample(5, seed=0, num_inference_steps=2)
        np.testing.assert_allclose(samples.array, plain.sample(5, seed=0, num_inference_steps=2).array, atol=1e-5)
        assert "fallback" not in samples.settings


def test_off_means_neither_measured_nor_remembered(bundle, measured_here, monkeypatch) -> None:
    key = measurement_key(bundle.manifest, "fp32", None)
    table = CostTable(costs=(Cost(choice=ONE, batch=1, seconds=1.0),))
    store.save_table(key, table, bundle.manifest)
    assert tuned(bundle, "fp32", None).table == table
    monkeypatch.setenv("GENSDK_TUNE", "off")
    assert tuned(bundle, "fp32", None) is None


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_a_precision_that_is_missing_is_not_measured(bundle, measured_here, precision) -> None:
    assert tuned(bundle, precision, None) is None


@pytest.mark.parametrize(("precision", "threads"), [("fp16", None), ("int4", None), ("fp32", 0), ("fp32", True)])
def test_what_does_not_fit_is_refused_by_the_load_itself(bundle, measured_here, precision, threads) -> None:
    with pytest.raises(InputError):
        Generator.load(bundle, precision=precision, threads=threads)


def test_the_faster_precision_is_chosen_where_it_pays(bundle) -> None:
    def table(seconds: float) -> CostTable:
        return CostTable(costs=(Cost(choice=ONE, batch=1, seconds=seconds),))

    model = bundle.manifest.model
    assert faster(model, {"fp32": table(1.0), "fp16": table(0.5)}) == Tuned("fp16", table(0.5))
    assert faster(model, {"fp32": table(1.0), "fp16": table(0.99)}).precision == "fp32"


def test_a_choice_that_was_removed_is_a_fallback_that_is_said(bundle, path, measured_here, tmp_path) -> None:
    """Measured fastest for larger batches, but its provider is gone."""
    gone = Choice(backend="onnxruntime:tensorrt")
    rows = (Cost(choice=ONE, batch=1, seconds=1.0), Cost(choice=gone, batch=8, seconds=1.5))
    store.save_table(measurement_key(bundle.manifest, "fp32", None), CostTable(costs=rows), bundle.manifest)
    with Generator.load(path) as generator:
        assert "fallback" not in generator.sample(1, seed=0, num_inference_steps=1).settings
        settings = generator.sample(8, seed=0, num_inference_steps=1).settings
        assert settings["backend"] == "onnxruntime"
        assert settings["fallback"].startswith("onnxruntime:tensorrt failed: ")
    steps = ["--num-inference-steps", "1", "-o", str(tmp_path / "x.png")]
    result = CliRunner().invoke(sample, [str(path), "-n", "8", *steps], catch_exceptions=False)
    assert "warning: onnxruntime:tensorrt failed" in result.stderr


def test_nothing_of_what_was_measured_works_any_more(bundle, measured_here) -> None:
    gone = Choice(backend="onnxruntime:tensorrt")
    table = CostTable(costs=(Cost(choice=gone, batch=8, seconds=1.5),))
    store.save_table(measurement_key(bundle.manifest, "fp32", None), table, bundle.manifest)
    with Generator.load(bundle) as generator:
        settings = generator.sample(2, seed=0, num_inference_steps=1).settings
    assert settings["backend"] == "onnxruntime"
    assert "what measured fastest failed" in settings["fallback"]


def test_a_report_has_all_costs_and_plans(bundle, measured_here) -> None:
    stages: list[str] = []
    report = tune(bundle, threads=1, batches=[1, 8], budget_s=0.5, on_stage=stages.append)
    assert stages
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    fp32 = data["precisions"]["fp32"]
    assert {row["batch"] for row in fp32["costs"]} == {1, 8}
    assert set(fp32["plans"]) == {"1", "8", "64"}
    assert sum(sum(found["counts"]) for found in fp32["plans"]["64"]["rounds"]) == 64
    assert Path(fp32["stored"]).is_file()
    assert tuned(bundle, "fp32", 1).table == report.precisions["fp32"].kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_s": 0}, "budget from"),
        ({"budget_s": float("nan")}, "budget from"),
        ({"threads": 0}, "threads from 1"),
        ({"precisions": ["fp16"]}, "no precision 'fp16'"),
        ({"batches": []}, "batch sizes to measure at"),
        ({"batches": [65]}, "batch_size from 1 to 64"),
    ],
)
def test_refusals(bundle, measured_here, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        tune(bundle, **arguments)


def test_the_verb(path, measured_here) -> None:
    runner = CliRunner()
    result = runner.invoke(
        tune_verb, [str(path), "--threads", "1", "--budget", "0.3", "--batch", "1,2"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "* onnxruntime, 1 thread" in result.stdout
    assert "64 samples: " in result.stdout
    assert "kept in " in result.stdout
    cleared = runner.invoke(tune_verb, [str(path), "--threads", "1", "--clear"], catch_exceptions=False)
    assert cleared.stdout == "1 file removed\n"


def test_remembering_is_fast_enough_to_import_nothing(bundle, measured_here) -> None:
    """What a warm load may not do, rather than how long it takes: no child, no backend, no measuring code."""
    key = measurement_key(bundle.manifest, "fp32", None)
    store.save_table(key, CostTable(costs=(Cost(choice=ONE, batch=1, seconds=1.0),)), bundle.manifest)
    program = (
        "import sys; from gensdk_runtime.bundles.bundle import Bundle\n"
        "from gensdk_runtime.tuning.auto import Wanted\n"
        f"with Bundle.open({str(bundle.path)!r}) as bundle:\n"
        "    assert Wanted(bundle, 'fp32', None).find() is not None\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert (
        not {"onnxruntime", "openvino", "gensdk_runtime.tuning.measurement", "gensdk_runtime.tuning.child"}
        & loaded
    )


HERE = {
    "onnxruntime": ("cpu", "cuda"),
    "openvino": ("cpu", "gpu"),
    "tensorrt": ("NVIDIA H100",),
    "fake": ("none",),
}


def test_candidates_of_a_machine_with_everything() -> None:
    found = candidates(HERE, Processor(8, 2))
    assert len(set(found)) == len(found)
    assert {choice.backend for choice in found} == {
        "onnxruntime", "onnxruntime:cuda", "openvino", "openvino:gpu", "tensorrt",
    }  # fmt: skip
    assert {choice.threads for choice in found if choice.backend == "onnxruntime"} == {1, 4, 8}
    assert {choice.workers for choice in found} == {1, 8}
    assert all(choice.threads is None for choice in found if choice.backend in ("tensorrt", "onnxruntime:cuda"))
    assert all(choice.threads > 1 for choice in found if choice.spinning)


@pytest.mark.parametrize("threads", [1, 2, 6])
@pytest.mark.parametrize("thorough", [False, True])
def test_threads_bound_all_that_runs_at_once(threads, thorough) -> None:
    found = candidates(HERE, Processor.here(threads), threads_only=True, thorough=thorough)
    assert found
    assert all(choice.threads * choice.workers <= threads for choice in found)


def test_one_call_doubles_what_there_is() -> None:
    steps, both = (candidates(HERE, Processor(4), one_call=one_call) for one_call in (False, True))
    assert len(both) == 2 * len(steps)
    assert {choice.form for choice in both} == {"steps", "one_call"}


@pytest.mark.parametrize("max_batch", [1, 2, 8, 64, 100, 65536])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_batch_sizes_fit_the_model(max_batch, workers) -> None:
    model = feedforward_model(max_batch=max_batch)
    sizes = batch_sizes(model, Choice(threads=1, workers=workers))
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1 or max_batch == 1
    assert 1 <= sizes[-1] <= max_batch
    assert sizes[-1] * workers <= max(1024, workers)


@pytest.mark.parametrize(("weights", "count"), [(1, 3), (150 * 2**20, 3), (2**33, 2)])
def test_large_weights_are_prepared_for_few_batch_sizes(weights, count) -> None:
    model = feedforward_model(max_batch=1024)
    sizes = batch_sizes(model, Choice(backend="openvino"), weights=weights, padded=True)
    assert len(sizes) == count
    assert (sizes[0], sizes[-1]) == (1, 1024)


def test_a_cost_is_the_lower_quartile_of_its_readings() -> None:
    candidate = Candidate(ONE, "fp32", [1, 8], readings={1: [5.0, 1.0, 2.0, 3.0, 90.0], 8: [9.0]})
    assert [(cost.batch, cost.seconds) for cost in candidate.costs] == [(1, 2.0), (8, 9.0)]


def test_a_batch_that_fails_costs_the_choice_all_larger_ones() -> None:
    candidate = Candidate(ONE, "fp32", [1, 4, 8], readings={1: [1.0], 8: [9.0], 4: [4.0]})
    candidate.give_up(4)
    assert candidate.sizes == [1]
    assert candidate.readings == {1: [1.0]}


class Steps:
    """A program of `count` steps of `seconds` each, which counts its runs and steps."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds, self.runs, self.steps = count, seconds, 0, 0

    def resolve(self, options: dict[str, object]) -> None:
        return None

    def covers(self, settings: None, *, listening: bool) -> bool:
        return True

    def run(self, run: Run, settings: None) -> None:
        self.runs += 1
        for step in range(self.count):
            time.sleep(self.seconds)
            self.steps += 1
            if run.end_step(step, self.count, 0, lambda: run.data):
                break


@pytest.mark.parametrize(("steps", "seconds"), [(20, 0.001), (2000, 0.001), (1, 0.001), (1, 0.03)])
def test_a_reading_ends_by_the_clock(steps: int, seconds: float) -> None:
    """Whatever the number of steps: a long run is stopped, a short one is repeated, and the whole is told."""
    program = Steps(steps, seconds)
    runner = Runner("fp32", {}, program)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:
        found = time_batches(feedforward_model(), runner, pool, batch=2, workers=1, seconds=0.02)
    assert found.seconds >= steps * seconds * 0.999
    assert program.steps <= 0.02 / seconds + 2 * steps if program.runs > 1 else program.steps <= 0.02 / seconds + 1
    assert found.step >= seconds * 0.999
