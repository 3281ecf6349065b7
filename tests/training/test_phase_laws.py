"""A phase moves what it trains and nothing else; an average equals its network wherever it must."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gensdk_export.graphs import prepare_modules
from gensdk_runtime.errors import ExportError
from gensdk_training.checkpoint import checkpoint_paths, read_checkpoint, save_checkpoint
from gensdk_training.ema import Ema
from gensdk_training.networks.initialization import initialize
from gensdk_training.preview import sample_networks
from gensdk_training.registry import get_family
from gensdk_training.run import load_run, train
from gensdk_training.running_statistics import (
    evaluated,
    let_statistics_move,
    mend_spectral_norms,
    spectral_norms,
    wrong_spectral_norms,
)
from gensdk_training.trainer import Trainer
from support.tiny import FAMILIES, POINT_FAMILIES, tiny_points, tiny_run

CONVOLUTIONS = {"architecture": "conv"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dcgan-spectral": ("dcgan", {"spectral_norm": True, "discriminator_steps": 2}),
    "anogan-plain": ("anogan", {"spectral_norm": False}),
    "bigan-conv": ("bigan", {**CONVOLUTIONS, "channels": 8, "discriminator_channels": 8}),
    "ae-conv": ("ae", {**CONVOLUTIONS, "channels": 8}),
    "sgan-conv": ("sgan", {**CONVOLUTIONS, "generator_channels": 8, "classifier_channels": 8, "dropout": 0.3}),
    "ldm-adversarial": ("ldm", {"adversarial_weight": 0.1, "discriminator_channels": 8}),
    "pix2pix-batch": ("pix2pix", {"norm": "batch"}),
    "srgan-gan": ("srgan", {"objective": "gan"}),
    "gan-conv": ("gan", {**CONVOLUTIONS, "generator_channels": 8, "discriminator_channels": 8}),
}
CASES = [
    *(pytest.param(name, {}, id=name) for name in FAMILIES),
    *(pytest.param(family, settings, id=name) for name, (family, settings) in VARIANTS.items()),
    *(pytest.param(name, None, id=f"{name}-points") for name in POINT_FAMILIES),
]
every_case = pytest.mark.parametrize(("name", "settings"), CASES)


def _trainer(name: str, settings: dict[str, Any] | None, **config: Any) -> Trainer:
    make = tiny_points if settings is None else tiny_run
    run = make(name, config={**(settings or {}), **config}).resolved()
    data = run.data.load()
    return Trainer(run.build_family(data.info), data, seed=0, accelerator=Accelerator(cpu=True))


def _copies(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers, the unsaved ones too."""
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, network in networks.items()
        for key, tensor in [*network.named_parameters(), *network.named_buffers()]
    }


