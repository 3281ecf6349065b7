"""The life of a run around its steps: logs, previews, checkpoints, stopping, resuming."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from gensdk_runtime.errors import GensdkError, TrainingError
from gensdk_runtime.host.own_files import read_own
from gensdk_runtime.samples import Samples
from gensdk_runtime.version import __version__
from gensdk_training.board import Board
from gensdk_training.checkpoint import (
    CheckpointState,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
    set_aside,
    tidy,
    write_whole,
)
from gensdk_training.diagnosis import FILE as DIAGNOSIS_FILE
from gensdk_training.diagnosis import Diagnosis, Monitor, TrainingWarning
from gensdk_training.examples import COUNT
from gensdk_training.metrics.diversity import diversity
from gensdk_training.preview import draw_preview
from gensdk_training.replicas import on_first
from gensdk_training.run_config import (
    RunConfig,
    first_difference,
    identity,
    read_run_config,
    with_data_of,
    with_new_settings,
)
from gensdk_training.run_progress import Reporter
from gensdk_training.stopping import Stopper, StopReason
from gensdk_training.trainer import Trainer

PACKAGES = ("torch", "numpy", "accelerate")

MAX_DIAGNOSIS = 64 * 2**20
"""Bytes of ``diagnosis.json``."""

MIN_SAMPLES = 8
"""Samples of a preview whose diversity says something."""


@dataclass(frozen=True)
class LoopResult:
    """Where a run ended and why; `steps_per_second` at the last log, `losses` the means there; all `warnings`."""

    step: int
    stopped: StopReason
    steps_per_second: float
    losses: Mapping[str, float]
    warnings: tuple[TrainingWarning, ...] = ()


class Loop:
    """Runs a :class:`Trainer` to the end of its steps. Only the first process writes."""

    def __init__(self, trainer: Trainer, config: RunConfig, out: Path, reporter: Reporter) -> None:
        self.trainer = trainer
        self.config = config
        self.out = out
        self.reporter = reporter
        self.accelerator: Accelerator = trainer.accelerator
        self.checkpoints = out / "checkpoints"
        dataset = trainer.feed.dataset
        self._data = dataset.info
        self._identity = identity(config, dataset.info, dataset.fingerprint, self.accelerator.num_processes)
        self._losses: dict[str, float] = {}
        self._saved: int | None = None
        self._examples = trainer.family.examples(trainer.feed.spread(COUNT))
        self._monitor = Monitor(trainer.family.log_meanings)
        self._logged = 0

    def take_up(self) -> None:
        """Continues from the newest whole checkpoint; broken ones are set aside.

        Raises :class:`TrainingError` where the folder is of another run, and names the key that differs.
        """
        dataset, processes = self.trainer.feed.dataset, self.accelerator.num_processes
        run = read_run_config(self.out)
        self._refuse_family(run, self.out)
        begun = identity(run, dataset.info, dataset.fingerprint, processes)
        self._refuse_difference(begun, run, self.out)
        name = on_first(self.accelerator, self._newest)
        if name is None:
            self.reporter.note("no checkpoint yet: starting from the beginning")
            return
        checkpoint = read_checkpoint(self.checkpoints / name)
        state = checkpoint.state
        self._refuse_family(state.run, checkpoint.path)
        self._refuse_difference(state.identity, state.run, checkpoint.path)
        self.trainer.restore(state.step, checkpoint.tensors, state.scaler)
        self._losses = dict(state.losses)
        self._saved = self._logged = state.step
        self._take_up_diagnosis(state.step)
        self.reporter.note(f"continuing at step {state.step}")
        self._warn_if_not_exact(state)

    def run(self, stopper: Stopper, board: Board | None) -> LoopResult:
        """Steps until the config's number of them, or until `stopper` says so. Ends with a checkpoint."""
        trainer, steps = self.trainer, self.trainer.family.config.steps
        if self._examples is not None and self.accelerator.is_main_process:
            self._examples.save(self.out)
        for note in trainer.family.notes():
            self.reporter.note(note)
        reason: StopReason | None = "steps" if trainer.step >= steps else None
        try:
            while reason is None:
                trainer.advance()
                self.reporter.advance(trainer.step)
                reason = "steps" if trainer.step >= steps else stopper.reason()
                self._at_intervals(board, last=reason is not None)
        except TrainingError as failure:
            self._monitor.fail(trainer.step, str(failure))
            self._write_diagnosis()
            raise TrainingError(f"{failure} ({self._last_good()})") from None
        warnings = self._monitor.diagnosis.warnings
        return LoopResult(trainer.step, reason, self.reporter.rate, self._losses, warnings)

    def _at_intervals(self, board: Board | None, *, last: bool) -> None:
        step, config = self.trainer.step, self.config
        if last or step % config.log_every == 0:
            self.trainer.check_losses()
            logs, gradients = self.trainer.take_logs(), self.trainer.take_gradients()
            self._losses = {name: value for name, value in logs.items() if isfinite(value)}
            self.reporter.losses(step, self._losses)
            if board is not None:
                sizes = {f"gradient/{phase}": measured[-1] for phase, measured in gradients.items()}
                board.scalars(step, {**self._losses, **sizes, "steps_per_second": self.reporter.rate})
            self._tell(self._monitor.look_at_logs(step, logs, gradients, since=self._logged))
            self._logged = step
        if last or step % config.checkpoint_every == 0:
            self._save()
        if config.preview_every and (last or step % config.preview_every == 0):
            self._preview(board)

    def _save(self) -> None:
        self.trainer.check_losses()
        self.trainer.check_weights()
        on_first(self.accelerator, self._write_checkpoint)
        self._write_diagnosis()
        self._saved = self.trainer.step

    def _write_checkpoint(self) -> None:
        state = CheckpointState(
            step=self.trainer.step,
            run=self.config,
            data=self._data,
            identity=self._identity,
            scaler=self.trainer.scaler_state(),
            witness=self.trainer.witness(),
            environment=_environment(self.accelerator.device),
            losses=self._losses,
            versions={"gensdk": __version__, **{name: version(name) for name in PACKAGES}},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        tensors = self.trainer.tensors()
        save_checkpoint(self.checkpoints, state, tensors, keep=self.config.keep_checkpoints)

    def _preview(self, board: Board | None) -> None:
        """A picture that can't be drawn is reported; the training goes on."""
        if not self.accelerator.is_main_process:
            return
        step, trainer = self.trainer.step, self.trainer
        try:
            networks: dict[str, nn.Module] = {**trainer.networks, **trainer.ema.networks}
            preview = draw_preview(
                trainer.family,
                networks,
                self.out / "previews" / f"step-{step:07d}.png",
                count=self.config.preview_count,
                examples=self._examples,
                device=self.accelerator.device,
            )
            if board is not None:
                board.image(step, preview.picture)
            self._look_at(preview.samples, board)
        except (GensdkError, OSError) as failure:
            self.reporter.note(f"no preview at step {step}: {failure}")
        finally:
            trainer.prepare_networks()

    def _look_at(self, samples: Samples, board: Board | None) -> None:
        """The diversity of a preview against the data's; of samples that are no images of the data's size:
        none."""
        real = self.trainer.feed.spread(len(samples)).images.cpu().numpy()
        points = self.trainer.family.data.points
        if points is not None:  # samples come in the data's units
            real = real * points.scale + np.asarray(points.center)
        if real.shape[1:] != samples.array.shape[1:] or min(len(real), len(samples)) < MIN_SAMPLES:
            return
        seen = diversity(samples.array, real)
        if board is not None:
            values = {"diversity/pairs": seen.pairs, "diversity/nearest": seen.nearest}
            board.scalars(self.trainer.step, values)
        self._tell(self._monitor.look_at_samples(self.trainer.step, seen))

    def _tell(self, warnings: tuple[TrainingWarning, ...]) -> None:
        if not self.accelerator.is_main_process:
            return
        for warning in warnings:
            self.reporter.warn(str(warning))
        if warnings:
            self._write_diagnosis()

    def _write_diagnosis(self) -> None:
        if self.accelerator.is_main_process:
            try:
                write_whole(self.out / DIAGNOSIS_FILE, self._monitor.diagnosis.to_json())
            except TrainingError as failure:  # a full disk; the checkpoint has its own word
                self.reporter.note(str(failure))

    def _take_up_diagnosis(self, step: int) -> None:
        """What was seen up to `step`, so that a failure is told once in a run; nothing where it can't be read."""
        path = self.out / DIAGNOSIS_FILE
        try:
            begun = Diagnosis.from_json(read_own(path, limit=MAX_DIAGNOSIS), what=str(path)).until(step)
        except (OSError, GensdkError):
            return
        self._monitor = Monitor(self.trainer.family.log_meanings, begun)

    def _refuse_family(self, run: RunConfig, where: Path) -> None:
        if run.family != self.config.family:
            raise TrainingError(
                f"{where} can't be continued: it is of a run of {run.family!r}, not of {self.config.family!r}; "
                "name its family, or choose another folder"
            )

    def _refuse_difference(self, was: dict[str, Any], run: RunConfig, where: Path) -> None:
        was = with_data_of(with_new_settings(was, run.family_config()), self.trainer.feed.dataset)
        if difference := first_difference(was, self._identity):
            raise TrainingError(
                f"{where} can't be continued: {difference}; use the run's own settings or another folder"
            )

    def _newest(self) -> str | None:
        for folder in (self.checkpoints, self.out / "previews"):
            tidy(folder)
        checkpoint, broken = newest_checkpoint(self.checkpoints)
        for path, problem in broken:
            self.reporter.note(f"{problem}; set aside as {set_aside(path).name}")
        return checkpoint.path.name if checkpoint else None

    def _warn_if_not_exact(self, state: CheckpointState) -> None:
        now = _environment(self.accelerator.device)
        if self.accelerator.is_main_process and self.trainer.witness() != state.witness:
            self.reporter.note(
                "this torch, NumPy or device draws other random numbers: not bit for bit the same run"
            )
        for key, value in now.items():
            if state.environment.get(key) != value:
                was = state.environment.get(key)
                self.reporter.note(f"{key} was {was}, is {value}: the last bits of results may differ")

    def _last_good(self) -> str:
        if self._saved is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is of step {self._saved}"


def _environment(device: torch.device) -> dict[str, str]:
    """What the rounding of results depends on, beside the code and the data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} {name}",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
