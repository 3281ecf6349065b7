"""Distillation of a diffusion model into a few steps: a student learns to do in one step what a trained model does
in several.

Salimans & Ho (2022), "Progressive Distillation for Fast Sampling of Diffusion Models", algorithm 2. The student
starts as a copy of its teacher. For a noisy image z at one of the student's time steps the teacher takes N steps
of DDIM, to z''; the one step of DDIM from z that ends there too has an estimate of x_0, which is the target::

    z'' = a z + b x_0    so    x_0 = (z'' - a z) / b

with a and b from the student's own solver table. The paper takes N = 2 and makes each student the next teacher; a
larger N goes down faster and asks more of the teacher at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import NoiseSchedule
from gensdk_runtime.programs.solvers import SolverTable, solver_table
from gensdk_runtime.spec.model import PredictionType
from gensdk_runtime.spec.settings import DiffusionSettings, TimestepSpacing
from gensdk_training.family import DataInfo
from gensdk_training.graphs.diffusion_step import columns, solver_update

if TYPE_CHECKING:
    from gensdk_training.run import TrainedRun

SPACING: TimestepSpacing = "quadratic"
"""The time steps of student and teacher; DDIM is more accurate at them than at evenly spaced ones."""


class Teacher(nn.Module):
    """A trained denoiser, as it was. It is part of the student's run, so that resuming needs no other folder.

    `network` has the student's sizes. :meth:`load` gives it weights, and says what its output means.
    """

    predicts_velocity: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("predicts_velocity", torch.zeros((), dtype=torch.bool))

    def load(self, trained: nn.Module, prediction_type: PredictionType) -> None:
        """Takes over the weights of `trained`, which predicts `prediction_type`."""
        self.network.load_state_dict(trained.state_dict())
        self.predicts_velocity.fill_(prediction_type == "v_prediction")

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode: dropout would blur what is to be learned."""
        return super().train(False)

    def forward(self, x: Tensor, timestep: Tensor, *label: Tensor) -> Tensor:
        """The prediction, as the network makes it."""
        out: Tensor = self.network(x, timestep, *label)
        return out


@dataclass(frozen=True)
class Distillation:
    """A student of `steps` steps of DDIM, each of which stands for `teacher_steps` of its teacher's.

    Raises :class:`InputError` where the schedule has no room for the teacher's time steps.
    """

    schedule: NoiseSchedule
    steps: int
    teacher_steps: int

    def __post_init__(self) -> None:
        total = self.schedule.num_train_timesteps
        fits = self.steps * self.teacher_steps <= total
        if not fits or (self._of_noise.timesteps[:: self.teacher_steps] != self._student.timesteps).any():
            raise InputError(
                f"distill_steps {self.steps} times teacher_steps {self.teacher_steps} are too many time steps for "
                f"num_train_timesteps {total}; use fewer teacher_steps"
            )

    @property
    def defaults(self) -> DiffusionSettings:
        """How the student is sampled: at the time steps that it learned, and no others."""
        return DiffusionSettings(solver="ddim", num_inference_steps=self.steps, timestep_spacing=SPACING)

    def loss(self, student: nn.Module, teacher: nn.Module, images: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """The error of the student's x_0 on noisy versions of `images` [N, C, H, W], for each image: [N].

        Its weight is max(SNR, 1), "truncated SNR" (section 4 of the paper). One of the student's time steps is
        drawn for each image. The student predicts v.
        """
        turn = torch.randint(self.steps, (len(images),), device=images.device)
        timestep = torch.from_numpy(self._student.timesteps.astype(np.int64)).to(images.device)[turn]
        abar = torch.from_numpy(self.schedule.alphas_cumprod).to(images.device)[timestep].reshape(-1, 1, 1, 1)
        noise = torch.randn_like(images)
        noisy = abar.sqrt().to(images.dtype) * images + (1 - abar).sqrt().to(images.dtype) * noise
        target = self.target(teacher, noisy, turn, labels)
        x, e, *_ = columns(self._rows(self._student, turn).to(noisy), noisy)
        estimate = x * noisy + e * student(noisy, timestep, *labels)
        weight = (abar / (1 - abar)).clamp(min=1.0).flatten()
        errors: Tensor = (estimate - target).square().mean(dim=(1, 2, 3))
        return weight.to(images.dtype) * errors

    @torch.no_grad()
    def target(self, teacher: nn.Module, noisy: Tensor, turn: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """The x_0 with which the student's step number `turn` [N] ends where the teacher's steps end.

        `noisy`: [N, C, H, W] at the noise level of that step.
        """
        zero = torch.zeros_like(noisy)
        velocity = getattr(teacher, "predicts_velocity", torch.zeros((), dtype=torch.bool)).to(noisy.device)
        state = noisy
        for i in range(self.teacher_steps):
            step = turn * self.teacher_steps + i
            timestep = torch.from_numpy(self._of_noise.timesteps.astype(np.int64)).to(noisy.device)[step]
            rows = torch.where(velocity, self._rows(self._of_velocity, step), self._rows(self._of_noise, step))
            state, _ = solver_update(state, zero, teacher(state, timestep, *labels), zero, rows.to(noisy))
        _, _, _, a, b, *_ = columns(self._rows(self._student, turn).to(noisy), noisy)
        target: Tensor = (state - a * noisy) / b
        return target

    @cached_property
    def _student(self) -> SolverTable:
        return self._table(self.steps, "v_prediction")

    @cached_property
    def _of_noise(self) -> SolverTable:
        return self._table(self.steps * self.teacher_steps, "epsilon")

    @cached_property
    def _of_velocity(self) -> SolverTable:
        return self._table(self.steps * self.teacher_steps, "v_prediction")

    def _table(self, steps: int, prediction_type: PredictionType) -> SolverTable:
        return solver_table(
            self.schedule, "ddim", steps, timestep_spacing=SPACING, prediction_type=prediction_type
        )

    @staticmethod
    def _rows(table: SolverTable, numbers: Tensor) -> Tensor:
        """The rows with these `numbers` [N], as :func:`solver_update` takes them for N images: [N, 8]."""
        return torch.from_numpy(table.coefficients.copy()).to(numbers.device)[numbers]


def open_teacher(
    path: str,
    data: DataInfo,
    settings: Mapping[str, object],
    *,
    family: str = "ddpm",
    option: str = "distill_from",
) -> TrainedRun:
    """The run of `family` at `path`, which was trained on images and labels as in `data`, with these `settings`.

    `option`: what the user gave the path as. Raises :class:`InputError` where there is none, or
    names what differs.
    """
    from gensdk_training.run import load_run  # here: run.py finds the families, and they find this module

    run = load_run(Path(path))
    if run.config.family != family:
        raise InputError(f"{option} needs a run of {family!r}, got one of {run.config.family!r} in {path}")
    needed = [(key, getattr(run.data_info, key), getattr(data, key)) for key in ("image", "num_classes")]
    needed += [(key, getattr(run.family.config, key), value) for key, value in settings.items()]
    for key, teachers, value in needed:
        if teachers != value:
            raise InputError(
                f"the teacher in {path} has {key}={teachers!r}, got {value!r}; a student has the same"
            )
    return run
