"""Checkpoints: safetensors and JSON, written whole or not at all.

``RUN/checkpoints/step-0000500/`` holds ``model``, ``ema`` and ``optimizer`` ``.safetensors`` and ``state.json``,
which has their SHA-256. A checkpoint is written into a temporary sibling, flushed to the disk and renamed: a
kill at any moment leaves either no folder of that name or a whole one. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_runtime.host.atomic import previous_of, put_in_place, sibling, write_file
from gensdk_runtime.host.memory_limit import machine_memory
from gensdk_runtime.host.own_files import check_own_folder, read_own
from gensdk_runtime.host.system import sync
from gensdk_runtime.spec.strict import StrictModel
from gensdk_training.family import DataInfo
from gensdk_training.run_config import RunConfig

GROUPS = ("model", "ema", "optimizer")
MAX_STATE = 32 * 2**20
"""Bytes of ``state.json``."""
_NAME = re.compile(r"step-(\d{7,})")


class CheckpointState(StrictModel):
    """``state.json``: all of a run's state that is no tensor, and what a continuation must agree with.

    `witness` is a digest of the random numbers that the next step draws. `environment` names what the last
    bits of a result depend on. `losses` are the last logged means.
    """

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    step: Annotated[int, Field(ge=0)]
    run: RunConfig
    data: DataInfo
    identity: dict[str, Any]
    scaler: dict[str, int | float] = Field(default_factory=dict)
    witness: str
    environment: dict[str, str] = Field(default_factory=dict)
    losses: dict[str, float] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    created: str = ""
    sha256: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole; `tensors` by group, then by name, on the CPU."""

    path: Path
    state: CheckpointState
    tensors: Mapping[str, Mapping[str, Tensor]]


def save_checkpoint(
    folder: Path, state: CheckpointState, tensors: Mapping[str, Mapping[str, Tensor]], *, keep: int
) -> Path:
    """Writes one checkpoint into `folder`, and then removes all but the newest `keep`.

    Raises :class:`TrainingError` where the disk refuses; older checkpoints stay as they were.
    """
    final = folder / f"step-{state.step:07d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with sibling(final, folder=True) as new:
            _write_files(new, state, tensors)
            put_in_place(new, final)
    except OSError as failure:
        raise TrainingError(f"can't write checkpoint {final} ({failure.strerror or failure})") from None
    for old in checkpoint_paths(folder)[keep:]:
        _remove(old)
    return final


def _remove(path: Path) -> None:
    # Hidden first: a kill halfway through the removal must not leave something that looks like a checkpoint.
    hidden = path.with_name(f".{path.name}.removed")
    _delete(hidden)
    with suppress(OSError):
        path.rename(hidden)
        _delete(hidden)


def _delete(path: Path) -> None:
    """A folder, a file, or a link without what is behind it; best effort."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _write_files(new: Path, state: CheckpointState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    sums: dict[str, str] = {}
    for group in GROUPS:
        data = safetensors.torch.save({name: _plain(tensor) for name, tensor in tensors[group].items()})
        sums[group] = hashlib.sha256(data).hexdigest()
        _write_durably(new / f"{group}.safetensors", data)
    text = state.model_copy(update={"sha256": sums}).to_json()
    _write_durably(new / "state.json", text.encode())
    sync(new)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint. Raises :class:`TrainingError` unless it is whole and its checksums hold.

    No link is followed, and nothing is read that this machine's memory can't hold.
    """
    try:
        check_own_folder(path.parent)
        check_own_folder(path)
        text = read_own(path / "state.json", limit=MAX_STATE)
        state = CheckpointState.from_json(text, what=f"checkpoint {path.name}: state.json", error=TrainingError)
        tensors: dict[str, Mapping[str, Tensor]] = {}
        for group in GROUPS:
            data = read_own(path / f"{group}.safetensors", limit=machine_memory() // 2)
            if hashlib.sha256(data).hexdigest() != state.sha256.get(group):
                raise TrainingError(f"checkpoint {path.name}: {group}.safetensors is altered or cut short")
            tensors[group] = safetensors.torch.load(data)
    except MemoryError:
        raise TrainingError(f"checkpoint {path.name}: there is not enough memory for its tensors") from None
    except OSError as failure:
        name = Path(failure.filename).name if failure.filename else "a file"
        raise TrainingError(f"checkpoint {path.name}: {name} can't be read ({failure.strerror})") from None
    except SafetensorError as failure:
        raise TrainingError(f"checkpoint {path.name}: {str(failure)[:120]}") from None
    return Checkpoint(path, state, tensors)


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the newest first. They are whole unless something altered them since."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, if there is one, and the newer broken ones with what is wrong with them."""
    broken: list[tuple[Path, str]] = []
    for path in checkpoint_paths(folder):
        try:
            return read_checkpoint(path), broken
        except TrainingError as problem:
            broken.append((path, str(problem)))
    return None, broken


def newest_data(folder: Path) -> DataInfo | None:
    """What the newest checkpoint with a readable ``state.json`` says of its data; None where there is none."""
    for path in checkpoint_paths(folder):
        with suppress(OSError, TrainingError):
            text = read_own(path / "state.json", limit=MAX_STATE)
            return CheckpointState.from_json(text, what=path.name, error=TrainingError).data
    return None


def checkpoint_at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of one step. Raises :class:`InputError` naming the steps there are."""
    steps = {int(path.name.removeprefix("step-")): path for path in checkpoint_paths(folder)}
    if step not in steps:
        known = ", ".join(str(s) for s in sorted(steps)) or "none"
        raise InputError(f"no checkpoint of step {step} in {folder}; there are: {known}")
    return read_checkpoint(steps[step])


def tidy(folder: Path) -> None:
    """Removes what killed processes left half written, checkpoints or previews. Only for the one process that
    writes into `folder`."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        target = folder / path.name.removeprefix(".").removesuffix(".previous")
        if path == previous_of(target) and not target.exists():
            path.rename(target)  # killed while it was replaced, on a system that can't exchange folders
        elif path.name.startswith(".step-"):
            _delete(path)


def set_aside(path: Path) -> Path:
    """Renames a broken checkpoint, so that it is not read or counted again; returns its new path."""
    target = path.with_name(f"broken-{path.name}")
    _delete(target)
    try:
        path.rename(target)
    except OSError as failure:
        raise TrainingError(f"can't set the broken {path} aside ({failure.strerror}); remove it") from None
    return target


def write_whole(path: Path, text: str) -> None:
    """Writes a file that has either its old content or the new at any moment.

    Raises :class:`TrainingError` where the disk refuses.
    """
    try:
        write_file(path, text.encode(), durable=True)
    except OSError as failure:
        raise TrainingError(f"can't write {path} ({failure.strerror or failure})") from None


def _plain(tensor: Tensor) -> Tensor:
    # A copy of its own for each: safetensors refuses tensors that share memory, such as tied weights.
    return tensor.detach().to("cpu", copy=True).contiguous()


def _write_durably(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync(path)
