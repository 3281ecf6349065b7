"""Resuming continues bit for bit, also after kill -9 at any moment."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_training.checkpoint import (
    Checkpoint,
    CheckpointState,
    checkpoint_paths,
    read_checkpoint,
    save_checkpoint,
)
from gensdk_training.run import RunConfig, load_run, train
from gensdk_training.trainer import Trainer
from support.processes import start_training, train_to_end, wait_for_checkpoint
from support.tiny import FAMILIES, tiny_points, tiny_run


def newest(run: Path) -> Checkpoint:
    return read_checkpoint(checkpoint_paths(run / "checkpoints")[0])


def assert_same_state(one: Checkpoint, other: Checkpoint) -> None:
    assert one.state.step == other.state.step
    assert one.state.witness == other.state.witness
    assert one.state.scaler == other.state.scaler
    for group, tensors in one.tensors.items():
        assert tensors.keys() == other.tensors[group].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other.tensors[group][name]), f"{group}: {name}"


CASES = [(name, tiny_run) for name in FAMILIES] + [("wgan", tiny_points), ("sngan", tiny_points)]


@pytest.mark.parametrize(("family", "tiny"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_a_killed_and_resumed_run_equals_a_straight_one(
    family: str, tiny: Callable[..., RunConfig], tmp_path: Path
) -> None:
    straight = tiny(family, steps=12, checkpoint_every=5)
    train_to_end(straight.to_json(), tmp_path / "straight")
    # The killed run does not end by itself: it is asked for more steps, and then for twelve.
    endless = tiny(family, steps=1_000_000, checkpoint_every=5, keep_checkpoints=1000)
    if straight.resolved().config["lr_schedule"] != "constant":
        endless = straight
    process = start_training(endless.to_json(), tmp_path / "killed")
    wait_for_checkpoint(tmp_path / "killed", after=4)
    process.kill()
    process.join(30)
    for path in checkpoint_paths(tmp_path / "killed" / "checkpoints"):
        if int(path.name.removeprefix("step-")) > 5:
            path.rename(path.with_name(f"later-{path.name}"))
    train_to_end(straight.to_json(), tmp_path / "killed", resume=True)
    assert_same_state(newest(tmp_path / "straight"), newest(tmp_path / "killed"))


def test_twenty_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    run = tmp_path / "killed"
    endless = tiny_run("vae", steps=1_000_000, checkpoint_every=2, log_every=1000, seed=3).to_json()
    moments = random.Random(7)
    for kill in range(20):
        before = checkpoint_paths(run / "checkpoints")
        process = start_training(endless, run, resume=True)
        if kill % 4:  # amid training and saving; the others hit the start
            wait_for_checkpoint(run, after=int(before[0].name.removeprefix("step-")) if before else 0)
            time.sleep(moments.uniform(0.0, 0.05))
        else:
            time.sleep(moments.uniform(0.0, 0.4))
        process.kill()
        process.join(30)
        assert process.exitcode == -9
        for path in checkpoint_paths(run / "checkpoints"):
            read_checkpoint(path)
    steps = newest(run).state.step + 3
    config = tiny_run("vae", steps=steps, checkpoint_every=2, log_every=1000, seed=3).to_json()
    train_to_end(config, run, resume=True)
    train_to_end(config, tmp_path / "straight")
    assert_same_state(newest(tmp_path / "straight"), newest(run))
    hidden = [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    assert hidden == []


def test_a_run_can_go_on_beyond_its_end_at_a_constant_rate(tmp_path: Path) -> None:
    train(tiny_run("vae", steps=4), tmp_path / "longer", progress=False, tensorboard=False)
    train(tiny_run("vae", steps=9), tmp_path / "longer", resume=True, progress=False, tensorboard=False)
    train(tiny_run("vae", steps=9), tmp_path / "straight", progress=False, tensorboard=False)
    assert_same_state(newest(tmp_path / "straight"), newest(tmp_path / "longer"))


def test_the_loss_scale_of_fp16_is_part_of_the_state(tmp_path: Path) -> None:
    config = tiny_run(
        "vae", steps=9, config={"grad_clip": 0.5, "likelihood": "gaussian", "sigma": 1e-3}
    ).resolved()
    data = config.data.load()

    def trainer() -> Trainer:
        accelerator = Accelerator(cpu=True)
        # What Accelerate makes on a GPU; the scale starts where this loss overflows, and soon grows again.
        accelerator.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**126, backoff_factor=2.0**-20, growth_interval=2
        )
        return Trainer(config.build_family(data.info), data, seed=0, accelerator=accelerator)

    straight, cut, resumed = trainer(), trainer(), trainer()
    scales = []
    for _ in range(9):
        straight.advance()
        scales.append(straight.scaler_state()["scale"])
    assert min(scales) < 2.0**126
    assert sorted(scales, reverse=True) != scales
    for _ in range(5):
        cut.advance()
    state = CheckpointState(
        step=5, run=config, data=data.info, identity={}, witness=cut.witness(), scaler=cut.scaler_state()
    )
    back = read_checkpoint(save_checkpoint(tmp_path, state, cut.tensors(), keep=1))
    assert resumed.scaler_state() != back.state.scaler
    resumed.restore(5, back.tensors, back.state.scaler)
    for _ in range(4):
        resumed.advance()
    assert resumed.scaler_state() == straight.scaler_state()
    for group, tensors in straight.tensors().items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, resumed.tensors()[group][name]), name


def test_a_run_of_a_version_with_fewer_settings_goes_on(tmp_path: Path) -> None:
    """What an older version did not know counts as its default, and as nothing else."""
    run = tmp_path / "run"
    train(tiny_run("ddpm", steps=2), run, progress=False, tensorboard=False)
    state = checkpoint_paths(run / "checkpoints")[0] / "state.json"
    for path in (run / "run.json", state):
        text = json.loads(path.read_text())
        for settings in (text.get("run", text)["config"], text.get("identity", {})):
            settings.pop("prediction_type", None)
            settings.pop("config.prediction_type", None)
        path.write_text(json.dumps(text))
    other = tiny_run("ddpm", steps=4, config={"prediction_type": "v_prediction"})
    with pytest.raises(TrainingError, match=r"'config\.prediction_type' was 'epsilon', is 'v_prediction'"):
        train(other, run, resume=True, progress=False, tensorboard=False)
    assert train(tiny_run("ddpm", steps=4), run, resume=True, progress=False, tensorboard=False).step == 4


def test_intervals_and_a_time_limit_do_not_change_the_numbers(tmp_path: Path) -> None:
    settings = {"lr_schedule": "cosine", "warmup_steps": 3, "grad_clip": 0.5}
    straight = tiny_run("vae", steps=9, config=settings)
    cut = tiny_run(
        "vae", steps=9, config=settings, log_every=1, checkpoint_every=4, preview_every=2, preview_count=4
    )
    train(straight, tmp_path / "straight", progress=False, tensorboard=False)
    result = train(cut, tmp_path / "cut", max_seconds=0, progress=False, tensorboard=False)
    assert (result.stopped, result.step) == ("seconds", 1)
    result = train(cut, tmp_path / "cut", resume=True, progress=False, tensorboard=False)
    assert (result.stopped, result.step) == ("steps", 9)
    assert_same_state(newest(tmp_path / "straight"), newest(tmp_path / "cut"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_run("vae", steps=4, checkpoint_every=2), run, progress=False, tensorboard=False)
    return run


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        (tiny_run("ddpm", steps=4), "'family' was 'vae', is 'ddpm'"),
        (tiny_run("vae", steps=4, config={"batch_size": 8}), "'config.batch_size' was 16, is 8"),
        (tiny_run("vae", steps=4, config={"learning_rate": 0.5}), "'config.learning_rate'"),
        (tiny_run("vae", steps=4, seed=1), "'seed' was 0, is 1"),
        (tiny_run("vae", steps=4, precision="bf16"), "'precision' was 'fp32', is 'bf16'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(finished: Path, changed: RunConfig, key: str) -> None:
    before = (finished / "run.json").read_text()
    with pytest.raises(TrainingError, match="can't be continued") as caught:
        train(changed, finished, resume=True, progress=False, tensorboard=False)
    assert key in str(caught.value)
    assert (finished / "run.json").read_text() == before


def test_other_data_is_refused(tmp_path: Path) -> None:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "some.npz", images=images)
    config = tiny_run("vae", steps=2, source=str(tmp_path / "some.npz"))
    train(config, tmp_path / "run", progress=False, tensorboard=False)
    np.savez(tmp_path / "some.npz", images=images[::-1])
    with pytest.raises(TrainingError, match="the data have changed"):
        train(config, tmp_path / "run", resume=True, progress=False, tensorboard=False)


def test_a_folder_with_a_run_or_with_something_else_is_not_overwritten(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a run already"):
        train(tiny_run("vae"), finished, progress=False, tensorboard=False)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not empty \('letter.txt'\)"):
        train(tiny_run("vae"), tmp_path, progress=False, tensorboard=False)


def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_run("vae", steps=6, checkpoint_every=2)
    train(config, tmp_path / "run", progress=False, tensorboard=False)
    good = newest(tmp_path / "run")
    broken = good.path / "optimizer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    assert load_run(tmp_path / "run").step == 4
    train(config, tmp_path / "run", resume=True, tensorboard=False)
    told = capsys.readouterr().err
    assert "optimizer.safetensors is altered" in told
    assert "continuing at step 4" in told
    assert_same_state(good, newest(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / "broken-step-0000006").is_dir()


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    endless = tiny_run("vae", steps=1_000_000, checkpoint_every=5)
    process = start_training(endless.to_json(), tmp_path / "run")
    try:
        wait_for_checkpoint(tmp_path / "run", after=1)
        with pytest.raises(TrainingError, match="another process trains"):
            train(endless, tmp_path / "run", resume=True, progress=False, tensorboard=False)
    finally:
        process.kill()
        process.join(30)
