"""Latent diffusion: two parts in one run, latents of unit variance, and graphs that lead to them and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec
from gensdk_training.checkpoint import checkpoint_paths, read_checkpoint
from gensdk_training.families.ldm import Ldm, LdmConfig, Rescaling
from gensdk_training.family import Batch, DataInfo
from gensdk_training.graphs.autoencoder import linear_preview
from gensdk_training.networks.image_autoencoder import Encoder
from gensdk_training.run import load_run, train
from gensdk_training.torch_backend import torch_sessions
from gensdk_training.trainer import Trainer
from support.captioned import CAPTIONS
from support.tiny import tiny_run

SMALL: dict[str, Any] = {"channels": 8, "autoencoder_channels": 8, "blocks": 1, "text_features": 8}


def build(*, captions: bool = False, classes: int | None = None, side: int = 8, **config: Any) -> Ldm:
    data = DataInfo(name="toy", channels=1, height=side, width=side, count=10, num_classes=classes)
    if captions:
        data = data.model_copy(update={"captions": CAPTIONS})
    return Ldm(LdmConfig.from_dict({**SMALL, **config}, what="config"), data)


def trainer(**config: Any) -> Trainer:
    run = tiny_run("ldm", steps=20, config=config).resolved()
    data = run.data.load()
    return Trainer(run.build_family(data.info), data, seed=0, accelerator=Accelerator(cpu=True))


def copies(network: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in network.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("settings", [{}, {"adversarial_weight": 0.1, "discriminator_channels": 8}])
def test_the_autoencoder_learns_first_and_rests_then(settings: dict[str, Any]) -> None:
    live = trainer(autoencoder_steps=2, **settings)
    later = ("denoiser", "rescaling")
    moved: list[set[str]] = []
    for _ in range(4):
        before = {name: copies(network) for name, network in live.networks.items()}
        live.advance()
        moved.append({name for name, network in live.networks.items() if not same(before[name], copies(network))})
    live.close()
    first = set(live.networks) - set(later)
    assert moved == [first, first, set(later), {"denoiser"}], "the scale is measured once"


def test_latents_have_no_mean_and_unit_variance_from_the_second_part_on() -> None:
    live = trainer(autoencoder_steps=2, batch_size=128)
    encoder, rescaling = live.networks["encoder"], live.networks["rescaling"]
    assert isinstance(encoder, Encoder)
    last = encoder.layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    live.advance()
    with torch.no_grad():  # as long training might leave it
        last.weight[:4] *= 5
        last.bias[:4] += 2
        last.bias[4:] -= 4
    live.advance()
    live.advance()
    images = live.feed.spread(400).images
    with torch.no_grad():
        raw = encoder.draw(images)[0]
        latents = rescaling(raw)
    live.close()
    assert abs(float(raw.std()) - 1) > 0.1, "they would not have it by themselves"
    assert float(latents.std()) == pytest.approx(1, abs=0.05)
    assert float(latents.mean()) == pytest.approx(0, abs=0.05)


def test_what_was_measured_once_stays() -> None:
    rescaling = Rescaling()
    rescaling.measure(3 + 4 * torch.randn(8, 2, 16, 16))
    first = copies(rescaling)
    rescaling.measure(torch.randn(8, 2, 4, 4))
    assert same(first, copies(rescaling))
    flat = Rescaling()
    flat.measure(torch.full((2, 2, 4, 4), 3.0))
    assert float(flat.scale) == pytest.approx(1e4, rel=1e-3), "nothing is blown up beyond all measure"


def test_the_average_forgets_what_the_denoiser_began_with() -> None:
    """Its warm-up begins with the second part: d = 0.1 in its first step."""
    live = trainer(autoencoder_steps=15, ema_decay=0.999)
    for _ in range(16):
        fresh = live.networks["denoiser"].conv_in.weight.detach().clone()  # type: ignore[union-attr, operator]
        live.advance()
    learned = live.networks["denoiser"].conv_in.weight  # type: ignore[union-attr]
    average = live.ema.networks["denoiser"].conv_in.weight  # type: ignore[union-attr]
    live.close()
    assert not torch.equal(fresh, learned)  # type: ignore[arg-type]
    torch.testing.assert_close(average, 0.1 * fresh + 0.9 * learned)  # type: ignore[operator]


@pytest.mark.parametrize("halt", [2, 3, 4])
def test_a_run_that_is_resumed_around_the_border_equals_a_straight_one(halt: int, tmp_path: Path) -> None:
    """The second part begins with step 3: with a stop before it, at it, and right behind it."""
    for folder, stops in (("straight", (6,)), ("resumed", (halt, 6))):
        for number, steps in enumerate(stops):
            run = tiny_run("ldm", steps=steps)
            train(run, tmp_path / folder, resume=number > 0, progress=False, tensorboard=False)
    one, other = (
        read_checkpoint(checkpoint_paths(tmp_path / folder / "checkpoints")[0]).tensors
        for folder in ("straight", "resumed")
    )
    assert one["model"]["rescaling.scale"] > 0
    for group, tensors in one.items():
        assert tensors.keys() == other[group].keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, other[group][key]), f"{group}: {key}"


def test_images_encoded_and_decoded_by_the_graphs_are_those_of_the_networks(tmp_path: Path) -> None:
    train(tiny_run("ldm", steps=5), tmp_path, progress=False, tensorboard=False)
    trained = load_run(tmp_path)
    plan, networks = trained.family.export_plan(trained.networks), trained.networks
    assert isinstance(plan.model.program, DiffusionSpec)
    assert not plan.model.program.defaults.clip_sample
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        mean = networks["encoder"](images)[0]
        drawn = networks["decoder"](mean).clamp(-1, 1)
        latents = networks["rescaling"](mean)
    sessions = torch_sessions(plan)
    again = sessions["decoder"].run({"latent": latents.numpy()})["image"]
    with Generator.from_sessions(plan.model, sessions) as generator:
        encoded = generator.encode(images.numpy())
    np.testing.assert_allclose(encoded, latents.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again, drawn.numpy(), atol=1e-4)


def test_a_preview_is_near_to_what_a_linear_decoder_makes() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Conv2d(4, 3, 1), nn.Upsample(scale_factor=2, mode="nearest"))
    rows = torch.tensor(linear_preview(decoder, (4, 3, 5), scale=2.0, shift=0.5), dtype=torch.float32)
    weight, bias = decoder[0].weight[:, :, 0, 0], decoder[0].bias  # type: ignore[index, operator]
    torch.testing.assert_close(rows[:, :4], weight.detach() / 2)
    torch.testing.assert_close(rows[:, 4], (bias + 0.5 * weight.sum(dim=1)).detach())  # type: ignore[operator]


@pytest.mark.parametrize("asked", ["labels", "captions", "both"])
def test_labels_and_captions_reach_the_denoiser(asked: str) -> None:
    family = build(
        classes=None if asked == "captions" else 3,
        captions=asked != "labels",
        conditional=asked != "captions",
        guidance_dropout=0.0,
        word_dropout=0.0,
    )
    torch.manual_seed(0)
    networks = family.build_networks()
    begin = CAPTIONS.begin
    rows = torch.tensor([[begin, 4, 7, 0, 0], [begin, 5, 8, 0, 0]])
    labels, prompts = torch.tensor([0, 2]), None if asked == "labels" else rows
    batch = Batch(torch.rand(2, 1, 8, 8) * 2 - 1, None if asked == "captions" else labels, prompts=prompts)
    changed = []
    if asked != "captions":
        changed.append(Batch(batch.images, torch.tensor([1, 2]), prompts=prompts))
    if asked != "labels":
        changed.append(Batch(batch.images, batch.labels, prompts=rows.flip(0)))
    assert changed

    def loss(told: Batch) -> float:
        torch.manual_seed(1)
        return float(family.loss("denoiser", networks, told).total.detach())

    here = loss(batch)
    assert loss(batch) == here
    assert all(loss(other) != here for other in changed)
    plan = family.export_plan(networks)
    kinds = {condition.kind for condition in plan.model.conditions}
    assert ("label" in kinds) == (asked != "captions")
    assert ("prompt" in kinds) == (asked != "labels")


def test_a_run_that_ends_with_the_first_part_says_so(tmp_path: Path) -> None:
    train(tiny_run("ldm", steps=3), tmp_path, progress=False, tensorboard=False)
    trained = load_run(tmp_path)
    assert trained.family.notes() == (
        "steps 3 end before the denoiser begins, at step 3: samples are noise; set more steps, or fewer "
        "autoencoder_steps",
    )
    assert "the autoencoder alone has learned" in (trained.family.unfinished(trained.networks) or "")


@pytest.mark.parametrize(
    ("side", "settings", "words"),
    [
        (10, {}, "factor 2, 2 multipliers and patch 1 needs height and width divisible by 4, got 10x10; use less"),
        (8, {"factor": 8}, "divisible by 16, got 8x8"),
        (8, {"autoencoder_channels": 12}, "autoencoder_channels must be divisible by norm_groups, got 12 and 8"),
        (8, {"adversarial_weight": 1.0, "patch_layers": 3}, "too small for patch_layers 3"),
        (8, {"attention_resolutions": [8]}, "attention_resolutions has 8, but the levels are [4, 2]"),
        (8, {"extractor": "none.safetensors"}, "none.safetensors"),
        (8, {"conditional": True}, "conditional needs labels"),
        (8, {"factor": 3}, "factor"),
        (8, {"autoencoder_steps": 0}, "autoencoder_steps"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(side: int, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as failure:
        build(side=side, **settings)
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


def test_features_and_a_discriminator_change_what_the_autoencoder_learns(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "features.safetensors"
    torch.manual_seed(0)
    save_file({"hidden.0.weight": torch.randn(4, 1, 3, 3), "hidden.0.bias": torch.zeros(4)}, path)
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    totals = {}
    for name, settings in {
        "plain": {},
        "features": {"extractor": str(path)},
        "game": {"adversarial_weight": 0.5},
    }.items():
        family = build(**settings)
        torch.manual_seed(0)
        networks = family.build_networks()
        torch.manual_seed(1)
        loss = family.loss("autoencoder", networks, Batch(images))
        totals[name] = float(loss.total.detach()) - float(loss.logs["l1"])
        torch.autograd.backward(loss.total)
        assert all(part.grad is not None for part in networks["decoder"].parameters())
    assert totals["features"] > totals["plain"]
    assert totals["game"] != totals["plain"]
