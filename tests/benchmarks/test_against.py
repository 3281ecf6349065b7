"""Two versions side by side: each in processes of its own, imported from its own checkout alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import against
import click
import numpy as np
import overhead
import pytest
from against import Case, Comparison
from figures import median_interval
from peers.child import BENCHMARKS
from versions import Version, locate

from gensdk import Generator
from support.inverting_bundle import write_inverting_bundle

HERE = BENCHMARKS.parent


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """This checkout, and a copy of what runs of it."""
    folder = tmp_path_factory.mktemp("versions")
    for part in ("gensdk", "runtime"):
        shutil.copytree(HERE / part, folder / "copy" / part, ignore=shutil.ignore_patterns("__pycache__"))
    new, old = Version("new", HERE, folder / "new"), Version("old", folder / "copy", folder / "old")
    return Comparison(new, old, "onnxruntime", 1, clock="cpu", seconds=0.0, patience=1, fresh_rounds=1)


def test_calls_of_both_versions(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "STARTS", 1)
    translator = write_inverting_bundle(tmp_path / "negative.gsdk")
    cases = [Case("batch 2", "digits-dcgan", batch=2), Case("a frame", str(translator), "translate")]
    figures = list(comparison.calls(cases, lambda _: None))
    assert [figure.group for figure in figures] == ["sample", "translate"]
    for case, figure in zip(cases, figures, strict=True):
        assert case.same  # one version twice
        assert figure.value is not None
        assert figure.value > 0
        assert figure.verdict
        assert len(case.new) == len(case.old) == against.LEAST_ROUNDS
        assert all(len(mine) == len(other) > 0 for mine, other in zip(case.new, case.old, strict=True))


def test_a_version_that_is_not_what_is_imported_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "gensdk").mkdir()
    (tmp_path / "gensdk" / "__init__.py").touch()  # a folder that holds no gensdk_runtime, and so can't run
    broken = Comparison(comparison.new, Version("old", tmp_path, tmp_path), "onnxruntime", 1, "cpu", 0.0, 1)
    with pytest.raises(Exception, match="cannot import name 'Generator'"):
        list(broken.calls([Case("batch 1", "digits-vae")], lambda _: None))


def test_new_processes_of_both_versions(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "_FRESH", {"import gensdk": "import gensdk\n"})
    (figure,) = comparison.fresh()
    assert figure.value is not None
    assert figure.value > 0
    assert (comparison.old.folder / "gensdk" / "__pycache__").is_dir()


def test_a_program_of_the_other_version(comparison: Comparison) -> None:
    assert "usage: gensdk sample" in comparison.old.run("gensdk", "sample", "--help").lower()
    with pytest.raises(click.ClickException, match=r"old: gensdk sample: .*no-such"):
        comparison.old.run("gensdk", "sample", "no-such.gsdk")


@pytest.mark.parametrize(("bundle", "steps"), against.ADDED_BY.items())
def test_what_is_added_to_bare_calls(bundle: str, steps: int | None) -> None:
    found = overhead.measure(
        bundle, name=bundle, batch=1, seconds=0.0, backend="onnxruntime", threads=1, steps=steps, clock="cpu"
    )
    prepared = [overhead.PREPARED] if hasattr(Generator, "prepare") else []
    assert [each.call for each in found] == [overhead.SAMPLE, *prepared]
    for each in found:
        assert each.graph_calls == (steps or 1)
        assert each.noise_ms > 0
        assert each.figure.bound is not None
        assert each.added(0.1).value == each.added_ms


def test_checkouts_are_found(tmp_path: Path) -> None:
    assert locate(str(HERE), tmp_path) == HERE
    with pytest.raises(click.ClickException, match="no gensdk/__init__"):
        locate(str(tmp_path), tmp_path)
    with pytest.raises(click.ClickException, match="neither a folder nor a commit"):
        locate("no-such-commit", tmp_path)


@pytest.mark.skipif(not (HERE / ".git").exists(), reason="these sources are no checkout of git")
def test_a_commit_is_laid_out_once(tmp_path: Path) -> None:
    folder = locate("HEAD", tmp_path)
    assert folder.is_relative_to(tmp_path)
    assert (folder / "gensdk" / "__init__.py").is_file()
    assert (folder / "runtime" / "gensdk_runtime" / "__init__.py").is_file()
    assert locate("HEAD", tmp_path) == folder


@pytest.mark.parametrize("n", [1, 5, 6, 12, 25])
def test_the_interval_of_a_median_holds_it(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(2000, n)).tolist()
    intervals = [median_interval(row) for row in values]
    held = np.mean([low <= 0 <= high for low, high in intervals])
    assert held >= (0.94 if n >= 6 else 1 - 2 * 0.5**n - 0.03)
    for row, (low, high) in zip(values, intervals, strict=True):
        assert min(row) <= low <= np.median(row) <= high <= max(row)
    assert median_interval(range(12)) == (2, 9)