def _moved(before: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> list[str]:
    return [key for key, tensor in _copies(networks).items() if not torch.equal(tensor, before[key])]


@every_case
def test_a_phase_moves_nothing_that_it_does_not_train(name: str, settings: dict[str, Any] | None) -> None:
    trainer = _trainer(name, settings)
    trainer.advance()
    assert trainer.phases
    for position, phase in enumerate(trainer.phases):
        before = _copies(trainer.networks)
        trainer._run_phase(phase, position, 0, 7 + position)
        moved = _moved(before, trainer.networks)
        assert moved, "it trains something"
        assert {key.partition(".")[0] for key in moved} <= set(phase.trains), phase.name
    trainer.close()


@every_case
def test_a_preview_moves_nothing_and_leaves_the_training_as_it_was(
    name: str, settings: dict[str, Any] | None
) -> None:
    watched = _trainer(name, settings)
    watched.advance()
    other = _trainer(name, settings)
    other.advance()
    before = _copies({**watched.networks, "ema": nn.ModuleDict(watched.ema.networks)})
    for networks in (watched.networks, {**watched.networks, **watched.ema.networks}):
        examples = watched.family.examples(watched.feed.spread(4))
        sample_networks(watched.family, networks, 4, examples=examples)
    assert not _moved(before, {**watched.networks, "ema": nn.ModuleDict(watched.ema.networks)})
    watched.prepare_networks()
    for trainer in (watched, other):
        trainer.advance()
        trainer.close()
    for key, tensor in _copies(other.networks).items():
        assert torch.equal(tensor, _copies(watched.networks)[key]), key


@every_case
def test_without_decay_the_average_is_the_network(name: str, settings: dict[str, Any] | None) -> None:
    trainer = _trainer(name, settings, ema_decay=0.0)
    for _ in range(3):
        trainer.advance()
    _assert_the_average_is_the_network(trainer)
    trainer.close()


@every_case
def test_the_average_is_the_network_where_weights_stand_still(name: str, settings: dict[str, Any] | None) -> None:
    """Buffers move in the meantime: statistics follow the batches, vectors turn to their weight."""
    trainer = _trainer(name, settings, ema_decay=0.999)
    trainer.advance()
    trainer.ema = Ema({key: trainer.networks[key] for key in trainer.family.ema_networks}, 0.999)
    for optimizer in trainer._optimizers.values():
        optimizer.step = lambda *_: None  # type: ignore[method-assign, assignment]
    clip, trainer.family.after_update = trainer.family.after_update, lambda *_: None  # type: ignore[method-assign]
    for _ in range(3):
        trainer.advance()
    trainer.family.after_update = clip  # type: ignore[method-assign]
    _assert_the_average_is_the_network(trainer)
    trainer.close()


def _assert_the_average_is_the_network(trainer: Trainer) -> None:
    raw = {key: trainer.networks[key] for key in trainer.family.ema_networks}
    for key, tensor in _copies(trainer.ema.networks).items():
        torch.testing.assert_close(tensor, _copies(raw)[key], rtol=1e-6, atol=1e-7, msg=key)
    examples = trainer.family.examples(trainer.feed.spread(4))
    average = sample_networks(trainer.family, {**trainer.networks, **trainer.ema.networks}, 4, examples=examples)
    network = sample_networks(trainer.family, trainer.networks, 4, examples=examples)
    torch.testing.assert_close(torch.from_numpy(average.array), torch.from_numpy(network.array))


DECLARED = [
    *(
        pytest.param(name, {**CONVOLUTIONS}, id=name)
        for name in ("cgan", "fgan", "gan", "sngan", "wgan", "wgan_gp")
    ),
    *(pytest.param(name, {}, id=name) for name in ("dcgan", "pix2pix", "cyclegan")),
    pytest.param("dcgan", {"spectral_norm": True}, id="dcgan-spectral"),
    pytest.param("anogan", {"spectral_norm": False}, id="anogan"),
    pytest.param("anogan", {"spectral_norm": True}, id="anogan-spectral"),
]
WIDE = {"generator_channels": 64, "discriminator_channels": 64, "channels": 32}


@pytest.mark.parametrize(("name", "settings"), DECLARED)
def test_convolutions_begin_as_the_paper_says_under_any_parametrization(
    name: str, settings: dict[str, Any]
) -> None:
    fields = get_family(name).Config.model_fields
    run = tiny_run(name, config={**settings, **{key: v for key, v in WIDE.items() if key in fields}})
    torch.manual_seed(3)
    networks = run.build_family(run.data.load().info).build_networks()
    networks.pop("encoder", None)  # anogan's, which is no part of the game
    seen = 0
    for module in [part for network in networks.values() for part in network.modules()]:
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        weight = dict(module.named_parameters()).get("parametrizations.weight.original", module.weight).detach()
        if weight.numel() > 5000:
            assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
            assert abs(float(weight.mean())) < 0.001
            seen += 1
    assert seen >= 2
    assert not [wrong for network in networks.values() for wrong in wrong_spectral_norms(network)]


def test_weight_norm_is_initialized_by_its_weight() -> None:
    layer = weight_norm(nn.Conv2d(32, 64, 4))
    initialize(layer)
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def _spectral() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(spectral_norm(nn.Conv2d(3, 8, 4)), nn.Flatten(), spectral_norm(nn.Linear(8, 4)))


def test_short_vectors_of_spectral_norms_are_seen_and_mended() -> None:
    network = _spectral().eval().requires_grad_(requires_grad=False)
    images = torch.randn(2, 3, 4, 4)
    right = network(images)
    assert not wrong_spectral_norms(network)
    for _, norm, _ in spectral_norms(network):
        norm._u.mul_(0.27)
        norm._v.mul_(0.9)
    assert float(network(images).abs().mean() / right.abs().mean()) > 10
    assert len(wrong_spectral_norms(network)) == 2
    mend_spectral_norms(network)
    assert not wrong_spectral_norms(network)
    torch.testing.assert_close(network(images), right, rtol=0.1, atol=0.02)


def test_vectors_of_another_weight_are_seen() -> None:
    network = _spectral()
    with torch.no_grad():
        network[0].parametrizations.weight.original.copy_(torch.randn(8, 3, 4, 4))  # type: ignore[union-attr]
    assert len(wrong_spectral_norms(network)) == 1
    mend_spectral_norms(network)
    assert not wrong_spectral_norms(network)


def test_the_export_refuses_what_its_proof_cant_see() -> None:
    run = tiny_run("anogan")
    family = run.build_family(run.data.load().info)
    networks = family.build_networks()
    prepare_modules(family.export_plan(networks))
    for _, norm, _ in spectral_norms(networks["discriminator"]):
        norm._u.mul_(0.27)
    with pytest.raises(ExportError, match=r"spectral norm's vectors .*\|u\| 0\.27"):
        prepare_modules(family.export_plan(networks))


def test_an_older_checkpoint_with_averaged_vectors_is_mended_as_it_is_opened(tmp_path: Path) -> None:
    train(tiny_run("anogan", steps=3), tmp_path, progress=False, tensorboard=False)
    path = checkpoint_paths(tmp_path / "checkpoints")[0]
    checkpoint = read_checkpoint(path)
    tensors = {group: dict(each) for group, each in checkpoint.tensors.items()}
    short = [key for key in tensors["ema"] if key.endswith(("._u", "._v"))]
    assert short
    for key in short:
        tensors["ema"][key] = tensors["ema"][key] * 0.27
    save_checkpoint(path.parent, checkpoint.state, tensors, keep=1)
    for network in load_run(tmp_path).networks.values():
        assert not wrong_spectral_norms(network)
    train(tiny_run("anogan", steps=5), tmp_path, resume=True, progress=False, tensorboard=False)
    again = read_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[0])
    assert all(float(again.tensors["ema"][key].norm()) == pytest.approx(1, abs=1e-3) for key in short)


