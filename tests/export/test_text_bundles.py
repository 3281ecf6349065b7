"""A model of text from PyTorch to a bundle: proved, with its vocabulary, sampled, verified and evaluated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gensdk.cli.main import run
from gensdk_export.export import export_plan
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BundleError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.plan import ExportPlan
from support.texts import CHARACTERS, LENGTH, WORDS, files_of, text_model


class Writer(nn.Module):
    """Any token with the same chance at each place, as the runtime's tests have it in numpy."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("size", torch.tensor(float(size)))

    def forward(self, u: Tensor) -> Tensor:
        return torch.floor(u * self.size).long()


def plan() -> ExportPlan:
    return ExportPlan(text_model(), {"writer": Writer(WORDS.size).eval()}, files=files_of(WORDS))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("text") / "writer.gsdk"
    export_plan(plan(), Provenance(data="x", data_count=3), out)
    return out


def test_an_export_packs_the_vocabulary(bundle: Path) -> None:
    with Bundle.open(bundle) as opened:
        assert opened.read("vocabulary.json") == files_of(WORDS)["vocabulary.json"]
        card = opened.read("README.md").decode()
    assert f"up to {LENGTH} tokens, from a vocabulary of {WORDS.size}" in card
    assert "-o samples.txt" in card
    with Generator.load(bundle, backend="onnxruntime") as model:
        samples = model.sample(5, seed=3)
    assert samples.texts == [WORDS.decode(row) for row in samples.array.tolist()]


def test_a_bundle_of_text_is_verified(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle), "--backend", "onnxruntime"]) == 0
    assert "writer" in capsys.readouterr().out


@pytest.mark.parametrize("files", [{}, files_of(CHARACTERS)])
def test_nothing_is_written_without_the_right_vocabulary(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises((BundleError, InputError), match=r"'vocabulary\.json'"):
        export_plan(replace(plan(), files=files), Provenance(), tmp_path / "x.gsdk")
    assert list(tmp_path.iterdir()) == []


def test_it_is_evaluated_against_texts(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "x.txt"
    data.write_text("a cat sat.\na (cat) sat, don't!\nthe cat sat\na a cat\n" * 10)
    base = ["evaluate", str(bundle), "--data", str(data), "-n", "30", "--backend", "onnxruntime"]
    page = tmp_path / "page.html"
    code = run([*base, "--holdout", "0.2", "--json", "-", "-o", str(page)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(printed.out)
    rows = {row["name"]: row for row in report["measures"]}
    assert {
        "bleu4",
        "self_bleu2",
        "distinct1",
        "sentence_fd",
        "ngram_bits",
        "reverse_ngram_bits",
        "copied",
    } <= set(rows)
    assert rows["copied"]["floor"] == 1.0
    assert rows["ngram_bits"]["value"] > rows["ngram_bits"]["floor"]
    assert "words: lower case" in report["notes"][0]
    assert page.stat().st_size > 1000
    for metrics, reason in (("fid", "can't measure fid of texts"), ("blue", "did you mean 'bleu'")):
        assert run([*base, "--holdout", "0.2", "--metrics", metrics]) == 5
        assert reason in capsys.readouterr().err
    assert run([*base, "--holdout", "0.2", "--metrics", "bleu"]) == 0
    assert run(["evaluate", str(bundle), "--data", "digits", "-n", "30"]) == 5
    assert "give data of texts" in capsys.readouterr().err
    assert run(["evaluate", "digits-vae", "--data", "digits", "--metrics", "bleu"]) == 5
    assert "can't measure bleu of images" in capsys.readouterr().err
