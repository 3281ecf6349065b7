"""Distillation: the target in closed form, and a run that starts from a teacher and outlives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.spec.model import DiffusionSpec, PredictionType, ScheduleSpec
from gensdk_training.distillation import Distillation, Teacher
from gensdk_training.preview import sample_networks
from gensdk_training.run import RunConfig, load_run, train
from support.students import assert_starts_as_its_teacher_and_resumes_without_it, student_run, taught
from support.tiny import tiny_run

SCHEDULE = make_schedule(ScheduleSpec())
ABAR = torch.from_numpy(SCHEDULE.alphas_cumprod)


class OfGaussian(nn.Module):
    """The best denoiser of x_0 ~ N(0, variance): E[eps | z] = sigma z / (alpha^2 variance + sigma^2), or its v."""

    def __init__(self, variance: float, predicts: PredictionType) -> None:
        super().__init__()
        self.variance = variance
        self.predicts_velocity = torch.tensor(predicts == "v_prediction")

    def forward(self, z: Tensor, timestep: Tensor) -> Tensor:
        abar = ABAR[timestep].reshape(-1, 1, 1, 1)
        eps = (1 - abar).sqrt() * z / (abar * self.variance + 1 - abar)
        velocity = (eps - (1 - abar).sqrt() * z) / abar.sqrt()
        return (velocity if self.predicts_velocity else eps).float()


class OfImages(nn.Module):
    """Knows x_0, and so v."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0 = x0
        self.predicts_velocity = torch.tensor(data=True)

    def forward(self, z: Tensor, timestep: Tensor) -> Tensor:
        abar = ABAR[timestep].reshape(-1, 1, 1, 1)
        return ((abar.sqrt() * z - self.x0) / (1 - abar).sqrt()).float()


def levels(times: list[int]) -> tuple[Tensor, Tensor]:
    """Alpha and sigma at these time steps and at the end."""
    abar = torch.tensor([*(ABAR[int(t)].item() for t in times), 1.0], dtype=torch.float64)
    return abar.sqrt(), (1 - abar).sqrt()


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("teacher_steps", [1, 2, 5])
def test_the_target_ends_where_the_teacher_ends(predicts: PredictionType, teacher_steps: int) -> None:
    """For Gaussian data each step of DDIM multiplies z by a number, so both ways have a closed form."""
    variance, steps = 0.04, 4
    distillation = Distillation(SCHEDULE, steps, teacher_steps)
    every = distillation._of_noise.timesteps.tolist()
    alpha, sigma = levels(every)
    whole = alpha**2 * variance + sigma**2
    factors = (alpha[1:] * alpha[:-1] * variance + sigma[1:] * sigma[:-1]) / whole[:-1]
    for turn in range(steps):
        first, last = turn * teacher_steps, (turn + 1) * teacher_steps
        z = 0.3 * torch.randn(5, 1, 4, 4)
        target = distillation.target(OfGaussian(variance, predicts), z, torch.full((5,), turn), ())
        student_end = alpha[last] * target + sigma[last] * (z - alpha[first] * target) / sigma[first]
        assert torch.allclose(student_end, factors[first:last].prod() * z, atol=1e-5)


def test_many_steps_of_the_teacher_lead_along_its_ode() -> None:
    """The exact solution for Gaussian data: z keeps its distance from the mean in standard deviations."""
    variance = 0.04
    distillation = Distillation(SCHEDULE, 2, 100)
    times = distillation._student.timesteps.tolist()
    alpha, sigma = levels(times)
    spread = (alpha**2 * variance + sigma**2).sqrt()
    z = 0.3 * torch.randn(5, 1, 4, 4)
    for turn in range(2):
        target = distillation.target(OfGaussian(variance, "epsilon"), z, torch.full((5,), turn), ())
        end = alpha[turn + 1] * target + sigma[turn + 1] * (z - alpha[turn] * target) / sigma[turn]
        assert torch.allclose(end, spread[turn + 1] / spread[turn] * z, rtol=0.02, atol=1e-3)


def test_a_student_that_knows_what_its_teacher_knows_has_no_loss() -> None:
    x0 = torch.rand(64, 1, 4, 4) * 2 - 1
    distillation = Distillation(SCHEDULE, 4, 2)
    assert distillation.loss(OfImages(x0), OfImages(x0), x0, ()).max() < 1e-5
    wrong = distillation.loss(OfImages(x0 + 0.5), OfImages(x0), x0, ())
    assert (wrong >= 0.24).all(), "an error of 0.5 in x_0 weighs at least 0.25"


def config(teacher: Path | None = None, **settings: Any) -> RunConfig:
    student = {"prediction_type": "v_prediction", "distill_from": str(teacher), "distill_steps": 2}
    return student_run("ddpm", student, teacher, settings)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(config(), tmp_path_factory.mktemp("teacher") / "run")


def test_a_student_starts_as_its_teacher_and_resumes_bit_for_bit_without_it(teacher: Path, tmp_path: Path) -> None:
    assert_starts_as_its_teacher_and_resumes_without_it(config, teacher, tmp_path)


def test_a_student_is_the_teacher_of_the_next(teacher: Path, tmp_path: Path) -> None:
    train(config(teacher), tmp_path / "two", progress=False, tensorboard=False)
    train(config(tmp_path / "two", distill_steps=1), tmp_path / "one", progress=False, tensorboard=False)
    network = load_run(tmp_path / "one").networks["teacher"]
    assert isinstance(network, Teacher)
    assert bool(network.predicts_velocity)
    assert not bool(load_run(tmp_path / "two").networks["teacher"].predicts_velocity)


def test_a_student_is_sampled_in_its_own_steps(teacher: Path, tmp_path: Path) -> None:
    train(config(teacher), tmp_path / "run", progress=False, tensorboard=False)
    run = load_run(tmp_path / "run")
    program = run.family.export_plan(run.networks).model.program
    assert isinstance(program, DiffusionSpec)
    assert program.prediction_type == "v_prediction"
    settings = sample_networks(run.family, run.networks, 8).settings
    assert {key: settings[key] for key in ("solver", "num_inference_steps", "timestep_spacing")} == {
        "solver": "ddim",
        "num_inference_steps": 2,
        "timestep_spacing": "quadratic",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distill_steps": None}, "go together"),
        ({"prediction_type": "epsilon"}, "set prediction_type=v_prediction"),
        ({"distill_steps": 20, "teacher_steps": 4}, "too many time steps for num_train_timesteps 50"),
        ({"channels": 16}, "channels=8, got 16; a student has the same"),
        ({"conditional": False}, "conditional=True, got False"),
        ({"distill_from": "nowhere"}, "no run in nowhere"),
    ],
)
def test_refusals_name_the_remedy(teacher: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(config(teacher, **settings), tmp_path / "run", progress=False, tensorboard=False)


def test_only_a_run_of_ddpm_teaches(tmp_path: Path) -> None:
    train(tiny_run("vae", steps=1), tmp_path / "vae", progress=False, tensorboard=False)
    with pytest.raises(InputError, match="needs a run of 'ddpm', got one of 'vae'"):
        train(config(tmp_path / "vae"), tmp_path / "run", progress=False, tensorboard=False)


def test_the_teacher_stays_in_eval_mode() -> None:
    network = Teacher(nn.Sequential(nn.Dropout(0.5)))
    network.train()
    assert not any(part.training for part in network.modules())
