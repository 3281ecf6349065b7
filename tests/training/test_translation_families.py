"""Laws of the families that translate images: their losses, their histories, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.families.cyclegan import CycleGan, CycleGanConfig
from gensdk_training.families.pix2pix import Pix2Pix, Pix2PixConfig
from gensdk_training.families.srgan import Srgan, SrganConfig
from gensdk_training.families.stargan import StarGan, StarGanConfig
from gensdk_training.family import Batch, DataInfo, SourceInfo
from gensdk_training.losses.adversarial import discriminator_loss, towards
from gensdk_training.losses.gradient_penalty import gradient_penalty
from gensdk_training.losses.image_pool import ImagePool
from gensdk_training.losses.perceptual import load_features
from gensdk_training.metrics.classifier import ClassifierNetwork
from gensdk_training.networks.patches import PatchDiscriminator
from gensdk_training.networks.resnet_generator import ResnetGenerator, margin
from gensdk_training.networks.srresnet import SrResNet, shrink
from gensdk_training.networks.srresnet import margin as sr_margin
from gensdk_training.run import train
from gensdk_training.torch_backend import torch_sessions
from support.tiny import tiny_run


def data(side: int = 16, *, paired: bool = True, width: int | None = None) -> DataInfo:
    width = width or side
    source = SourceInfo(channels=1, height=side, width=width, count=9, paired=paired)
    return DataInfo(name="x", channels=3, height=side, width=width, count=9, source=source)


class Constant(nn.Module):
    """Gives every image of `channels` the same value."""

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return self.value.expand(len(images), self.channels, *images.shape[2:])


@pytest.mark.parametrize(("logit", "real"), [(0.0, True), (2.0, False), (-80.0, True), (80.0, False)])
def test_games_are_as_written(logit: float, real: bool) -> None:
    logits = torch.full((2, 1, 3, 3), logit, dtype=torch.float64)
    probability = torch.sigmoid(logits)
    expected = -torch.log(probability if real else 1 - probability).mean()
    if expected.isfinite():
        assert towards("vanilla", logits, real=real) == pytest.approx(expected.item())
    assert towards("vanilla", logits, real=real).isfinite()
    assert towards("lsgan", logits, real=real) == pytest.approx((logit - real) ** 2)
    both = discriminator_loss("lsgan", logits, logits)
    assert both == pytest.approx(((logit - 1) ** 2 + logit**2) / 2)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_its_patch(layers: int, patch: int) -> None:
    judge = PatchDiscriminator(1, 2, layers=layers, norm="none").double()
    image = torch.zeros(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    logits = judge(image)
    middle = logits.shape[2] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], image)
    rows = gradient[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == patch


def test_pix2pix_weighs_l1_against_the_game() -> None:
    batch = Batch(torch.full((2, 3, 16, 16), 0.5), sources=torch.zeros(2, 1, 16, 16))
    totals = {}
    for objective in ("both", "l1", "gan"):
        family = Pix2Pix(
            Pix2PixConfig.from_dict({"objective": objective, "channels": 4, "patch_layers": 2}, what="x"), data()
        )
        networks = family.build_networks()
        networks["generator"] = Constant(3, -0.25)
        if objective != "l1":
            networks["discriminator"] = Constant(1, 0.0)
        totals[objective] = family.loss("generator", networks, batch).total.item()
        assert len(family.phases()) == (1 if objective == "l1" else 2)
    assert totals["l1"] == pytest.approx(75.0)
    assert totals["gan"] == pytest.approx(0.6931472)
    assert totals["both"] == pytest.approx(75.6931472)


def test_a_unet_is_as_deep_as_its_image_allows() -> None:
    family = Pix2Pix(Pix2PixConfig(channels=4), data(64))
    plan = family.export_plan(family.build_networks())
    assert plan.model.source is not None
    assert plan.model.source.multiple == 64
    with pytest.raises(InputError, match="can't be halved 4 times"):
        Pix2Pix(Pix2PixConfig(depth=4), data(24))
    with pytest.raises(InputError, match="too small for patch_layers 3: expected at least 24 pixels"):
        Pix2Pix(Pix2PixConfig(), data(16))


@pytest.mark.parametrize("family", [Pix2Pix, CycleGan])
def test_what_is_translated_must_be_there(family: Any) -> None:
    alone = data().model_copy(update={"source": None})
    with pytest.raises(InputError, match="--inputs"):
        family(family.Config(), alone)
    smaller = SourceInfo(channels=1, height=8, width=8, count=9, paired=True)
    with pytest.raises(InputError, match="same size"):
        family(family.Config(), data().model_copy(update={"source": smaller}))
    with pytest.raises(InputError, match="--inputs"):
        Pix2Pix(Pix2PixConfig(), data(paired=False))


def test_the_cycle_is_what_ties_a_result_to_its_source() -> None:
    """With G and F that ignore their input, only the cycle's loss tells sources apart."""
    one, other = (Batch(torch.zeros(2, 3, 16, 16), sources=torch.full((2, 1, 16, 16), v)) for v in (0.0, 0.5))
    for weight in (0.0, 10.0):
        config = CycleGanConfig(two_way=False, cycle_weight=weight, channels=4, blocks=1, pool=0, patch_layers=2)
        family = CycleGan(config, data())
        networks = family.build_networks() | {"generator": Constant(3, 0.0), "inverse": Constant(1, 0.0)}
        losses = [family.loss("generator", networks, batch).total.item() for batch in (one, other)]
        assert losses[1] - losses[0] == pytest.approx(0.5 * weight, abs=1e-5)


