"""The style transformer from a table of scores to a bundle that rewrites texts, through the command line."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gensdk import Generator
from gensdk.cli.main import run
from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.errors import InputError
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_training.data.text_options import TextOptions
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.evaluation.transfer_models import Transfers, content, transfer_measures
from gensdk_training.metrics.text_judge import TextJudge
from gensdk_training.metrics.transfer_baselines import TransferBaselines
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig

GOOD, BAD = ("lovely", "great", "warm"), ("awful", "grim", "cold")
THINGS = ("food", "staff", "room", "bed", "view", "bar")
BEGINNINGS = ("the {} was {}.", "i found the {} {}!", "what a {} {}", "so {1} a {0}.")
SMALL = {
    "features": 16,
    "heads": 2,
    "layers": 1,
    "rewriting_steps": 150,
    "steps": 160,
    "learning_rate": 0.01,
    "filters": 8,
    "discriminator_embedding": 8,
    "marker_threshold": 0.5,
    "warmup_steps": 10,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores and texts; those of 0.2 belong to neither style."""
    rows = [
        f"{score}\t{words.format(thing, what)}\n"
        for words, thing in product(BEGINNINGS, THINGS)
        for score, whats in ((2.5, GOOD), (-2.5, BAD), (0.2, ("usual",)))
        for what in whats
    ]
    path = tmp_path_factory.mktemp("style") / "scores.tsv"
    path.write_text("".join(rows * 2))
    return path


@pytest.fixture(scope="module")
def bundle(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    data = DataConfig(source=str(table), holdout=0.2, text=TextOptions(threshold=1.0, min_count=1))
    config = RunConfig(family="textstyle", data=data, config=SMALL, preview_every=160, preview_count=4)
    assert train(config, out, tensorboard=False, progress=False).step == 160
    assert (out / "previews" / "step-0000160.png").stat().st_size > 500
    export_run(out, out.with_suffix(".gsdk"), ExportOptions(fp16=True))
    return out.with_suffix(".gsdk")


def test_words_that_mark_a_style_are_exchanged_and_the_others_kept(bundle: Path) -> None:
    assert verify_bundle(bundle).ok
    prompts = ["the staff was awful.", "i found the view great!", "what a cold bed"]
    with Generator.load(bundle, backend="onnxruntime") as model:
        assert model.model.class_names == ("negative", "positive")
        made = model.sample(3, prompt=prompts, label=["positive", "negative", "positive"], seed=0)
        again = model.sample(3, prompt=prompts, label=[1, 0, 1], seed=9)
        np.testing.assert_array_equal(made.array, again.array, err_msg="the likeliest words, whatever the seed")
        known, other = model.log_likelihood([made.texts[0]] * 2, [1, 0], prompt=[prompts[0]] * 2)
    assert known < other - 1, "bits a token"
    for text, prompt, wanted in zip(made.texts, prompts, (GOOD, BAD, GOOD), strict=True):
        kept = [word for word in prompt.rstrip(".!").split() if word not in GOOD + BAD]
        assert [word for word in text.rstrip(".!").split() if word not in wanted] == kept
        assert any(word in text for word in wanted)


def test_the_command_line_rewrites_and_measures(
    bundle: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["sample", str(bundle), "--prompt", "the bar was grim.", "--label", "positive"]
    assert run([*asked, "-n", "1"]) == 0
    assert any(word in capsys.readouterr().out for word in GOOD)
    assert run(["evaluate", str(bundle), "--data", str(table), "--json", "-"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["measures"]}
    assert rows["style"]["value"] > 0.8
    assert rows["style_copied"]["value"] < 0.2
    assert rows["style"]["floor"] > 0.8, "the judge on real texts"
    assert rows["content_copied"]["value"] == 1.0
    assert rows["content"]["value"] > 0.3
    assert {"content_retrieved", "content_exchanged", "fluency", "fluency_exchanged"} <= set(rows)
    assert rows["content"]["baseline"] == rows["content_retrieved"]["value"]


def test_measures_of_other_kinds_are_refused(bundle: Path, table: Path) -> None:
    with pytest.raises(InputError, match="can't measure bleu of a text in another style"):
        evaluate(str(bundle), str(table), metrics=["bleu", "style"], progress=False)
    plain = table.with_name("plain.txt")
    plain.write_text("a text\nanother one\n" * 20)
    data = DataConfig(source=str(plain), holdout=0.2)
    with pytest.raises(InputError, match="have no styles"):
        evaluate(str(bundle), str(plain), data=data, progress=False)


def test_a_run_without_styles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("a text\nanother one\n" * 20)
    with pytest.raises(InputError, match="labels of two styles or more"):
        train(RunConfig(family="textstyle", data=DataConfig(source=str(path))), tmp_path / "run")
    path = tmp_path / "same.tsv"
    path.write_text("".join(f"a text of no style\t{'xy'[number % 2]}\n" for number in range(40)))
    data = DataConfig(source=str(path), labels="2")
    with pytest.raises(InputError, match="no word of 'same' marks the style"):
        train(RunConfig(family="textstyle", data=data), tmp_path / "other")


TEXTS = [f"{good} {thing}".split() for good in GOOD for thing in THINGS]
OTHERS = [f"{bad} {thing}".split() for bad in BAD for thing in THINGS]
LABELS = np.repeat([1, 0], len(TEXTS))


def test_the_judge_tells_styles_and_baselines_are_what_they_say() -> None:
    judge = TextJudge([*TEXTS, *OTHERS], LABELS)
    assert (judge.classes([*TEXTS, *OTHERS]) == LABELS).all()
    assert judge.classes([["a", "lovely", "day"], ["grim"]]).tolist() == [1, 0]
    baselines = TransferBaselines([*TEXTS, *OTHERS], LABELS, 2)
    asked = np.zeros(len(TEXTS), np.int64)
    found = baselines.retrieved(TEXTS, asked)
    assert all(text in OTHERS for text in found)
    assert all(text[1] == source[1] for text, source in zip(found, TEXTS, strict=True)), "the nearest"
    made = baselines.exchanged(TEXTS, LABELS[: len(TEXTS)], asked)
    assert all(text in OTHERS and text[1] == source[1] for text, source in zip(made, TEXTS, strict=True))
    odd = [["an", "unknown", "thing"], []]
    assert baselines.exchanged(odd, np.array([1, 1]), np.array([0, 0]))[0][:3] == odd[0]


def test_measures_have_their_ends() -> None:
    own = LABELS[: len(TEXTS)]
    made = {"": OTHERS, "copied": TEXTS, "retrieved": OTHERS}
    transfers = Transfers(TEXTS, own, 1 - own, made)
    rows = transfer_measures(transfers, [*TEXTS, *OTHERS], LABELS, frozenset(("style", "content", "fluency")))
    values = {row.name: row.value for row in rows}
    assert values["style"] == 1.0
    assert values["style_copied"] == 0.0
    assert content(TEXTS, TEXTS) == pytest.approx(0.0), "texts of two words have no four in a row"
    longer = [["a", "b", "c", "d"]]
    assert content(longer, longer) == 1.0
    assert content([[]], longer) == 0.0


def test_a_judge_needs_two_classes() -> None:
    with pytest.raises(InputError, match="two classes or more"):
        TextJudge(TEXTS, np.zeros(len(TEXTS), np.int64))
