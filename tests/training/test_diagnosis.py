"""Each failure is provoked for real and told once, in words; a healthy run gives no warning."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gensdk.cli.main import run as run_cli
from gensdk_runtime.errors import TrainingError
from gensdk_training import registry
from gensdk_training.diagnosis import FIRST_STEP, Curves, Diagnosis, Monitor, TrainingWarning, swings
from gensdk_training.family import LOG_MEANINGS
from gensdk_training.metrics.diversity import Diversity
from gensdk_training.run import TrainResult, train
from gensdk_training.run_config import DataConfig, RunConfig
from support.tiny_gan import TinyGan

STRONG = {"discriminator_steps": 4, "discriminator_learning_rate": 0.03, "generator_learning_rate": 1e-5}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.families()
    monkeypatch.setitem(registry._FAMILIES, "tiny_gan", TinyGan)


def trained(folder: Path, steps: int = 260, **config: Any) -> TrainResult:
    run = RunConfig(
        family="tiny_gan",
        data=DataConfig(source="digits"),
        config={"batch_size": 16, "steps": steps, **config},
        log_every=25,
        preview_every=30,
        preview_count=16,
        checkpoint_every=100,
    )
    return train(run, folder, progress=False, tensorboard=False)


def kinds(result: TrainResult) -> list[str]:
    return [warning.kind for warning in result.warnings]


@pytest.mark.parametrize("logs", ["probabilities", "accuracy"])
def test_a_healthy_run_gives_no_warning(logs: str, tmp_path: Path) -> None:
    result = trained(tmp_path / "run", steps=300, logs=logs)
    assert kinds(result) == []
    seen = Diagnosis.from_json((tmp_path / "run" / "diagnosis.json").read_text(), what="diagnosis")
    assert bool(seen.curves.accuracy) == (logs == "accuracy")
    assert all(0.3 < value <= 1 for _, value in seen.curves.accuracy)
    assert len(seen.curves.diversity_pairs) == len(seen.curves.diversity_nearest) > 0


def test_a_generator_that_ignores_its_latent_is_a_collapse(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="gensdk.train"):
        result = trained(tmp_path / "run", blind=True)
    assert "mode_collapse" in kinds(result)
    told = [str(warning) for warning in result.warnings if warning.kind == "mode_collapse"]
    assert [record.getMessage() for record in caplog.records].count(told[0]) == 1
    assert "nearly the same picture" in told[0]
    assert "try: " in told[0]
    assert "\n" not in told[0]


@pytest.mark.parametrize("logs", ["probabilities", "accuracy"])
def test_a_discriminator_that_wins_outright(logs: str, tmp_path: Path) -> None:
    assert "discriminator_wins" in kinds(trained(tmp_path / "run", steps=270, logs=logs, **STRONG))


def test_learning_rates_that_are_too_high_make_the_losses_swing(tmp_path: Path) -> None:
    high = {"generator_learning_rate": 0.01, "discriminator_learning_rate": 0.01, "beta1": 0.9}
    assert "oscillation" in kinds(trained(tmp_path / "run", steps=500, **high))


def test_a_saturating_loss_against_a_winner_has_no_gradient(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", loss="saturating", **STRONG)
    assert "vanishing_gradient" in kinds(result)


def test_a_generator_that_wins(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", generator_learning_rate=3e-3, discriminator_learning_rate=1e-6)
    assert "generator_wins" in kinds(result)


def test_training_stops_where_a_loss_is_not_finite_and_says_so_in_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        trained(tmp_path / "run", discriminator_learning_rate=1e30)
    (warning,) = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["warnings"]
    assert warning["kind"] == "not_finite"


def feed(monitor: Monitor, values: Sequence[dict[str, float]], first: int = FIRST_STEP) -> list[TrainingWarning]:
    told = []
    for i, means in enumerate(values):
        step = first + 50 * (i + 1)
        told += monitor.look_at_logs(step, means, {}, since=step - 50)
    return told


def test_losses_that_swing_are_told_once() -> None:
    values = [{"d/loss": 1.0 + 0.9 * (-1) ** (i // 3)} for i in range(40)]
    monitor = Monitor(LOG_MEANINGS)
    (warning,) = feed(monitor, values)
    assert (warning.kind, "'d/loss' swings" in warning.message) == ("oscillation", True)
    assert monitor.diagnosis.warnings == (warning,)


@pytest.mark.parametrize(
    ("values", "turns"),
    [
        ([5.0 * 0.8**i for i in range(24)], 0),
        ([1.0 + 0.2 * (-1) ** i for i in range(24)], 0),
        ([3.0 * 0.7**i + 0.001 * (-1) ** i for i in range(24)], 0),
        ([1.0] * 10 + [9.0] + [1.0] * 13, 1),
        ([2.0 + 1.9 * (-1) ** i for i in range(24)], 22),
        ([-2.0 + 1.9 * (-1) ** i for i in range(24)], 22),
        ([(-1) ** i * 1.0 for i in range(24)], 0),
        ([0.0] * 24, 0),
    ],
)
def test_swings(values: list[float], turns: int) -> None:
    assert swings(values) == turns


def test_a_critic_behind_and_a_value_that_is_not_finite() -> None:
    assert [w.kind for w in feed(Monitor(LOG_MEANINGS), [{"distance": -0.1}] * 6)] == ["generator_wins"]
    assert feed(Monitor(LOG_MEANINGS), [{"distance": 0.1}] * 6) == []
    (warning,) = feed(Monitor(LOG_MEANINGS), [{"kl": math.nan}, {"kl": math.inf}])
    assert (warning.kind, "'kl'" in warning.message) == ("not_finite", True)


def test_names_without_a_meaning_mean_nothing() -> None:
    assert feed(Monitor({}), [{"right": 1.0, "d_real": 1.0, "d_fake": 0.0, "distance": -1.0}] * 12) == []


def test_nothing_but_nan_is_told_in_the_first_steps() -> None:
    monitor = Monitor(LOG_MEANINGS)
    assert feed(monitor, [{"d_real": 1.0, "d_fake": 0.0}] * 3, first=0) == []
    assert [monitor.look_at_samples(step, Diversity(0.0, 0.0)) for step in (10, 20, 30)] == [()] * 3


def test_a_collapse_onto_a_few_pictures_needs_two_previews() -> None:
    monitor = Monitor(LOG_MEANINGS)
    assert monitor.look_at_samples(500, Diversity(0.8, 0.0)) == ()
    (warning,) = monitor.look_at_samples(600, Diversity(0.8, 0.01))
    assert "a few pictures" in warning.message


def test_a_resumed_run_tells_no_failure_twice_and_keeps_its_curves() -> None:
    warning = TrainingWarning(kind="mode_collapse", step=500, message="m", remedy="r")
    late = TrainingWarning(kind="oscillation", step=900, message="m", remedy="r")
    curves = Curves(accuracy=((400, 0.5), (900, 0.6)))
    begun = Diagnosis.from_json(Diagnosis(warnings=(warning, late), curves=curves).to_json(), what="d").until(600)
    monitor = Monitor(LOG_MEANINGS, begun)
    assert monitor.diagnosis == Diagnosis(warnings=(warning,), curves=Curves(accuracy=((400, 0.5),)))
    assert monitor.look_at_samples(700, Diversity(0.0, 0.0)) == ()
    assert monitor.look_at_samples(800, Diversity(0.0, 0.0)) == ()


@pytest.mark.parametrize("damage", ["", "no JSON", '{"warnings": 3}', None])
def test_a_damaged_diagnosis_stops_no_training(damage: str | None, tmp_path: Path) -> None:
    trained(tmp_path / "run", steps=4)
    path = tmp_path / "run" / "diagnosis.json"
    path.unlink() if damage is None else path.write_text(damage)
    again = RunConfig(family="tiny_gan", data=DataConfig(source="digits"), config={"batch_size": 16, "steps": 6})
    assert train(again, tmp_path / "run", resume=True, progress=False, tensorboard=False).step == 6
    assert Diagnosis.from_json(path.read_text(), what="diagnosis").warnings == ()


def test_the_command_prints_the_warnings_and_has_them_in_json(tmp_path: Path, capsys) -> None:
    settings = ["batch_size=16", "steps=260", "blind=true"]
    begin = ["train", "tiny_gan", "--data", "digits", "--out", str(tmp_path / "run"), "--no-tensorboard"]
    begin += ["--preview-every", "30", *(word for pair in settings for word in ("--set", pair))]
    assert run_cli([*begin, "--no-progress"]) == 0
    assert "warning at step" in capsys.readouterr().err
    assert run_cli([*begin, "--resume", "--json", "--no-progress"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [warning["kind"] for warning in told["warnings"]] == ["mode_collapse"]
