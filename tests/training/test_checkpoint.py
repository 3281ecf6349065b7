"""Checkpoints are whole or absent, and give back what went in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_training.checkpoint import (
    CheckpointState,
    checkpoint_at,
    checkpoint_paths,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
    set_aside,
    tidy,
)
from gensdk_training.family import DataInfo
from support.tiny import tiny_run

INFO = DataInfo(name="some", channels=1, height=8, width=8, count=3)


def state(step: int) -> CheckpointState:
    return CheckpointState(
        step=step, run=tiny_run("vae"), data=INFO, identity={"seed": 0}, witness="w", scaler={"scale": 0.1 + 0.2}
    )


def tensors(seed: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "model": {
            "net.weight": weight,
            "net.tied": weight,
            "net.slice": weight.t()[1:3],
            "net.count": torch.tensor(7),
        },
        "ema": {"net.weight": weight.half()},
        "optimizer": {},
    }


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(5), tensors(0), keep=2)
    back = read_checkpoint(path)
    assert back.state.model_copy(update={"sha256": {}}) == state(5)
    for group, each in tensors(0).items():
        assert back.tensors[group].keys() == each.keys()
        for name, tensor in each.items():
            assert torch.equal(back.tensors[group][name], tensor)
            assert back.tensors[group][name].dtype == tensor.dtype


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4_000_000_0, 100):
        save_checkpoint(tmp_path, state(step), tensors(step), keep=3)
    assert [path.name for path in checkpoint_paths(tmp_path)] == ["step-40000000", "step-0000100", "step-0000030"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000030", "step-0000100", "step-40000000"]
    assert checkpoint_at(tmp_path, 100).state.step == 100
    with pytest.raises(InputError, match="there are: 30, 100, 40000000"):
        checkpoint_at(tmp_path, 2)


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "empty"])
def test_a_damaged_checkpoint_is_passed_over(file: str, damage: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), tensors(1), keep=5)
    path = save_checkpoint(tmp_path, state(2), tensors(2), keep=5) / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        half = len(data) // 2
        path.write_bytes(
            {"cut": data[:-2], "flipped": data[:half] + b"\0" + data[half + 1 :], "empty": b""}[damage]
        )
    found, broken = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.state.step == 1
    [(where, problem)] = broken
    assert where.name == "step-0000002"
    assert file.removesuffix(".safetensors") in problem
    assert "\n" not in problem
    set_aside(where)
    assert newest_checkpoint(tmp_path)[1] == []


def test_writing_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(2), tensors(1), keep=2)
    (path / "model.safetensors").write_bytes(b"broken")
    save_checkpoint(tmp_path, state(2), tensors(2), keep=2)
    assert torch.equal(read_checkpoint(path).tensors["model"]["net.weight"], tensors(2)["model"]["net.weight"])
    assert [each.name for each in tmp_path.iterdir()] == ["step-0000002"]


def test_a_disk_that_refuses_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match="can't write checkpoint"):
        save_checkpoint(tmp_path / "checkpoints", state(1), tensors(1), keep=2)


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), tensors(1), keep=2)
    for name in (".step-0000002.new-12ab", ".step-0000000.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert len(checkpoint_paths(tmp_path)) == 1
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]


def test_a_checkpoint_caught_while_it_was_replaced_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(1), tensors(1), keep=2)
    path.rename(tmp_path / f".{path.name}.previous")
    tidy(tmp_path)
    assert read_checkpoint(path).state.step == 1
