"""The identity of data is their content: renamed and moved they are the same, changed they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_runtime.errors import TrainingError
from gensdk_training.checkpoint import checkpoint_paths
from gensdk_training.data.dataset import array_fingerprint, text_fingerprint
from gensdk_training.run import DataConfig, RunConfig, train
from support.image_folders import write_image
from support.tiny import tiny_run


def photos(root: Path, count: int = 6, size: tuple[int, int] = (10, 10)) -> Path:
    for number in range(count):
        write_image(root / ("cat" if number % 2 else "dog") / f"{number}.bmp", 30 * number, size)
    return root


def begun(source: str, out: Path, **data: Any) -> RunConfig:
    config = tiny_run("vae", steps=2, config={"batch_size": 4})
    config = config.model_copy(update={"data": DataConfig(source=source, **data)})
    train(config, out, progress=False, tensorboard=False)
    return config


def continued(config: RunConfig, source: str, out: Path) -> int:
    data = config.data.model_copy(update={"source": source})
    more = config.model_copy(update={"data": data, "config": {**config.config, "steps": 3}})
    return train(more, out, resume=True, progress=False, tensorboard=False).step


def archive(path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8), np.uint8)
    np.savez(path, images=images, labels=np.arange(9) % 3)
    return path


@pytest.mark.parametrize("make", [photos, lambda path: archive(path.with_suffix(".npz"))], ids=["folder", "npz"])
def test_renamed_and_moved_data_go_on(make: Callable[[Path], Path], tmp_path: Path) -> None:
    first = make(tmp_path / "photos")
    config = begun(str(first), tmp_path / "run", size=(8, 8))
    (tmp_path / "other").mkdir()
    moved = first.rename(tmp_path / "other" / f"holiday{first.suffix}")
    assert continued(config, str(moved), tmp_path / "run") == 3


def test_a_moved_folder_needs_its_new_place_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = photos(tmp_path / "photos")
    out = str(tmp_path / "run")
    small = ["--set", "latent=4", "--set", "hidden=[8]", "--batch-size", "4", "--no-tensorboard", "--no-progress"]
    asked = ["--size", "8", "--channels", "1", "--fit", "stretch", "--only", "cat", "--holdout", "0.4"]
    assert (
        run(["train", "vae", "--data", str(first), "--out", out, "--steps", "2", "--seed", "5", *asked, *small])
        == 0
    )
    moved = first.rename(tmp_path / "pictures")
    again = ["train", "vae", "--data", str(moved), "--out", out, "--resume", "--steps", "3", "--no-tensorboard"]
    assert run(again) == 0, capsys.readouterr().err
    known = json.loads((tmp_path / "run" / "run.json").read_text())
    assert known["data"]["source"] == str(moved)
    assert (known["data"]["size"], known["data"]["only"], known["seed"]) == ([8, 8], ["cat"], 5)
    assert run(["train", "ddpm", "--data", str(moved), "--out", out, "--resume"]) == 5
    assert "is a run of 'vae', not of 'ddpm'" in capsys.readouterr().err


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a pixel": lambda root: write_image(root / "dog" / "4.bmp", 121, (10, 10)),
    "a file more": lambda root: write_image(root / "dog" / "9.bmp", 0, (10, 10)),
    "a file less": lambda root: (root / "dog" / "4.bmp").unlink(),
    "a name": lambda root: (root / "dog" / "4.bmp").rename(root / "dog" / "1.bmp"),
    "a class": lambda root: (root / "dog" / "4.bmp").rename(root / "cat" / "4.bmp"),
}


def test_data_that_are_gone_are_asked_for_by_their_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, inputs = photos(tmp_path / "images"), photos(tmp_path / "inputs")
    out = str(tmp_path / "run")
    config = tiny_run("pix2pix", steps=1, config={"batch_size": 2})
    data = DataConfig(source=str(images), inputs=str(inputs), size=(16, 16))
    config = config.model_copy(update={"data": data})
    train(config, Path(out), progress=False, tensorboard=False)
    again = ["train", "pix2pix", "--out", out, "--resume"]
    moved = images.rename(tmp_path / "elsewhere")
    assert run(again) == 5
    assert (
        f"the data of this run are no longer at {str(images)!r}; say where they are with --data"
        in capsys.readouterr().err
    )
    inputs.rename(tmp_path / "others")
    assert run([*again, "--data", str(moved)]) == 5
    assert f"the inputs of this run are no longer at {str(inputs)!r}" in capsys.readouterr().err


@pytest.mark.parametrize("change", CHANGES)
def test_changed_content_is_refused_with_a_word(change: str, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    config = begun(str(root), tmp_path / "run")
    said = (tmp_path / "run" / "data.json").read_bytes()
    CHANGES[change](root)
    with pytest.raises(TrainingError, match=r"the data have changed|'data_info"):
        continued(config, str(root), tmp_path / "run")
    assert (tmp_path / "run" / "data.json").read_bytes() == said


def test_a_change_deep_inside_a_large_file_is_seen(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", size=(300, 300))
    config = begun(str(root), tmp_path / "run", size=(8, 8))
    path = root / "dog" / "4.bmp"
    content = bytearray(path.read_bytes())
    content[-2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="the data have changed: files, images or labels"):
        continued(config, str(root), tmp_path / "run")


def as_older(out: Path, changes: dict[str, Any], info: dict[str, Any]) -> None:
    """The newest checkpoint as an older version wrote it."""
    path = checkpoint_paths(out / "checkpoints")[0] / "state.json"
    state = json.loads(path.read_text())
    state["identity"] |= changes
    state["data"] |= info
    path.write_text(json.dumps(state))


def test_runs_of_older_versions_go_on(tmp_path: Path) -> None:
    """Their identity had the name of the data, and digests of names and sizes alone."""
    root = photos(tmp_path / "photos")
    config = begun(str(root), tmp_path / "run")
    files = sorted(root.rglob("*.bmp"))
    old = text_fingerprint(f"{file.relative_to(root).as_posix()} {file.stat().st_size}" for file in files)
    as_older(tmp_path / "run", {"data_info.name": "photos", "data_fingerprint": old}, {})
    assert continued(config, str(root), tmp_path / "run") == 3


def test_older_runs_of_some_classes_keep_their_numbers(tmp_path: Path) -> None:
    path = archive(tmp_path / "some.npz")
    config = begun(str(path), tmp_path / "run", only=("2",))
    with np.load(path) as arrays:
        images, labels = arrays["images"][..., None], arrays["labels"].astype(np.int64)
    kept = labels == 2
    old = {"data_info.num_classes": 3, "data_info.class_names": ["0", "1", "2"], "data_info.name": "some"}
    old["data_fingerprint"] = array_fingerprint(images[kept], labels[kept])
    as_older(tmp_path / "run", old, {"num_classes": 3, "class_names": ["0", "1", "2"]})
    assert continued(config, str(path), tmp_path / "run") == 3
