"""``gensdk bench`` as a user or a build server calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gensdk.cli.bench import bench
from gensdk_runtime.bench.latency_report import Report
from gensdk_runtime.errors import CheckFailedError, InputError
from support.step_bundle import write_step_bundle

QUICK = [
    "--backend",
    "fake",
    "--warmup",
    "1",
    "--duration",
    "0.02",
    "--num-inference-steps",
    "2",
    "--patience",
    "1",
]
EXAMPLE = Path(__file__).parents[2] / "test_latency_gate_example.py"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(write_step_bundle(tmp_path_factory.mktemp("bench") / "tiny.gsdk"))


def run(*arguments: str, exit_code: int = 0):
    result = CliRunner().invoke(bench, [*arguments, *QUICK])
    assert result.exit_code == exit_code, result.output
    return result


def faster_baseline(bundle: str, path: Path, factor: int) -> None:
    """A baseline whose latencies are `factor` times below the truth, on a machine of the same speed."""
    run(bundle, "--save", str(path), "--iterations", "120")
    raw = json.loads(path.read_text())
    for case in raw["cases"]:
        for each in case["runs"]:
            each["latencies_ns"] = [max(1, ns // factor) for ns in each["latencies_ns"]]
    path.write_text(json.dumps(raw))


def test_the_table_tells_latency_machine_and_boundary(bundle) -> None:
    result = run(bundle, "--batch", "1,2", "--percentile", "75,99.9")
    for word in ("p50", "p75", "p99.9", "batch 2", "samples/s", "machine:", "numpy", "host memory"):
        assert word in result.stdout
    assert "p95" not in result.stdout


def test_names_are_shown_as_they_are(bundle, tmp_path, monkeypatch) -> None:
    shutil.copytree(bundle, tmp_path / "[bold]a[/b]")
    monkeypatch.chdir(tmp_path)  # a long path would be broken
    result = run("[bold]a[/b]", "--against", bundle)
    assert "[bold]a[/b]" in result.stdout


def test_json_is_all_that_stdout_holds(bundle) -> None:
    report = Report.from_json(run(bundle, "--json", "--against", bundle).stdout, what="stdout")
    assert [case.runs for case in report.cases] == [(), ()]
    assert (report.settings.runs, report.settings.patience) == (10, 1)
    (comparison,) = report.comparisons
    assert comparison.limit == "p50:+5%"


def test_slower_fails_and_only_slower_fails(bundle, tmp_path) -> None:
    honest, doctored = tmp_path / "honest.json", tmp_path / "doctored.json"
    faster_baseline(bundle, honest, 1)
    faster_baseline(bundle, doctored, 100)
    run(bundle, "--iterations", "120", "--baseline", str(honest), "--fail-on", "p50:+900%")
    refused = CliRunner().invoke(bench, [bundle, *QUICK, "--baseline", str(honest), "--runs", "2"])
    assert isinstance(refused.exception, InputError)
    assert "--runs of at least 3, got 2" in str(refused.exception)
    assert "measuring" not in refused.output
    result = run(bundle, "--iterations", "120", "--baseline", str(doctored), "--json", exit_code=1)
    assert isinstance(result.exception, CheckFailedError)
    assert json.loads(result.stdout)["comparisons"][0]["verdict"] == "slower"


@pytest.mark.parametrize(
    "arguments",
    [["--fail-on", "p50:+5%"], ["--precision", "fp61"], ["--baseline", "none.json"], ["--batch", "1000"],
     ["--backend", "fakes"], ["--percentile", "101"], ["--warmup", "-1"], ["--set", "solver=heun"],
     ["--set", "cache_intervall=3"], ["--set", "eta"], ["--plot", "plot.gif"]],
)  # fmt: skip
def test_bad_arguments_are_input_errors(bundle, arguments) -> None:
    result = CliRunner().invoke(bench, [bundle, *QUICK, *arguments])
    assert isinstance(result.exception, InputError), result.output
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("arguments", [["--batch", "1;2"], ["--solver", "heun"], ["--eta", "much"]])
def test_lists_that_are_none_and_unknown_choices_are_usage_errors(bundle, arguments) -> None:
    assert CliRunner().invoke(bench, [bundle, *arguments]).exit_code == 2


def test_any_option_is_measured_and_stands_in_the_report(bundle) -> None:
    arguments = ("--json", "--set", "eta=0.5", "--set", "timestep-spacing=leading", "--no-clip-sample")
    (case,) = Report.from_json(run(bundle, *arguments).stdout, what="stdout").cases
    measured = {"eta": 0.5, "timestep_spacing": "leading", "clip_sample": False, "num_inference_steps": 2}
    assert measured.items() <= case.subject.options.options.items()


def test_save_and_plot_write_files(bundle, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    run(bundle, "--save", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png"))
    assert len(Report.load(tmp_path / "a.json").cases[0].runs) == 10
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_that_teams_copy_runs(bundle) -> None:
    """With a limit that no noise reaches: what is tested is the example, not this machine."""
    environment = os.environ | {
        "LATENCY_CANDIDATE": bundle,
        "LATENCY_RELEASED": bundle,
        "LATENCY_LIMITS": "p50:+900%",
        "LATENCY_SECONDS": "0.05",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", str(EXAMPLE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
