"""Training a run and opening it again: ``train(config, folder)`` and ``load_run(folder)``.

A run is a folder: ``run.json``, ``checkpoints/``, ``previews/``, ``logs/`` (TensorBoard).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from gensdk_runtime.errors import InputError, TrainingError, UnavailableError
from gensdk_runtime.host.locks import locked
from gensdk_runtime.host.own_files import check_own_folder
from gensdk_runtime.spec.provenance import UNFINISHED, Provenance
from gensdk_training.board import Board
from gensdk_training.checkpoint import Checkpoint, checkpoint_at, newest_checkpoint, newest_data, write_whole
from gensdk_training.data import Dataset
from gensdk_training.data.classes import as_classes
from gensdk_training.data.description import FILE as DATA_FILE
from gensdk_training.data.description import DataDescription, describe
from gensdk_training.diagnosis import FILE as DIAGNOSIS_FILE
from gensdk_training.diagnosis import TrainingWarning
from gensdk_training.examples import FILE as EXAMPLES_FILE
from gensdk_training.examples import Examples
from gensdk_training.family import DataInfo
from gensdk_training.loop import Loop, LoopResult
from gensdk_training.memory_budget import memory_budget
from gensdk_training.registry import AnyFamily
from gensdk_training.replicas import on_first
from gensdk_training.run_config import DataConfig, RunConfig, read_run_config
from gensdk_training.run_progress import Reporter
from gensdk_training.running_statistics import mend_spectral_norms
from gensdk_training.stopping import Stopper, StopReason
from gensdk_training.trainer import Trainer, load_network_tensors

__all__ = ["DataConfig", "RunConfig", "TrainResult", "TrainedRun", "load_run", "read_run_config", "train"]

SLACK = 64 * 2**20
"""Bytes that networks may take beside what their file holds: buffers that are not saved."""

_OWN_NAMES = {"run.json", "checkpoints", "previews", "logs", ".lock", EXAMPLES_FILE, DIAGNOSIS_FILE, DATA_FILE}
_TEMPORARY = tuple(f".{name}." for name in ("run.json", EXAMPLES_FILE, DIAGNOSIS_FILE, DATA_FILE))


@dataclass(frozen=True)
class TrainResult:
    """How a training ended. `skipped` counts corrupt files; `seconds` is the time in this call.

    `warnings`: what went wrong in the run so far, each kind once; also in ``RUN/diagnosis.json``. `data`: what the
    data were taken for; also in ``RUN/data.json``.
    """

    run_dir: Path
    step: int
    stopped: StopReason
    seconds: float
    steps_per_second: float
    losses: dict[str, float]
    skipped: int
    warnings: tuple[TrainingWarning, ...] = ()
    data: DataDescription | None = None


@dataclass(frozen=True)
class TrainedRun:
    """A trained model: the family, and its networks in eval mode on the CPU."""

    family: AnyFamily
    data_info: DataInfo
    networks: dict[str, nn.Module]
    step: int
    provenance: Provenance
    config: RunConfig
    run_dir: Path
    examples: Examples | None = None


def train(
    config: RunConfig,
    out: Path | str,
    *,
    resume: bool = False,
    max_seconds: float | None = None,
    device: str = "auto",
    data_dir: Path | str | None = None,
    dataset: Dataset | None = None,
    progress: bool | None = None,
    tensorboard: bool = True,
    on_data: Callable[[DataDescription], None] | None = None,
) -> TrainResult:
    """Trains a run into the folder `out` and returns how it ended.

    `resume` continues from the newest whole checkpoint, bit for bit; with none there it starts from the beginning.
    `max_seconds` ends early, with a checkpoint that can be resumed. `device`: "auto" or "cpu". `dataset` replaces
    the data that the config names. `on_data` is called with the description of the data before anything is
    written, in the first process. `progress`: False is silent; otherwise a live bar on a terminal and plain lines
    elsewhere.

    For several processes or machines start it with ``accelerate launch`` (GPUs) or ``torchrun`` (also CPUs, with
    ``ACCELERATE_USE_CPU=true``): the batch is cut between them.
    Raises :class:`InputError` for settings or data that don't fit, before training starts, and
    :class:`TrainingError` where it can't go on, with the last good checkpoint kept.
    """
    started, out = time.monotonic(), Path(out)
    if max_seconds is not None and not max_seconds >= 0:  # NaN would never end it
        raise InputError(f"expected max_seconds of at least 0, got {max_seconds}; leave it out for no limit")
    config = config.resolved()
    data = dataset if dataset is not None else config.data.load(data_dir=data_dir)
    if resume:
        data = _as_begun(data, out)
    family, description = _check(config, data)
    accelerator = _accelerator(config, device)
    main = accelerator.is_main_process
    if main and on_data is not None:
        on_data(description)
    with ExitStack() as held:
        on_first(accelerator, lambda: held.enter_context(_claim(out, config, resume=resume)))
        augment = config.data.augment
        trainer = Trainer(family, data, seed=config.seed, accelerator=accelerator, augment=augment)
        if dataset is None:
            held.callback(data.close)
        held.callback(trainer.close)
        result = _run(
            trainer,
            config,
            out,
            description,
            resume=resume,
            max_seconds=max_seconds,
            progress=progress if main else False,
            tensorboard=tensorboard and main,
        )
    seconds = time.monotonic() - started
    return TrainResult(
        out,
        result.step,
        result.stopped,
        seconds,
        result.steps_per_second,
        dict(result.losses),
        data.skipped.count,
        result.warnings,
        description,
    )


def describe_data(
    config: RunConfig, *, out: Path | None = None, data_dir: Path | str | None = None
) -> DataDescription:
    """The description of the data of `config` that :func:`train` would use, after all of its checks; nothing is
    written.

    `out`: the folder of a run that would be resumed. Raises :class:`InputError` as training would.
    """
    data = config.data.load(data_dir=data_dir)
    try:
        return _check(config, data if out is None else _as_begun(data, out))[1]
    finally:
        data.close()


def _check(config: RunConfig, data: Dataset) -> tuple[AnyFamily, DataDescription]:
    """The family, where it can learn these data, and what they are."""
    _check_schedule(config)
    family = config.build_family(data.info)
    if config.data.augment and not data.info.on_a_grid:
        raise InputError(f"augment changes images, and the data are {data.info.kind}; leave it out")
    if config.data.augment and family.starts_from == "sounds":
        raise InputError("augment changes images with what they are made from, and these are sounds; leave it out")
    return family, describe(data, fit=config.data.fit)


def _as_begun(data: Dataset, out: Path) -> Dataset:
    """`data` with the classes of the run in `out` in their order, where all of its own are among them: an older
    version gave numbers also to classes without an image."""
    begun = newest_data(out / "checkpoints")
    if (
        begun is None
        or begun.class_names is None
        or not set(data.info.class_names or ()) <= set(begun.class_names)
    ):
        return data
    return as_classes(data, begun.class_names)


def _run(
    trainer: Trainer,
    config: RunConfig,
    out: Path,
    description: DataDescription,
    *,
    resume: bool,
    max_seconds: float | None,
    progress: bool | None,
    tensorboard: bool,
) -> LoopResult:
    with (
        Reporter(total=trainer.family.config.steps, progress=progress) as reporter,
        Stopper(trainer.accelerator, max_seconds) as stopper,
    ):
        loop = Loop(trainer, config, out, reporter)
        if resume:
            loop.take_up()
            if trainer.accelerator.is_main_process:
                write_whole(out / "run.json", config.to_json())  # with its new intervals
        if trainer.accelerator.is_main_process:
            write_whole(out / DATA_FILE, description.to_json())  # now that these data can go on
        reporter.begin(trainer.step)
        board = Board(out / "logs", step=trainer.step, note=reporter.note) if tensorboard else None
        try:
            return loop.run(stopper, board)
        finally:
            if board is not None:
                board.close()


def load_run(run_dir: Path | str, *, ema: bool = True, step: int | None = None) -> TrainedRun:
    """Opens what :func:`train` left: the newest whole checkpoint, or the one of `step`.

    `ema` gives the networks that sampling uses their moving averages; otherwise all have their raw weights.
    Raises :class:`InputError` where there is no run or no such checkpoint.
    """
    run_dir = Path(run_dir)
    read_run_config(run_dir)
    checkpoint = _find(run_dir / "checkpoints", step)
    state = checkpoint.state
    family = state.run.build_family(state.data)
    room = 2 * (checkpoint.path / "model.safetensors").stat().st_size + SLACK
    with torch.random.fork_rng(), memory_budget(room, lambda: _altered(checkpoint.path)):
        networks = family.build_networks()
    load_network_tensors(networks, checkpoint.tensors["model"])
    if ema:
        load_network_tensors({name: networks[name] for name in family.ema_networks}, checkpoint.tensors["ema"])
    for network in networks.values():
        mend_spectral_norms(network)
        network.eval()
    provenance = _provenance(checkpoint, ema=ema, unfinished=_unfinished(family, networks, state.step))
    examples = Examples.load(run_dir)
    return TrainedRun(family, state.data, networks, state.step, provenance, state.run, run_dir, examples)


def _altered(path: Path) -> TrainingError:
    return TrainingError(f"checkpoint {path.name}: its settings are of far larger networks than its weights")


def _unfinished(family: AnyFamily, networks: dict[str, nn.Module], step: int) -> str | None:
    steps = family.config.steps
    parts = [f"step {step} of {steps}"] if step < steps else []
    parts += [part for part in [family.unfinished(networks)] if part]
    return "; ".join(parts) or None


def _find(folder: Path, step: int | None) -> Checkpoint:
    if step is not None:
        return checkpoint_at(folder, step)
    checkpoint, broken = newest_checkpoint(folder)
    if checkpoint is None:
        reason = broken[0][1] if broken else "training has not come to its first one"
        raise InputError(f"no whole checkpoint in {folder}: {reason}")
    return checkpoint


def _provenance(checkpoint: Checkpoint, *, ema: bool, unfinished: str | None) -> Provenance:
    state = checkpoint.state
    config = state.run.model_dump(mode="json")
    config["data"]["source"] = state.data.name  # a path on the training machine is nobody's business
    if config["data"]["inputs"] is not None:
        config["data"]["inputs"] = "inputs"
    names = state.data.class_names or ()
    if len(names) == len(set(config["data"]["only"])):  # numbers would mean other classes in other data
        config["data"]["only"] = list(names)
    if unfinished is not None:
        config[UNFINISHED] = unfinished
    return Provenance(
        config=config,
        data=state.data.name,
        data_count=state.data.count,
        steps=state.step,
        seed=state.run.seed,
        ema=ema,
        metrics=dict(state.losses),
        created=state.created,
        versions=state.versions,
    )


def _check_schedule(config: RunConfig) -> None:
    settings = config.family_config()
    if settings.warmup_steps >= settings.steps:
        raise InputError(
            f"expected warmup_steps below steps {settings.steps}, got {settings.warmup_steps}: the learning rate "
            "would never come to its full value; lower warmup_steps, or give it more steps"
        )


def _accelerator(config: RunConfig, device: str) -> Accelerator:
    if device not in ("auto", "cpu"):
        raise InputError(f"expected device 'auto' or 'cpu', got {device!r}; CUDA_VISIBLE_DEVICES chooses a GPU")
    precision = "no" if config.precision == "fp32" else config.precision
    if AcceleratorState._shared_state:  # one process may train twice, in different precisions
        AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    except ValueError as failure:
        reason = str(failure).splitlines()[0][:200]
        raise UnavailableError(f"precision {config.precision!r} on device {device!r}: {reason}") from None
    if (
        config.precision == "fp16" and accelerator.device.type == "cpu"
    ):  # Accelerate would train in fp32, in silence
        raise UnavailableError("precision 'fp16' needs a GPU, got device 'cpu'; use 'bf16' or 'fp32'")
    if accelerator.device.type == "cuda":  # the same numbers in every run are worth more than the fastest kernel
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return accelerator


@contextmanager
def _claim(out: Path, config: RunConfig, *, resume: bool) -> Iterator[None]:
    """Makes `out` the folder of this run and of no other process, or says why it can't be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in out.iterdir() if not _is_own(path.name))
    except OSError as failure:
        raise InputError(f"can't write into {out} ({failure.strerror})") from None
    begun = os.path.lexists(out / "run.json")
    if begun and not resume:
        raise InputError(f"{out} has a run already; resume it, or choose another folder")
    if strange and not begun:
        raise InputError(f"{out} is not empty ({strange[0]!r}); choose a new folder")
    with _lock_of(out) as held:
        if held is False:
            raise TrainingError(f"another process trains in {out}; wait for it or choose another folder")
        _sweep(out)
        if not begun:
            write_whole(out / "run.json", config.to_json())
        try:
            yield
        except InputError:  # refused before its first step: nothing stays that would ask for another folder
            if not begun and not (out / "checkpoints").exists():
                (out / "run.json").unlink(missing_ok=True)
            raise


@contextmanager
def _lock_of(out: Path) -> Iterator[bool | None]:
    """As :func:`locked`. What the run writes into must be its own: a link would lead to somewhere else."""
    with ExitStack() as stack:
        try:
            for name in ("checkpoints", "previews", "logs"):
                check_own_folder(out / name)
            held = stack.enter_context(locked(out / ".lock"))
        except OSError as failure:
            name = Path(failure.filename or out).name
            raise InputError(f"can't train in {out}: {name!r}: {failure.strerror}; remove it") from None
        yield held


def _sweep(out: Path) -> None:
    """Removes the temporary files of a process that was killed here; the lock says that none lives."""
    for path in out.iterdir():
        if path.name.startswith(_TEMPORARY) and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)


def _is_own(name: str) -> bool:
    return name in _OWN_NAMES or name.startswith(_TEMPORARY)
