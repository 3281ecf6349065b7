"""A family of texts through the trainer: batches with lengths, previews, checkpoints, the export, evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk import Generator
from gensdk.cli.main import run
from gensdk_export.export import export_run
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.text.vocabulary import vocabulary_bytes
from gensdk_training import registry
from gensdk_training.data.text_options import TextOptions
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_lengths
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import families, register
from gensdk_training.run import train
from gensdk_training.run_config import DataConfig, RunConfig
from support.models import tensor

TEXTS = ["the red cat sat.", "the old dog ran.", "a red dog sat down."] * 40


class Places(nn.Module):
    """Which token stands at each place, whatever stands before it."""

    def __init__(self, length: int, size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(length, size))

    def forward(self, u: Tensor) -> Tensor:
        """The inverse CDF of each place, int64 [B, length]."""
        edges = self.logits.softmax(dim=1).cumsum(dim=1)
        return (edges[None] <= u[..., None]).sum(dim=2).clamp(max=edges.shape[1] - 1)


class PlacesConfig(FamilyConfig):
    """Settings of :class:`WordsByPlace`.

    learning_rate: Of Adam.
    """

    learning_rate: float = 0.3


class WordsByPlace(Family[PlacesConfig]):
    """The frequencies of tokens at each place."""

    title = "the frequencies of tokens at each place"
    paper = "none"
    Config = PlacesConfig
    ema_networks = ("places",)
    makes: ClassVar[frozenset[str]] = frozenset(("texts",))

    def build_networks(self) -> dict[str, nn.Module]:
        text = self.data.require_text()
        return {"places": Places(text.length, text.vocabulary.size)}

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("places", ("places",), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        logits = networks["places"].get_parameter("logits")
        targets = batch.images[:, 1:]
        counts = torch.arange(targets.shape[1])[None] < require_lengths(batch)[:, None] - 1
        spread = logits[None].expand(len(targets), -1, -1)
        return Loss(functional.cross_entropy(spread[counts], targets[counts]), {})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        text, output = self.data.require_text(), self.data.output
        u = tensor("u", "noise", "batch", text.length, distribution="uniform")
        made = tensor("text", "output", "batch", text.length, dtype="int64", value_range=output.value_range)
        model = ModelSpec(
            name="places",
            family="places",
            program=FeedforwardSpec(graph="places"),
            graphs=(GraphSpec(name="places", inputs=(u,), outputs=(made,)),),
            output=output,
        )
        files = {"vocabulary.json": vocabulary_bytes(text.vocabulary)}
        return ExportPlan(model, {"places": networks["places"].eval()}, files=files)


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    families()
    register("places")(WordsByPlace)
    yield "places"
    monkeypatch.delitem(registry._FAMILIES, "places")


def test_a_family_of_texts(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "x.txt"
    spec.write_text("".join(f"{text}\n" for text in TEXTS))
    data = DataConfig(source=str(spec), holdout=0.2, text=TextOptions(valid=0.1))
    config = RunConfig(
        family=name, data=data, config={"steps": 30, "ema_decay": 0.5}, preview_every=30, checkpoint_every=15
    )
    out = tmp_path / "run"
    train(config, out)
    assert (out / "previews" / "step-0000030.png").stat().st_size > 500
    assert (
        train(config.model_copy(update={"config": {"steps": 40, "ema_decay": 0.5}}), out, resume=True).step == 40
    )
    export_run(out, tmp_path / "model.gsdk")
    assert verify_bundle(tmp_path / "model.gsdk").ok
    with Generator.load(tmp_path / "model.gsdk", backend="onnxruntime") as model:
        samples = model.sample(64, seed=0)
    words = [text.split() for text in samples.texts]
    assert {text[0] for text in words} == {"the", "a"}
    assert sum(text[-1].endswith(".") for text in words) > 40
    capsys.readouterr()
    model_file = str(tmp_path / "model.gsdk")
    assert run(["evaluate", model_file, "--data", str(spec), "-n", "40", "--metrics", "bleu,copied"]) == 0
    assert "BLEU-2" in capsys.readouterr().out, "the split and the text options are those of the training"
