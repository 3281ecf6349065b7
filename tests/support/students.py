"""Runs that start from a teacher's weights: what holds for each kind of student."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gensdk_training.checkpoint import checkpoint_paths, read_checkpoint
from gensdk_training.run import RunConfig, load_run, train
from support.tiny import tiny_run


def student_run(
    family: str, student: Mapping[str, Any], teacher: Path | None, settings: Mapping[str, Any]
) -> RunConfig:
    """A run of six steps; with a `teacher` it learns from it, as the settings of a `student` say."""
    run: dict[str, Any] = {"steps": 6, "checkpoint_every": 2, "keep_checkpoints": 10}
    return tiny_run(family, **run, config={**(student if teacher else {}), "conditional": True, **settings})


def taught(config: RunConfig, folder: Path) -> Path:
    """The folder of a run of `config`, trained."""
    train(config, folder, progress=False, tensorboard=False)
    return folder


def assert_starts_as_its_teacher_and_resumes_without_it(
    config: Callable[[Path], RunConfig], teacher: Path, folder: Path
) -> None:
    """Bit for bit, and the teacher stays as it is."""
    lost = folder / "teacher"
    shutil.copytree(teacher, lost)
    taught(config(lost), folder / "straight")
    train(config(lost), folder / "cut", max_seconds=0, progress=False, tensorboard=False)
    shutil.rmtree(lost)
    train(config(lost), folder / "cut", resume=True, progress=False, tensorboard=False)
    straight, cut = (
        read_checkpoint(checkpoint_paths(folder / name / "checkpoints")[0]) for name in ("straight", "cut")
    )
    assert straight.state.step == cut.state.step == 6
    for group, tensors in straight.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, cut.tensors[group][name]), f"{group}: {name}"
    trained = load_run(teacher).networks["denoiser"].state_dict()
    model = straight.tensors["model"]
    for name, tensor in trained.items():
        assert torch.equal(model[f"teacher.network.{name}"], tensor), "the teacher never changes"
    moved = [(model[f"denoiser.{name}"] - tensor).abs().max().item() for name, tensor in trained.items()]
    assert 0 < max(moved) <= 6 * 3e-3, "six steps of Adam from the teacher's weights"
