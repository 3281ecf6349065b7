"""The flow family against its formulas, and reflow; what every family must do is in test_families.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.model import DiffusionSpec
from gensdk_training.families.flow import Flow, FlowConfig
from gensdk_training.family import Batch, DataInfo
from gensdk_training.preview import sample_networks
from gensdk_training.run import RunConfig, load_run, train
from support.students import assert_starts_as_its_teacher_and_resumes_without_it, student_run, taught
from support.tiny import tiny_run


def build(**config: Any) -> Flow:
    data = DataInfo(name="toy", channels=1, height=8, width=8, count=10, num_classes=3)
    return Flow(FlowConfig.from_dict({"channels": 8, "blocks": 1, **config}, what="config"), data)


class OfImages(nn.Module):
    """Knows x_0, and so the velocity: u = (x_t - x_0) / t; keeps the time steps that it was given."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0, self.times = x0, torch.empty(0)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.times = timestep / 1000
        return (x - self.x0) / self.times.reshape(-1, 1, 1, 1)


class Shrinking(nn.Module):
    """The velocity u = x: all paths lead along exponentials."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("time_sampling", ["uniform", "logit_normal"])
def test_the_loss_of_an_oracle_is_zero(time_sampling: str) -> None:
    torch.manual_seed(0)
    x0 = torch.rand(64, 1, 8, 8) * 2 - 1
    family = build(time_sampling=time_sampling)
    assert family.loss("denoiser", {"denoiser": OfImages(x0)}, Batch(x0)).total < 1e-4
    wrong = family.loss("denoiser", {"denoiser": OfImages(x0 + 0.1)}, Batch(x0)).total
    assert wrong > 0.01, "an error of 0.1 in x_0 is one of 0.1 / t in u"


@pytest.mark.parametrize(
    ("config", "quartiles"),
    [
        ({}, (0.25, 0.5, 0.75)),
        ({"time_sampling": "logit_normal"}, (0.3375, 0.5, 0.6625)),
        ({"time_sampling": "logit_normal", "logit_mean": 1.0, "logit_std": 2.0}, (0.4136, 0.7311, 0.9129)),
    ],
)
def test_times_are_drawn_as_asked(config: dict[str, Any], quartiles: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    x0, oracle = torch.zeros(20000, 1, 8, 8), OfImages(torch.zeros(1))
    build(**config).loss("denoiser", {"denoiser": oracle}, Batch(x0))
    assert oracle.times.min() > 0
    assert oracle.times.max() <= 1
    assert oracle.times.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx(quartiles, abs=0.015)


def test_the_bundle_has_the_line_and_its_shift() -> None:
    family = build(shift=2.0, num_train_timesteps=500)
    program = family.export_plan(family.build_networks()).model.program
    assert isinstance(program, DiffusionSpec)
    assert program.schedule.model_dump() | {"kind": "flow", "num_train_timesteps": 500, "shift": 2.0} == (
        program.schedule.model_dump()
    )
    assert program.prediction_type == "flow"
    assert program.defaults.solver == "euler"


def test_pairs_are_noise_and_what_the_teacher_makes_of_it() -> None:
    """Euler's method in N steps along u = x from t = 1 to 0 ends at (1 - 1 / N)^N of the noise."""
    family = build(reflow_from="elsewhere", reflow_steps=4)
    eps = torch.randn(8, 1, 8, 8) * 3
    torch.testing.assert_close(family._carried(Shrinking(), eps, ()), 0.75**4 * eps)
    torch.manual_seed(0)
    networks = {"teacher": Shrinking(), "denoiser": Straight()}
    assert family.loss("denoiser", networks, Batch(torch.zeros(8, 1, 8, 8))).total < 1e-8


class Straight(nn.Module):
    """The velocity along the lines from eps to x_0 = k eps: all x_t = ((1 - t) k + t) eps."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        t, k = (timestep / 1000).reshape(-1, 1, 1, 1), 0.75**4
        return (1 - k) / ((1 - t) * k + t) * x


def config(teacher: Path | None = None, **settings: Any) -> RunConfig:
    student = {"reflow_from": str(teacher), "reflow_steps": 2}
    return student_run("flow", student, teacher, settings)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(config(), tmp_path_factory.mktemp("teacher") / "run")


def test_a_reflow_starts_as_its_teacher_and_resumes_bit_for_bit_without_it(teacher: Path, tmp_path: Path) -> None:
    assert_starts_as_its_teacher_and_resumes_without_it(config, teacher, tmp_path)


def test_a_reflow_is_sampled_as_any_flow_is(teacher: Path, tmp_path: Path) -> None:
    train(config(teacher), tmp_path / "run", progress=False, tensorboard=False)
    run = load_run(tmp_path / "run")
    settings = sample_networks(run.family, run.networks, 8).settings
    assert (settings["solver"], settings["num_inference_steps"]) == ("euler", 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reflow_steps": 51}, "reflow_steps up to num_train_timesteps 50, got 51"),
        ({"channels": 16}, "channels=8, got 16; a student has the same"),
        ({"conditional": False}, "conditional=True, got False"),
        ({"reflow_from": "nowhere"}, "no run in nowhere"),
    ],
)
def test_refusals_name_the_remedy(teacher: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(config(teacher, **settings), tmp_path / "run", progress=False, tensorboard=False)


def test_only_a_run_of_flow_is_straightened(tmp_path: Path) -> None:
    train(tiny_run("ddpm", steps=1), tmp_path / "ddpm", progress=False, tensorboard=False)
    with pytest.raises(InputError, match="reflow_from needs a run of 'flow', got one of 'ddpm'"):
        train(config(tmp_path / "ddpm"), tmp_path / "run", progress=False, tensorboard=False)