def test_held_networks_give_the_same_results() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True))
    torch.manual_seed(0)
    images = torch.randn(5, 1, 6, 6)
    held = network(images)
    before = _copies({"n": network})
    let_statistics_move(network, move=False)
    torch.testing.assert_close(network(images), held, rtol=0, atol=0)
    assert not _moved(before, {"n": network})
    with evaluated(network):
        assert not torch.equal(network(images), held), "running statistics, which have hardly begun"
    assert all(part.training for part in network.modules())
    let_statistics_move(network, move=True)
    network(images)
    assert _moved(before, {"n": network})


def test_what_bigan_looks_at_for_a_log_is_no_pass_of_its_training() -> None:
    trainer = _trainer("bigan", VARIANTS["bigan-conv"][1])
    for _ in range(3):
        trainer.advance()
    counts = {key: int(value) for key, value in _copies(trainer.networks).items() if key.endswith("_tracked")}
    assert counts
    assert set(counts.values()) == {3}, "one pass of G and of E in each step"
    trainer.close()


@pytest.mark.parametrize("name", ["anogan", "dcgan", "bigan", "sngan", "gon", "progan", "sgan"])
def test_without_decay_the_average_is_the_network_after_a_resume_too(name: str, tmp_path: Path) -> None:
    settings = {"ema_decay": 0.0, "lr_schedule": "constant"}
    if name == "progan":
        settings |= {"hold_steps": 1, "fade_steps": 0}
    for steps, resume in ((3, False), (6, True)):
        run = tiny_run(name, steps=steps, config=settings)
        train(run, tmp_path, resume=resume, progress=False, tensorboard=False)
        tensors = read_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[0]).tensors
        assert tensors["ema"]
        for key, average in tensors["ema"].items():
            torch.testing.assert_close(average, tensors["model"][key], rtol=0, atol=0, msg=key)


def test_a_student_moves_nothing_of_its_teacher(tmp_path: Path) -> None:
    train(tiny_run("ddpm", steps=2), tmp_path / "teacher", progress=False, tensorboard=False)
    settings = {"distill_from": str(tmp_path / "teacher"), "distill_steps": 2, "prediction_type": "v_prediction"}
    trainer = _trainer("ddpm", settings)
    trainer.advance()
    before = _copies({"teacher": trainer.networks["teacher"]})
    trainer.advance()
    assert not _moved(before, {"teacher": trainer.networks["teacher"]})
    trainer.close()
