"""The benchmark of quality: rows over seeds, the record, and that no family is left unmeasured."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click
import pytest
import quality
import quality_prompts
import quality_style
import quality_subject
import quality_texts
import translation_recipes
from gallery_recipes import gallery_runs
from rows import Row, at_least, at_most, over_seeds

from gensdk_training.evaluation import evaluate as evaluate_module
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.metrics.classifier import ClassifierSettings, cached_classifier
from gensdk_training.registry import families, get_family


def row(value: float, *, model: str = "model") -> Row:
    text, passed = at_least(2.0)(value)
    return Row(model, "measure", value, text, passed)


def test_a_gate_holds_where_every_seed_keeps_it() -> None:
    kept, missed = ([[row(value)] for value in values] for values in ((2.0, 3.0, 4.0), (1.0, 3.0, 5.0)))
    (good,), (bad,) = over_seeds(kept), over_seeds(missed)
    assert (good.value, good.passed, bad.value, bad.passed) == (3.0, True, 3.0, False)
    assert "1 .. 5 over 3 seeds" in bad.detail
    assert list(over_seeds([[row(2.5)]])) == [row(2.5)]
    with pytest.raises(ValueError, match="zip"):
        list(over_seeds([[row(1.0)], []]))


def test_the_record_keeps_the_other_models_newest_rows(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "quality.json"
    quality.record(path, {"a": [row(1.0)], "b": [row(2.0)]}, 1.0)
    quality.record(path, {"b": [row(3.0)]}, 2.0)
    models = json.loads(path.read_text())["models"]
    assert [models[name]["rows"][0]["value"] for name in ("a", "b")] == [1.0, 3.0]
    path.write_text("no json")
    quality.record(path, {"a": [row(1.0)]}, 1.0)
    assert set(json.loads(path.read_text())["models"]) == {"a"}


def test_models_are_chosen_by_pattern(tmp_path: Path) -> None:
    assert set(quality.chosen(("gaussians-*",), {}, embedded=False)) == set(quality.quality_points.ENTRIES)
    assert quality.chosen(("mnist-*",), {"mnist": None}, embedded=False) == []
    assert len(quality.chosen(("mnist-anogan-*",), {"mnist": tmp_path}, embedded=False)) == 10
    with pytest.raises(click.UsageError, match="no model 'gausians'"):
        quality.chosen(("gausians",), {}, embedded=False)


def test_gates_compare_models_of_one_run() -> None:
    modes = [
        Row(f"gaussians-{name}-unbalanced", "modes", value) for name, value in (("gan", 3.0), ("pacgan", 20.0))
    ]
    (compared,) = quality.quality_points.packing_keeps_modes(modes)
    assert compared.passed
    assert not list(quality.quality_points.packing_keeps_modes(modes[:1]))
    assert at_most(1.0)(1.0) == ("<= 1", True)


def test_every_family_is_trained_by_some_recipe_whose_settings_it_knows(tmp_path: Path) -> None:
    recipes = [entry.recipe for entry in quality.ENTRIES.values()]
    trained = {recipe.family for recipe in recipes}
    trained |= {recipe.family for recipe in translation_recipes.RECIPES.values()}
    runs = gallery_runs(tmp_path)
    trained |= {run.family for run in runs.values()} | set(quality_texts.CAPTIONS)
    trained.add(quality_style.style_run(tmp_path, 0).family)
    prompts = quality_prompts.prompts_run("sprites.npz", "captions")
    assert prompts.family_config().steps == quality_prompts.SETTINGS["steps"]
    trained.add(prompts.family)
    assert trained == set(families())
    for recipe in recipes:
        get_family(recipe.family).Config.from_dict(recipe.config, what="recipe")
    for run in runs.values():
        run.family_config()


def test_the_benchmark_and_evaluate_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same samples in the same classes, the same features, the same floor."""
    count, classifier = 600, ClassifierSettings(steps=100)
    monkeypatch.setattr(quality_subject, "COUNT", count)
    monkeypatch.setattr(evaluate_module, "CLASSIFIER", classifier)
    monkeypatch.setattr(quality_subject, "cached_classifier", partial(cached_classifier, settings=classifier))
    name = "digits-dcgan"
    subject = quality_subject.Subject(name, quality.ENTRIES[name].recipe, tmp_path, None, embedded=True)
    with subject.generator() as generator:
        judged = quality_subject.sample_and_judge(subject, generator)
    report = evaluate(name, "digits", count=count, metrics=["fid", "labels"], progress=False).report
    fid = report.measure("fid")
    assert judged.fid == pytest.approx(fid.value, rel=1e-6)
    assert judged.floor == pytest.approx(fid.floor, rel=1e-6)
    assert judged.label_accuracy == report.measure("labels").value
