"""Images from sounds, trained, exported, sampled, verified and evaluated from a command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import GensdkWarning
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from gensdk_training.evaluation import evaluate as evaluate_module
from gensdk_training.metrics.classifier import ClassifierSettings
from gensdk_training.run import load_run
from support.sounds import spoken, tone, wav
from support.tiny import SETTINGS

RATE = 8000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken(tmp_path_factory.mktemp("sounds") / "fsdd", takes=8)


@pytest.fixture(scope="module")
def bundle(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command line, as a user makes it."""
    folder = tmp_path_factory.mktemp("heard")
    settings = [f"--set={key}={value}" for key, value in SETTINGS["sound2image"].items()]
    given = [
        "--data",
        "digits",
        "--inputs",
        f"fsdd:{sounds}",
        "--unheard",
        "bo",
        "--steps",
        "6",
        "--batch-size",
        "16",
    ]
    run_folder = folder / "run"
    assert run(["train", "sound2image", *given, *settings, "--out", str(run_folder), "--no-progress"]) == 0
    out = folder / "heard.gsdk"
    export_run(run_folder, out, ExportOptions(fp16=True, keep_examples=True))
    return out


def sound_files(folder: Path, *hertz: float) -> list[str]:
    paths = []
    for number, hz in enumerate(hertz):
        path = folder / f"{number}.wav"
        path.write_bytes(wav(tone(0.05, RATE, hz), RATE))
        paths.append(str(path))
    return paths


def test_real_sounds_prove_the_bundle(bundle: Path) -> None:
    assert verify_bundle(bundle).ok
    examples = load_run(bundle.with_name("run")).examples
    assert examples is not None
    real = {row.tobytes() for row in examples.sources}
    with Bundle.open(bundle) as opened:
        golden = load_golden(opened)
        assert opened.manifest.provenance.config["data"]["inputs"] == "inputs"
        assert opened.manifest.provenance.config["data"]["unheard"] == "bo"
    heard = [row.tobytes() for trajectory in golden.trajectories for row in trajectory.conditions["audio"]]
    assert real & set(heard)
    assert set(heard) - real


def test_a_command_line_makes_images_from_files(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = sound_files(tmp_path, 200.0, 900.0)
    out = tmp_path / "made.npz"
    base = ["sample", str(bundle), "--seed", "0", "--backend", "onnxruntime", "-o", str(out)]
    assert run([*base, "--audio", one, "--audio", other, "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["n"] == 2
    first, second = settings["audios"]
    assert first["sha256"] != second["sha256"]
    assert first["samples"] in range(390, 401)
    with np.load(out) as file, Generator.load(bundle, backend="onnxruntime") as model:
        np.testing.assert_array_equal(file["array"], model.sample(seed=0, audio=[one, other]).array)
    assert run([*base, "--audio", one, "-n", "3"]) == 0
    with np.load(out) as file:
        assert len(file["array"]) == 3
    assert run([*base, "--condition", f"audio={one}"]) == 0
    with np.load(out) as file:
        assert len(file["array"]) == 16
    capsys.readouterr()
    assert run(["inspect", str(bundle)]) == 0
    assert "audio: up to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "is made from a sound: pass audio"),
        (["--audio", "none.wav"], "no file none.wav"),
        (["--audio", "TEXT"], "it is no WAV nor FLAC file"),
        (["--audio", "CUT"], "it is cut"),
        (["--audio", "SILENT"], "is silent"),
        (["--audio", "SOUND", "--condition", "audio=SOUND"], "audio is given twice"),
        (["--audio", "SOUND", "--audio", "SOUND", "-n", "3"], "one sound for each of the 3 samples, got 2"),
    ],
)
def test_a_command_line_refuses_what_is_no_sound(
    bundle: Path, arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = wav(tone(0.05, RATE), RATE)
    files = {"TEXT": b"hello", "CUT": sound[:-100], "SILENT": wav(np.zeros((400, 1), np.float32)), "SOUND": sound}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    placed = [str(tmp_path / each) if each in files else each for each in arguments]
    out = tmp_path / "x.png"
    assert run(["sample", str(bundle), "--backend", "onnxruntime", "-o", str(out), *placed]) == 5
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


def test_other_models_take_no_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = sound_files(tmp_path, 440.0)
    arguments = ["sample", "digits-vae", "--audio", path, "-o", str(tmp_path / "x.png")]
    assert run([*arguments, "--backend", "onnxruntime"]) == 5
    assert "is made from no sound; leave audio out" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_another_rate_is_resampled_and_told(bundle: Path, tmp_path: Path) -> None:
    with Generator.load(bundle, backend="onnxruntime") as model:
        slow, fast = (tone(0.05, rate, 300.0)[:, 0] for rate in (RATE, 2 * RATE))
        made = model.sample(seed=[0], audio=slow).array
        with pytest.warns(GensdkWarning, match="16000 Hz to 8000 Hz, resampled"):
            again = model.sample(seed=[0], audio=(fast, 2 * RATE)).array
    assert np.abs(made - again).max() < 0.05


def test_evaluate_draws_from_the_sounds_of_the_test(
    bundle: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_module, "CLASSIFIER", ClassifierSettings(steps=100))
    given = ["--data", "digits", "--inputs", f"fsdd:{sounds}", "-n", "60", "--json", "-", "--no-progress"]
    assert run(["evaluate", str(bundle), *given, "--backend", "onnxruntime"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "the 15 sounds of the test" in report["labels"]
    (labels,) = [measure for measure in report["measures"] if measure["name"] == "labels"]
    assert 0 <= labels["value"] <= 1
    assert run(["evaluate", str(bundle), "--data", "digits", "-n", "60"]) == 5
    assert "give such of the same classes with --inputs" in capsys.readouterr().err


def test_the_latencies_are_measured(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(bundle), "--backend", "onnxruntime", "--batch", "2", "--duration", "0.1"]
    assert run(arguments) == 0
    assert "latency of Generator.sample()" in capsys.readouterr().out
