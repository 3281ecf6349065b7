"""The trainer's laws: learning rates, averages, clipping, precision, stopping, and what a run leaves."""

from __future__ import annotations

import errno
import io
import json
import logging
import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from gensdk_runtime.errors import InputError, TrainingError, UnavailableError
from gensdk_runtime.media.image_files import decode
from gensdk_training.data import Dataset, load_data
from gensdk_training.ema import Ema
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase
from gensdk_training.optim import learning_rate_factor
from gensdk_training.plan import ExportPlan
from gensdk_training.run import RunConfig, load_run, read_run_config, train
from gensdk_training.run_progress import Reporter
from gensdk_training.trainer import Trainer
from support.another_os import WINDOWS
from support.processes import start_training, wait_for_checkpoint
from support.tiny import FAMILIES, tiny_run


class Gone(io.StringIO):
    """A log on a full disk, or of a reader that left."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code, self.tried = code, 0

    def write(self, text: str, /) -> int:
        self.tried += 1
        raise OSError(self.code, os.strerror(self.code))


class Two(Family[FamilyConfig]):
    """Two networks, two phases, one of them repeated: what a GAN asks of a trainer, bare enough to compute."""

    name, title, paper, Config = "two", "", "", FamilyConfig

    def build_networks(self) -> dict[str, nn.Module]:
        return {"a": nn.Linear(64, 1), "b": nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 1))}

    def phases(self) -> tuple[Phase, ...]:
        return Phase("first", ("a",), 0.1, repeat=2), Phase("second", ("b",), 0.2, betas=(0.5, 0.9))

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        both = networks["a"](batch.images.flatten(1)) + networks["b"](batch.images.flatten(1))
        return Loss(both.square().mean(), {"mean": both.mean().detach()})

    @property
    def ema_networks(self) -> tuple[str, ...]:
        return ("b",)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        raise NotImplementedError


@pytest.fixture
def data() -> Dataset:
    return load_data("digits")


def trainer_of_two(data: Dataset, **config: Any) -> Trainer:
    family = Two(FamilyConfig(batch_size=8, steps=10, **config), data.info)
    return Trainer(family, data, seed=0, accelerator=Accelerator(cpu=True))


def test_a_warmup_that_the_steps_cut_off_is_refused(tmp_path: Path) -> None:
    for warmup in (5, 900):
        run = tiny_run("vae", steps=5, config={"warmup_steps": warmup})
        with pytest.raises(InputError, match=f"expected warmup_steps below steps 5, got {warmup}"):
            train(run, tmp_path / str(warmup), progress=False, tensorboard=False)
    train(
        tiny_run("vae", steps=5, config={"warmup_steps": 4}), tmp_path / "fits", progress=False, tensorboard=False
    )


def test_glo_says_which_images_it_never_meets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(tiny_run("glo", steps=2), tmp_path, progress=False, tensorboard=False)
    assert "2 steps of 16 meet 32 of 1438 images; the latents of the others are not learnt" in caplog.text


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 50),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)
def test_learning_rates_rise_then_never_rise_again(steps: int, warmup: int, schedule: Any) -> None:
    factors = [learning_rate_factor(s, steps=steps, schedule=schedule, warmup=warmup) for s in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    if steps > warmup:
        assert factors[warmup] == 1.0
        if schedule == "constant":
            assert factors[-1] == 1.0
    if schedule == "cosine" and steps - warmup > 1:
        middle = learning_rate_factor(
            warmup + (steps - warmup) // 2, steps=steps, schedule="cosine", warmup=warmup
        )
        assert middle == pytest.approx(
            0.5 + 0.5 * math.cos(math.pi * ((steps - warmup) // 2) / (steps - warmup)), abs=1e-12
        )


def test_the_average_follows_its_formula_for_parameters_and_copies_buffers() -> None:
    network = nn.BatchNorm1d(3)
    ema = Ema({"n": network}, decay=0.4)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(8):
        network(torch.randn(16, 3))
        with torch.no_grad():
            network.weight.add_(1.0)
        ema.update(step)
        decay = min(0.4, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            old = expected[name]
            averaged = name in dict(network.named_parameters())
            expected[name] = decay * old + (1 - decay) * tensor if averaged else tensor.clone()
    for name, tensor in ema.networks["n"].state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert int(ema.networks["n"].num_batches_tracked) == 8


def test_a_phase_trains_its_own_networks_on_fresh_data(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of_two(data)
    drawn: list[int] = []
    original = trainer.feed.batch
    monkeypatch.setattr(trainer.feed, "batch", lambda number: drawn.append(number) or original(number))
    loss = trainer.family.loss
    changes: list[tuple[str, dict[str, bool]]] = []

    def watched(phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        changes.append((phase, {n: next(net.parameters()).requires_grad for n, net in networks.items()}))
        return loss(phase, networks, batch)

    monkeypatch.setattr(trainer.family, "loss", watched)
    trainer.advance()
    trainer.advance()
    assert drawn == [0, 1, 2, 3, 4, 5]
    step = [("first", {"a": True, "b": False})] * 2 + [("second", {"a": False, "b": True})]
    assert changes == step * 2
    logs = trainer.take_logs()
    assert set(logs) == {"first/loss", "first/mean", "second/loss", "second/mean"}
    assert trainer.take_logs() == {}


def test_clipping_bounds_the_gradient(data: Dataset) -> None:
    trainer = trainer_of_two(data, grad_clip=1e-3)
    trainer.advance()
    for name in ("a", "b"):
        grads = [p.grad for p in trainer.networks[name].parameters() if p.grad is not None]
        assert torch.stack([grad.norm() for grad in grads]).norm() <= 1.001e-3


def test_training_lowers_the_loss(data: Dataset) -> None:
    trainer = trainer_of_two(data)
    trainer.advance()
    before = trainer.take_logs()
    for _ in range(30):
        trainer.advance()
    trainer.take_logs()
    trainer.advance()
    assert trainer.take_logs()["second/loss"] < before["first/loss"]


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = tiny_run("vae", steps=50, checkpoint_every=1, config={"learning_rate": 1e30})
    with pytest.raises(TrainingError) as caught:
        train(config, tmp_path / "run", progress=False, tensorboard=False)
    told = str(caught.value)
    assert "at step" in told
    assert "\n" not in told
    if "there is no checkpoint yet" not in told:
        step = int(told.rsplit("of step ", 1)[1].rstrip(")"))
        networks = load_run(tmp_path / "run", step=step).networks.values()
        assert all(torch.isfinite(p).all() for network in networks for p in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_leaves_a_whole_run(family: str, tmp_path: Path) -> None:
    config = tiny_run(family, steps=6, log_every=2, checkpoint_every=3, preview_every=3, preview_count=9)
    result = train(config, tmp_path / "run", progress=False)
    assert (result.step, result.stopped, result.skipped) == (6, "steps", 0)
    assert result.losses
    assert all(math.isfinite(value) for value in result.losses.values())
    previews = sorted(path.name for path in (tmp_path / "run" / "previews").iterdir())
    assert previews == ["step-0000003.png", "step-0000006.png"]
    grid = decode((tmp_path / "run" / "previews" / previews[-1]).read_bytes(), 3)
    assert grid.std() > 0
    assert list((tmp_path / "run" / "logs").glob("events*"))
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-0000003", "step-0000006"]
    assert read_run_config(tmp_path / "run") == config.resolved()
    run, raw = load_run(tmp_path / "run"), load_run(tmp_path / "run", ema=False)
    assert run.provenance.steps == 6
    known = config.data.load().info
    assert run.provenance.data == known.name
    assert run.provenance.data_count == known.count
    assert run.provenance.ema
    assert not raw.provenance.ema
    differs = [
        not torch.equal(one, two)
        for name in run.family.ema_networks
        for one, two in zip(run.networks[name].parameters(), raw.networks[name].parameters(), strict=True)
    ]
    assert any(differs) or run.family.config.ema_decay == 0
    assert not any(part.training for network in run.networks.values() for part in network.modules())


def test_tensorboard_has_the_losses(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(
        tiny_run("vae", steps=6, log_every=2, preview_every=6, preview_count=4), tmp_path / "run", progress=False
    )
    events = EventAccumulator(str(tmp_path / "run" / "logs"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert [event.step for event in events.Images("preview")] == [6]


def test_plain_lines_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_run("vae", steps=4, log_every=2), tmp_path / "run", tensorboard=False)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2/4", "step 4/4"]
    assert all("loss" in line and "it/s" in line for line in lines)


def test_a_terminal_gets_a_live_bar() -> None:
    screen = io.StringIO()
    with Reporter(
        total=10, progress=None, console=Console(file=screen, force_terminal=True, width=120)
    ) as reporter:
        reporter.begin(4)
        reporter.note("continuing [here]")
        reporter.advance(5)
        reporter.losses(6, {"loss": 0.5})
    told = screen.getvalue()
    assert "continuing [here]" in told
    assert "loss 0.5" in told
    assert "6/10" in told


def test_mixed_precision(tmp_path: Path) -> None:
    train(tiny_run("vae", steps=3), tmp_path / "fp32", progress=False, tensorboard=False, device="cpu")
    train(tiny_run("vae", steps=3, precision="bf16"), tmp_path / "bf16", progress=False, tensorboard=False)
    full, mixed = (load_run(tmp_path / name).networks for name in ("fp32", "bf16"))
    pairs = [
        (one, two)
        for name in full
        for one, two in zip(full[name].parameters(), mixed[name].parameters(), strict=True)
    ]
    assert all(two.dtype == torch.float32 for _, two in pairs)
    assert any(not torch.equal(one, two) for one, two in pairs)
    for one, two in pairs:
        torch.testing.assert_close(one, two, atol=0.05, rtol=0.1)
    with pytest.raises(UnavailableError, match="precision 'fp16' needs a GPU"):
        train(tiny_run("vae", precision="fp16"), tmp_path / "fp16", device="cpu", progress=False)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="asked"),
        pytest.param(
            1,
            id="terminal closed",
            marks=pytest.mark.skipif(WINDOWS, reason="Windows closes a console without it"),
        ),
    ],
)
def test_a_signal_ends_with_a_checkpoint(tmp_path: Path, number: int) -> None:
    config = tiny_run("vae", steps=1_000_000, checkpoint_every=25)
    process = start_training(config.to_json(), tmp_path / "run")
    wait_for_checkpoint(tmp_path / "run", after=0)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == 0
    assert load_run(tmp_path / "run").step >= 25


def test_load_run_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in"):
        load_run(tmp_path)
    train(tiny_run("vae", steps=1), tmp_path / "run", progress=False, tensorboard=False)
    with pytest.raises(InputError, match=r"no checkpoint of step 7 .* there are: 1"):
        load_run(tmp_path / "run", step=7)
    state = tmp_path / "run" / "checkpoints" / "step-0000001" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "steps": 3}))
    with pytest.raises(InputError, match=r"no whole checkpoint .*unknown key 'steps'; did you mean 'step'"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"family": "vea"}, "no family 'vea'; did you mean 'vae'"),
        ({"config": {"step": 3}}, "settings of 'vae': unknown key 'step'; did you mean 'steps'"),
        ({"config": {"batch_size": 0}}, "settings of 'vae': batch_size"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_written(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    wrong = RunConfig.from_dict({"family": "vae", "data": {"source": "digits"}, **config}, what="run")
    with pytest.raises(InputError, match=message):
        train(wrong, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_provenance_keeps_paths_to_itself(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(tmp_path / "secret place.npz", images=images)
    config = tiny_run("vae", steps=1, source=str(tmp_path / "secret place.npz"))
    train(config, tmp_path / "run", progress=False, tensorboard=False)
    assert str(tmp_path) not in load_run(tmp_path / "run").provenance.to_json()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_lines_that_cant_be_written_end_no_training(code: int) -> None:
    log = Gone(code)
    reporter = Reporter(total=2, progress=True, console=Console(file=log))
    with reporter:
        for step in range(3):
            reporter.note("a word")
            reporter.losses(step, {"loss": 1.0})
    assert log.tried
