"""A model of points through all verbs: trained, exported, verified, sampled, inspected, measured, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gensdk.cli.main import run


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    np.savetxt(folder / "data.csv", np.random.default_rng(0).normal(size=(64, 2)), delimiter=",")
    small = ["--steps", 4, "--batch-size", 16, "--set", "hidden=[16]", "--set", "latent=2", "--no-tensorboard"]
    train = [
        "train",
        "wgan_gp",
        "--data",
        folder / "data.csv",
        "--out",
        folder / "run",
        "--preview-every",
        2,
        *small,
    ]
    for arguments in (train, ["export", folder / "run", "-o", folder / "some.gsdk", "--fp16"]):
        assert run([str(argument) for argument in arguments]) == 0
    assert len(list((folder / "run" / "previews").glob("*.png"))) == 2
    return folder / "some.gsdk"


def test_every_verb_takes_a_model_of_points(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("points.csv", "points.npz", "points.png"):
        code, _, err = outcome(capsys, "sample", bundle, "-n", 5, "--seed", 3, "-o", tmp_path / name)
        assert (code, err) == (0, "")
    table = np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1, dtype=np.float32)
    with np.load(tmp_path / "points.npz") as file:
        np.testing.assert_array_equal(file["array"], table)
    code, _, err = outcome(capsys, "interpolate", bundle, "--from", 3, "--to", 4, "-o", tmp_path / "walk.csv")
    assert (code, err) == (0, "")
    assert outcome(capsys, "verify", bundle)[0] == 0
    assert "points 2" in outcome(capsys, "inspect", bundle)[1]
    code, out, _ = outcome(capsys, "bench", bundle, "--duration", 0, "--iterations", 2, "--warmup", 0, "--json")
    assert (code, json.loads(out)["cases"][0]["subject"]["image"]) == (0, [2])
    card = (bundle / "README.md").read_text()
    assert "| points | 2 dimensions" in card
    assert "(64 points)" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "BUNDLE", "-o", "folder"], "can't write points to"),
        (["sample", "BUNDLE", "-o", "x.gif"], "can't write points to x.gif"),
        (["sample", "BUNDLE", "-o", "x.png", "--columns", "2"], "are for images"),
        (
            ["interpolate", "BUNDLE", "--from", "3", "--to", "4", "-o", "x.txt"],
            "can't write points to x.txt",
        ),
        (["sample", "digits-vae", "-o", "x.csv"], "can't write .csv"),
        (["translate", "BUNDLE", "--source", "in.png", "--sink", "out.png"], "does not translate images"),
        (["export", "RUN", "-o", "x.gsdk", "--uint8"], "this is for images"),
        (["export", "BUNDLE", "--page", "site"], "this is for images"),
        (["train", "vae", "--data", "25gaussians", "--out", "x"], "vae makes images, but"),
        (["train", "gan", "--data", "25gaussian", "--out", "x"], "did you mean '25gaussians'"),
        (
            ["train", "gan", "--data", "25gaussians", "--out", "x", "--size", "8"],
            "size and channels are for images",
        ),
        (["train", "gan", "--data", "25gaussians", "--out", "x", "--augment", "flip"], "augment changes images"),
    ],
)
def test_what_is_for_images_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"BUNDLE": bundle, "RUN": bundle.with_name("run")}
    code, _, err = outcome(capsys, *(places.get(argument, argument) for argument in arguments))
    assert code == 5, err
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")
    assert not any(path.is_file() and path.name != ".lock" for path in tmp_path.rglob("*"))
