"""An evaluation names what it measured with, round-trips through JSON, and its page is escaped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_export.export import export_plan
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.evaluation import evaluate as evaluate_module
from gensdk_training.evaluation.evaluate import Evaluation, evaluate
from gensdk_training.evaluation.evaluation_page import page
from gensdk_training.evaluation.evaluation_report import EvaluationReport
from gensdk_training.evaluation.measures import (
    METRICS,
    MUSIC_METRICS,
    PROMPT_METRICS,
    TEXT_METRICS,
    TRANSFER_METRICS,
)
from gensdk_training.evaluation.point_models import mixture_measures
from gensdk_training.evaluation.subject import check_model
from gensdk_training.metrics.classifier import ClassifierSettings
from support.models import feedforward_model
from support.plans import points_plan
from support.tiny import FAMILIES

COUNT = 400


@pytest.fixture(autouse=True)
def _a_quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "CLASSIFIER", ClassifierSettings(steps=150))


@cache
def dcgan() -> Evaluation:
    return evaluate("digits-dcgan", "digits", count=COUNT, backend="onnxruntime", progress=False)


def test_every_measure_is_there_with_its_floor() -> None:
    report = dcgan().report
    found = {measure.name for measure in report.measures}
    others = {"path", *PROMPT_METRICS, *TEXT_METRICS, *TRANSFER_METRICS, *MUSIC_METRICS}
    assert found == (set(METRICS) - others) | {"copies", "path_reach", "path_steepest"}
    assert all(measure.floor is not None for measure in report.measures)
    assert report.extractor is not None
    assert re.search(r"sha256 [0-9a-f]{12}", report.extractor.name)
    assert (report.extractor.resizing, report.extractor.feature_count) == ("none", 64)
    assert (report.samples, report.train_count, report.test_count) == (COUNT, 1438, 359)
    assert sum(count.samples for count in report.classes) == COUNT
    assert report.notes == ()


def test_the_embedded_model_is_near_the_data_and_copies_nothing() -> None:
    report = dcgan().report
    fid = report.measure("fid")
    assert fid.floor is not None
    assert fid.value < 10 * fid.floor
    assert report.measure("labels").value > 0.95
    assert report.measure("recall").value > 0.5
    assert report.measure("copies").value < 0.1
    assert report.measure("path_reach").value == pytest.approx(1.0, abs=0.4)


def test_a_report_round_trips_through_json() -> None:
    report = dcgan().report
    assert EvaluationReport.from_json(report.to_json(), what="report") == report
    assert json.loads(report.to_json())["schema_version"] == 1


def test_the_page_is_whole_escaped_and_needs_nothing_from_elsewhere() -> None:
    found = dcgan()
    text = page(found)
    assert text.count("data:image/png;base64,") == 4
    assert "<script" not in text
    assert "Content-Security-Policy" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    evil = "<script>alert(1)</script>"
    fooled = found.report.model_copy(
        update={"data": evil, "model": evil, "notes": (evil,), "settings": {evil: evil}}
    )
    assert evil not in page(Evaluation(fooled, found.pictures))


def test_the_same_seed_gives_the_same_values() -> None:
    quick = ("fid", "precision")
    one, two = (
        evaluate("digits-vae", "digits", count=60, metrics=quick, backend="onnxruntime", progress=False).report
        for _ in range(2)
    )
    assert one.measures == two.measures
    assert {measure.name for measure in one.measures} == set(quick)


def test_options_of_the_program_are_drawn_with_and_reported() -> None:
    options = {"num_inference_steps": 2, "guidance_scale": 2.0}
    found = evaluate("digits-ddpm", "digits", count=40, metrics=["memorization"], options=options, progress=False)
    assert options.items() <= found.report.settings.items()
    with pytest.raises(InputError, match="eta means nothing to a feedforward model"):
        evaluate("digits-vae", "digits", count=40, options={"eta": 0.5}, progress=False)


def test_data_without_labels_leaves_images_to_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=random)
    asked = ["evaluate", "digits-vae", "--data", str(tmp_path / "plain.npz"), "-n", "40", "--no-progress"]
    asked += ["--backend", "onnxruntime", "--holdout", "0.2"]
    assert run([*asked, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in told["measures"]} >= {"memorization", "copies"}
    assert any("no labels" in note for note in told["notes"])
    assert any("another data set" in note for note in told["notes"])
    assert told["extractor"] is None
    assert run([*asked, "--metrics", "fid"]) == 5
    assert "give an extractor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "fdi"], "did you mean 'fid'"),
        (["-n", "1"], "expected 2 to"),
        (["-n", "100000000"], "expected 2 to"),
        (["--extractor", "missing.onnx"], "no extractor"),
        (["--extractor-range", "1"], "LOW,HIGH"),
        (["--extractor-mean", "x"], "numbers"),
        (["-o", "page.pdf"], ".html"),
        (["--data", "digitz"], "did you mean 'digits'"),
        (["-o", "/dev/null/page.html"], "not a folder"),
    ],
)
def test_errors_are_one_line_before_long_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(["evaluate", "digits-dcgan", "--data", "digits", "--no-progress", *arguments])
    err = capsys.readouterr().err
    assert (code, len(err.splitlines())) == (5, 1)
    assert message in err
    assert not list(tmp_path.iterdir())


def test_data_without_a_test_part_says_how_to_keep_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", images=np.zeros((20, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"--holdout 0\.1"):
        evaluate("digits-vae", str(tmp_path / "plain.npz"), count=20, progress=False)


def test_a_model_that_translates_is_refused_in_words() -> None:
    model = feedforward_model()
    source = SourceSpec(channels=1, height=model.output.height, width=model.output.width)
    check_model(model)
    with pytest.raises(InputError, match="translates images"):
        check_model(model.model_copy(update={"conditions": (source,)}))


def test_the_gallery_has_a_row_for_every_family(tmp_path: Path) -> None:
    gallery = Path(__file__).parents[2] / "benchmarks" / "gallery.py"
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "broken.gsdk").write_bytes(b"no bundle")
    command = [sys.executable, str(gallery), str(tmp_path / "bundles"), "--docs", str(tmp_path / "docs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (tmp_path / "docs" / "gallery.md").read_text()
    assert "broken.gsdk" in done.stderr
    assert all(f"**{name}**" in text for name in FAMILIES)
    pictures = sorted(path.stem for path in (tmp_path / "docs" / "gallery").iterdir())
    assert pictures == sorted(embedded_names())
    assert "missing: no bundle" in text


def test_a_mixture_of_points_is_measured_by_its_modes() -> None:
    random = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    training = centers[random.integers(3, size=900)] + 0.1 * random.standard_normal((900, 2))
    collapsed = centers[[1]] + 0.1 * random.standard_normal((300, 2))
    rows = {row.name: row for row in mixture_measures(collapsed, training, centers, 0.1)}
    assert (rows["modes_covered"].value, rows["modes_covered"].floor) == (1, 3)
    assert rows["high_quality"].value == pytest.approx(1 - np.exp(-4.5), abs=0.02)
    assert rows["modes"].value == pytest.approx(np.log(3))
    with pytest.raises(InputError):
        mixture_measures(collapsed * np.nan, training, centers, 0.1)


def test_points_are_measured_by_their_coordinates(tmp_path: Path) -> None:
    """A model of points against the mixture that it never learned: everything is told, and no mode is found."""
    bundle = str(tmp_path / "points.gsdk")
    export_plan(points_plan("gan"), Provenance(data="gaussians25"), bundle)
    found = evaluate(bundle, "25gaussians", count=200, backend="onnxruntime", progress=False)
    measures = {measure.name: measure for measure in found.report.measures}
    assert measures["modes_covered"].floor == 25
    assert measures["high_quality"].value < 0.2 < measures["high_quality"].floor
    assert measures["fid"].value > 10 * measures["fid"].floor
    assert "data:image/png" in page(found)
    with pytest.raises(InputError, match="memorization"):
        evaluate(bundle, "25gaussians", count=9, metrics=["memorization"])
    with pytest.raises(InputError, match="points"):
        evaluate(bundle, "digits", count=9)
    with pytest.raises(InputError, match="points"):
        evaluate("digits-dcgan", "25gaussians", count=9)
