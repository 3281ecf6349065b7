"""A family of texts through the trainer: batches with lengths, previews, checkpoints, the export, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gensdk import Generator
from gensdk.cli.main import run
from gensdk_export.export import export_run
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_training.data.text_options import TextOptions
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig

TEXTS = [
    f"{first} {which} {who} {did}."
    for first in ("the", "a")
    for which in ("red", "old")
    for who, did in (("cat", "sat"), ("dog", "ran"), ("bird", "sang at night"))
] * 12
LIKELIHOOD = {"embedding": 8, "hidden": 32, "dropout": 0.0, "learning_rate": 0.03, "likelihood_steps": 80}
GAME = {"discriminator_steps": 1, "rollouts": 2, "updates": 1, "filters": 4, "adversarial_learning_rate": 1e-3}


def test_a_family_of_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "x.txt"
    spec.write_text("".join(f"{text}\n" for text in TEXTS))
    data = DataConfig(source=str(spec), holdout=0.2, text=TextOptions(valid=0.1))
    config = RunConfig(
        family="seqgan",
        data=data,
        config={**LIKELIHOOD, **GAME, "steps": 80},
        preview_every=80,
        checkpoint_every=40,
    )
    out = tmp_path / "run"
    train(config, out)
    assert (out / "previews" / "step-0000080.png").stat().st_size > 500
    longer = config.model_copy(update={"config": {**LIKELIHOOD, **GAME, "steps": 84}})
    assert train(longer, out, resume=True).step == 84, "a language model goes on as a GAN"
    bundle = tmp_path / "model.gsdk"
    export_run(out, bundle)
    assert verify_bundle(bundle).ok
    with Generator.load(bundle, backend="onnxruntime") as model:
        samples = model.sample(64, seed=0)
        known, strange = model.log_likelihood(["the red cat sat.", "cat the sat. red"])
    assert known < strange - 1
    assert sum(text in TEXTS for text in samples.texts) > 40
    capsys.readouterr()
    model_file = str(bundle)
    asked = ["evaluate", model_file, "--data", str(spec), "-n", "40"]
    assert run([*asked, "--metrics", "bleu,copied,bits", "--json", "-"]) == 0
    measures = json.loads(capsys.readouterr().out)["measures"]
    rows = {row["name"]: row for row in measures}
    assert "bleu2" in rows, "the split and the text options are those of the training"
    assert 0 < rows["bits"]["value"] < 1.5
    assert 0 < rows["bits"]["floor"] < 1.5
    assert "in the model's own vocabulary" in rows["bits"]["detail"]
    assert run(["sample", model_file, "-n", "3", "--top-k", "1"]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 1, "the likeliest token each time"
    assert run(["inspect", model_file]) == 0
    assert "sequence" in capsys.readouterr().out
