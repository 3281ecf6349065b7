"""A model of sounds, exported and proved, is judged by a classifier of the data and by levels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk.cli.main import run
from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.audio_files import read_audio
from gensdk_runtime.spec.audio import AudioSpec
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.evaluation.evaluate import evaluate
from gensdk_training.metrics.classifier import ClassifierSettings
from gensdk_training.metrics.sound_levels import sound_levels
from gensdk_training.plan import ExportPlan
from gensdk_training.run import DataConfig
from support.models import label_tensor, tensor
from support.sounds import spoken, tone

LENGTH, RATE = 720, 8000
NAMES = ("0-ann", "0-bo", "1-ann", "1-bo", "2-ann", "2-bo")
HZ = (200.0, 400.0, 800.0, 1000.0, 1400.0, 1600.0)
"""As :func:`support.sounds.spoken` has them."""


class Tones(nn.Module):
    """The tone of each class, as loud as z says; those of digit 2 with the wrong speaker."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hz", torch.tensor([*HZ[:4], HZ[5], HZ[4]]))
        self.register_buffer("times", torch.arange(LENGTH) / RATE)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        phase = 2 * torch.pi * self.hz[label][:, None] * self.times
        return ((0.3 + 0.2 * torch.tanh(z[:, :1])) * torch.sin(phase))[..., None]


def plan() -> ExportPlan:
    inputs = (tensor("z", "noise", "batch", 2, distribution="normal"), label_tensor("batch"))
    out = tensor("audio", "output", "batch", LENGTH, 1, value_range=(-1.0, 1.0))
    model = ModelSpec(
        name="tones",
        family="test",
        program=FeedforwardSpec(graph="generator"),
        graphs=(GraphSpec(name="generator", inputs=inputs, outputs=(out,)),),
        output=AudioSpec(samples=LENGTH, sample_rate=RATE),
        conditions=label_conditions(len(NAMES), NAMES),
    )
    return ExportPlan(model=model, modules={"generator": Tones().eval()})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("bundle") / "tones.gsdk")
    export_plan(plan(), Provenance(data="fsdd"), path, ExportOptions(fp16=False))
    return path


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Data, with a classifier that is trained in seconds and kept for the test alone."""
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gensdk_training.evaluation.sound_models.SETTINGS", ClassifierSettings(steps=80))
    return f"fsdd:{spoken(tmp_path / 'recordings')}"


def test_a_bundle_of_sounds_is_sampled_saved_and_told(bundle: str, tmp_path: Path) -> None:
    with Generator.load(bundle) as generator:
        samples = generator.sample(2, seed=0, label=[0, 3])
    found = [np.abs(np.fft.rfft(sound[:, 0])).argmax() * RATE / LENGTH for sound in samples.audio]
    assert found == pytest.approx([HZ[0], HZ[3]], abs=RATE / LENGTH)
    code = run(["sample", bundle, "-n", "1", "--label", "4", "-o", str(tmp_path / "one.wav")])
    assert code == 0
    assert read_audio(tmp_path / "one.wav").seconds == pytest.approx(LENGTH / RATE)
    assert run(["verify", bundle]) == 0


def test_inspect_tells_length_and_rate(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", bundle]) == 0
    assert "sounds of 0.09 s at 8000 Hz" in capsys.readouterr().out


def test_samples_are_judged_by_classes_their_parts_and_levels(bundle: str, judged: str) -> None:
    report = evaluate(bundle, judged, count=60, progress=False).report
    assert report.extractor is not None
    assert report.extractor.accuracy is not None
    assert report.extractor.accuracy > 0.8
    right, digit, speaker = (report.measure(name).value for name in ("labels", "labels_digit", "labels_speaker"))
    assert digit > 0.9
    assert right < digit - 0.2, "a third of the samples has the wrong speaker"
    assert speaker < digit - 0.2
    assert report.image == (LENGTH, 1)
    assert report.measure("clipped").value == 0
    assert report.measure("loudness").value < 20
    assert report.measure("spectrum").value > 0
    assert {measure.name for measure in report.measures} >= {"fid", "kid", "precision", "modes", "silence"}
    again = evaluate(bundle, judged, count=60, metrics=["labels"], progress=False).report
    assert [measure.name for measure in again.measures] == ["labels", "labels_digit", "labels_speaker"]
    assert again.measure("labels") == report.measure("labels")


def test_the_command_line_evaluates_sounds(
    bundle: str, judged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert run(["evaluate", bundle, "--data", judged, "--count", "30", "--json", str(report)]) == 0
    assert json.loads(report.read_text())["extractor"]["accuracy"] > 0.8
    assert "digit accuracy" in capsys.readouterr().out


def test_data_without_labels_leave_levels(bundle: str, tmp_path: Path) -> None:
    source = str(spoken(tmp_path))
    options: dict[str, Any] = {"count": 10, "progress": False}
    plain = DataConfig(source=source, labels="none", holdout=0.3)
    report = evaluate(bundle, source, data=plain, **options).report
    assert {measure.name for measure in report.measures} == {"loudness", "spectrum", "silence", "clipped"}
    assert "no measure of features" in report.notes[0]
    with pytest.raises(InputError, match="can't measure fid of these sounds, which have no labels"):
        evaluate(bundle, source, data=plain, metrics=["fid"], **options)


def test_what_is_for_other_kinds_is_refused(bundle: str, judged: str) -> None:
    with pytest.raises(InputError, match="can't measure memorization of these sounds"):
        evaluate(bundle, judged, count=10, metrics=["memorization"], progress=False)
    with pytest.raises(InputError, match="expected sounds, but 'digits' are images"):
        evaluate(bundle, "digits", count=10, progress=False)
    with pytest.raises(InputError, match="expected 2 to"):
        evaluate(bundle, judged, count=1, progress=False)


def test_levels_of_sounds() -> None:
    loud, soft = [tone(0.5, level=0.8)], [tone(0.5, level=0.08)]
    one, other = sound_levels(loud, RATE), sound_levels(soft, RATE)
    assert one.rms - other.rms == pytest.approx(20, abs=0.01)
    assert one.spectrum_off(other) < 3
    assert one.spectrum_off(sound_levels([tone(0.5, hz=2000)], RATE)) > 10
    assert sound_levels([1.5 * tone(0.5, level=1.0)], RATE).beyond > 0.4
    half = sound_levels([*loud, np.zeros((0, 1), np.float32)], RATE)
    assert half.silent == pytest.approx((one.silent + 1) / 2)
    for wrong in ([], [np.zeros((0, 1), np.float32)], [np.full((5, 1), np.nan, np.float32)]):
        with pytest.raises(InputError, match="expected sounds with finite samples"):
            sound_levels(wrong, RATE)
