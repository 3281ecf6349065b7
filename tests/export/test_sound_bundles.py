"""A bundle of sounds from end to end: sampled, proved, described and judged by the command line and the face."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gensdk import Generator
from gensdk.cli.main import run
from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime.media.audio_files import read_audio
from gensdk_runtime.spec.provenance import Provenance
from support.plans import family_plan
from support.short_sounds import RATE, short_sounds
from support.sounds import wav


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sounds") / "digits.gsdk"
    export_plan(
        family_plan("wavenet"), Provenance(data="short", steps=0), path, ExportOptions(fp16=True, one_call=True)
    )
    return str(path)


def test_sample_writes_sounds_of_their_own_lengths(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["-n", "4", "--seed", "1", "--label", "2"]
    assert run(["sample", bundle, *asked, "-o", str(tmp_path / "single")]) == 0
    with Generator.load(bundle) as model:
        samples = model.sample(4, seed=1, label=2)
    assert samples.lengths is not None
    files = sorted((tmp_path / "single").iterdir())
    assert [len(read_audio(file).samples) for file in files] == samples.lengths.tolist()
    assert {read_audio(file).sample_rate for file in files} == {RATE}
    for name in ("all.wav", "all.npz", "all.png"):
        assert run(["sample", bundle, *asked, "-o", str(tmp_path / name)]) == 0
    with np.load(tmp_path / "all.npz") as kept:
        assert kept["lengths"].tolist() == samples.lengths.tolist()
        np.testing.assert_array_equal(kept["array"], samples.data)
        settings = json.loads(str(kept["settings"]))
    assert settings["temperature"] == 1.0
    capsys.readouterr()
    short = [*asked, "--max-length", "6", "--temperature", "0.5", "-o", str(tmp_path / "short")]
    assert run(["sample", bundle, *short]) == 0
    assert max(len(read_audio(file).samples) for file in (tmp_path / "short").iterdir()) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "5"], "draws without top_k; leave it out"),
        (["--max-length", "25"], "expected max_length up to 24"),
        (["--temperature", "0"], "temperature"),
    ],
)
def test_what_the_model_can_not_do_is_one_line(
    bundle: str, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sample", bundle, *options, "-o", str(tmp_path / "x.wav")]) != 0
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) <= 3
    assert not (tmp_path / "x.wav").exists()


def test_it_is_proved_and_described(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", bundle]) == 0
    told = capsys.readouterr().out
    assert "one call" in told
    assert "FAILED" not in told
    assert run(["inspect", bundle]) == 0
    told = capsys.readouterr().out
    assert "top_k" not in told, "its graphs draw without"
    for words in (
        "program sequence",
        "sounds of 0.024 s at 1000 Hz, 3 classes",
        "one call: graph sampler",
        "log_likelihood",
    ):
        assert words in told


def test_likelihoods_of_recordings(bundle: str) -> None:
    batch = short_sounds().batch(np.arange(6))
    with Generator.load(bundle) as model:
        assert model.can("log_likelihood")
        bits = model.log_likelihood(batch.images, label=batch.labels, lengths=batch.lengths)
        one = model.log_likelihood(batch.images[2:3], label=batch.labels[2:3], lengths=batch.lengths[2:3])
    assert np.isfinite(bits).all()
    assert (bits > 1).all()
    np.testing.assert_allclose(one, bits[2:3], rtol=1e-5)


def test_a_sound_is_gone_on_with(bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Generator.load(bundle) as model:
        begun = model.sample(1, seed=3, label=1).data[:, :8]
    start = tmp_path / "start.wav"
    start.write_bytes(wav(begun[0], RATE))
    asked = ["sample", bundle, "--label", "1", "-n", "3", "--prefix", str(start)]
    for count, more in ((8, []), (5, ["--prefix-length", "5"])):
        assert run([*asked, *more, "-o", str(tmp_path / "out.npz")]) == 0
        with np.load(tmp_path / "out.npz") as kept:
            expected = np.repeat(begun[:, :count], 3, axis=0)
            np.testing.assert_allclose(kept["array"][:, :count], expected, atol=0.03)
            assert (kept["lengths"] >= count).all()
    start.write_bytes(wav(np.zeros((24, 1), np.float32), RATE))
    capsys.readouterr()
    assert run([*asked, "-o", str(tmp_path / "none.npz")]) != 0
    assert "expected a prefix of 1 to 23 samples at 1000 Hz, got 24; shorten it" in capsys.readouterr().err
    start.write_bytes(b"RIFF")
    assert run([*asked, "-o", str(tmp_path / "none.npz")]) != 0
    assert not (tmp_path / "none.npz").exists()