def test_a_pool_fills_then_gives_back_what_it_was_shown() -> None:
    pool, shown = ImagePool(4, (1, 2, 2)), set()
    torch.manual_seed(0)
    for number in range(20):
        fresh = torch.full((2, 1, 2, 2), float(number))
        given = pool(fresh)
        shown.add(float(number))
        assert given.shape == fresh.shape
        assert set(given.unique().tolist()) <= shown
        if number < 2:
            assert torch.equal(given, fresh)
    assert int(pool.count) == 4
    assert len(pool.images.flatten(1)[:, 0].unique()) > 1
    assert ImagePool(0, (1, 2, 2))(fresh) is fresh


def test_the_pool_is_part_of_a_run(tmp_path: Path) -> None:
    """Resuming exactly needs it: what D sees next is drawn from it."""
    train(tiny_run("cyclegan", steps=2), tmp_path / "run", progress=False, tensorboard=False)
    from gensdk_training.run import load_run

    judge = load_run(tmp_path / "run").networks["discriminator"]
    assert int(judge.get_buffer("pool.count")) == 4
    assert judge.get_buffer("pool.images").abs().sum() > 0


@pytest.mark.parametrize(("blocks", "halvings"), [(1, 1), (2, 2)])
def test_the_margin_of_a_resnet_is_what_it_sees(blocks: int, halvings: int) -> None:
    network = ResnetGenerator(1, 1, 2, blocks=blocks, halvings=halvings, norm="none").double()
    assert _reach(network, 128) <= margin(blocks, halvings)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_margin_of_an_srresnet_is_what_it_sees(scale: int) -> None:
    network = SrResNet(1, 4, blocks=2, scale=scale).double().eval()
    assert _reach(network, 48) <= sr_margin(2)


def _reach(network: nn.Module, side: int) -> int:
    """Pixels from the source of a result to the farthest one that it depends on."""
    source = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    result = network(source)
    scale, middle = result.shape[2] // side, result.shape[2] // 2
    (gradient,) = torch.autograd.grad(result[0, 0, middle, middle], source)
    rows = gradient[0, 0].abs().sum(1).nonzero()
    return int((rows - middle // scale).abs().max())


def test_shrinking_keeps_flat_images_and_gives_bytes() -> None:
    flat = torch.full((1, 1, 16, 16), -0.2)
    level = round((-0.2 + 1) * 127.5) / 127.5 - 1
    torch.testing.assert_close(shrink(flat, 4), torch.full((1, 1, 4, 4), level))
    levels = (shrink(torch.rand(2, 3, 16, 16) * 2 - 1, 2) + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_an_extractor_is_a_classifier_trained_here(tmp_path: Path) -> None:
    network = ClassifierNetwork((16, 16, 3), 4)
    path = tmp_path / "classifier.safetensors"
    save_file(network.state_dict(), path)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    convolutions = network.hidden[: list(map(type, network.hidden)).index(nn.Flatten)]
    torch.testing.assert_close(load_features(str(path))(images), convolutions(images))
    config = {"objective": "gan", "extractor": str(path), "channels": 4, "blocks": 1, "scale": 2}
    family = Srgan(SrganConfig.from_dict(config, what="x"), data())
    loss = family.loss("generator", family.build_networks(), Batch(images))
    assert loss.total.isfinite()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "can't read"), (b"no weights", "can't read"), ({"other": torch.zeros(2)}, "no convolutions")],
)
def test_other_files_are_no_extractors(tmp_path: Path, content: Any, problem: str) -> None:
    path = tmp_path / "weights.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    with pytest.raises(InputError, match=problem):
        Srgan(SrganConfig(extractor=str(path)), data())


def test_the_gan_starts_from_an_srresnet(tmp_path: Path) -> None:
    train(tiny_run("srgan", steps=2), tmp_path / "first", progress=False, tensorboard=False)
    run = tiny_run("srgan", steps=1, config={"objective": "gan", "start_from": str(tmp_path / "first")})
    info = run.data.load().info
    family = run.build_family(info)
    networks = family.build_networks()
    family.start(networks)
    from gensdk_training.run import load_run

    begun = load_run(tmp_path / "first").networks["generator"].state_dict()
    assert all(torch.equal(value, begun[key]) for key, value in networks["generator"].state_dict().items())
    other = tiny_run("srgan", config={"start_from": str(tmp_path / "first"), "channels": 12}).build_family(info)
    with pytest.raises(InputError, match="another shape"):
        other.start(other.build_networks())


def test_the_gradient_penalty_is_that_of_the_whole_sample() -> None:
    """Of a linear critic the gradient is the same everywhere: its norm over all pixels counts."""
    weight = torch.full((1, 1, 4, 4), 0.5)
    real, fake = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    penalty = gradient_penalty(lambda images: (images * weight).sum((1, 2, 3)), real, fake)
    assert penalty.item() == pytest.approx((0.5 * 4 - 1) ** 2)


def test_a_label_chooses_the_domain() -> None:
    info = DataInfo(name="x", channels=3, height=16, width=16, count=9, num_classes=3)
    family = StarGan(StarGanConfig(channels=4, blocks=1), info)
    plan = family.export_plan(family.build_networks())
    images = required_examples(plan.model, 1)["image"]
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as live:
        drawn = [live.sample(image=images, label=label).array for label in range(3)]
        with pytest.raises(InputError, match="label"):
            live.sample(image=images, label=3)
    assert all((drawn[i] != drawn[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
    with pytest.raises(InputError, match="--data NAME=DATA"):
        StarGan(StarGanConfig(), info.model_copy(update={"num_classes": None}))
