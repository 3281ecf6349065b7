"""A denoiser in parts: embedding and rest, deep and shallow; whatever the parts, it is the same model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec, ScheduleSpec
from gensdk_training.family import DataInfo
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from gensdk_training.networks.unet import ResidualBlock, UNet, UNetShape
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions
from support.tiny import tiny_run

DATA = DataInfo(name="toy", channels=2, height=8, width=4, count=10, num_classes=3)
SCHEDULE = ScheduleSpec(num_train_timesteps=50)

conditional = pytest.mark.parametrize("classes", [None, 3], ids=["plain", "labels"])


def unet(classes: int | None, *, blocks: int = 2, multipliers: tuple[int, ...] = (1, 2)) -> UNet:
    """Weights of a size at which every block matters."""
    shape = UNetShape(
        image_channels=DATA.channels,
        channels=8,
        multipliers=multipliers,
        blocks=blocks,
        attention_levels=frozenset([0]),
        attention_heads=2,
        norm_groups=4,
        dropout=0.1,
        num_labels=None if classes is None else classes + 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(shape)
        for weight in network.parameters():
            nn.init.normal_(weight, mean=0.1, std=0.8 / weight[0].numel() ** 0.5)
    return network.eval()


class BlackBox(nn.Module):
    """A denoiser of which nothing is known."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)


def plan(denoiser: nn.Module, classes: int | None, **options: Any) -> ExportPlan:
    return diffusion_plan(
        denoiser, DATA.image, SCHEDULE, name="toy", family="ddpm", num_classes=classes, **options
    )


def sampler(found: ExportPlan) -> Generator:
    return Generator.from_sessions(found.model, torch_sessions(found))


def noisy(count: int, classes: int | None) -> tuple[Tensor, ...]:
    labels = () if classes is None else (torch.arange(count) % (classes + 1),)
    return (torch.randn(count, *DATA.image.shape), torch.tensor([17]), *labels)


@conditional
def test_a_black_box_samples_what_its_parts_sample(classes: int | None) -> None:
    network = unet(classes)
    parts, whole = plan(network, classes), plan(BlackBox(network), classes)
    assert isinstance(parts.model.program, DiffusionSpec)
    assert parts.model.program.graphs == ("step", "embedding")
    assert [graph.name for graph in whole.model.graphs] == ["step"]
    calls: list[dict[str, Any]] = [{}, {"solver": "ddpm", "num_inference_steps": 4}]
    calls += [{"label": [0, 2, 1, 0, 1]}, {"label": [0, 2, 1, 0, 1], "guidance_scale": 3.0}] if classes else []
    for call in calls:
        settings = {"num_inference_steps": 3, **call}
        expected = sampler(whole).sample(5, seed=1, **settings).array
        np.testing.assert_allclose(sampler(parts).sample(5, seed=1, **settings).array, expected, atol=1e-4)


@conditional
@pytest.mark.parametrize(("blocks", "multipliers"), [(1, (1,)), (3, (1, 2)), (2, (1, 1, 2))])
def test_a_shallow_step_with_its_own_features_is_the_full_one(
    classes: int | None, blocks: int, multipliers: tuple[int, ...]
) -> None:
    network = unet(classes, blocks=blocks, multipliers=multipliers)
    x, *rest = noisy(3, classes)
    with torch.no_grad():
        expected = network(x, *rest)
        embedding = network.embed(*rest)
        embedding = embedding if classes else embedding[0]
        assert torch.allclose(network.denoise(x, embedding), expected, atol=1e-5)
        for depth in range(1, blocks + 1):
            full, features = network.denoise_sharing(x, embedding, depth=depth)
            shallow = network.denoise_shallow(x, embedding, features, depth=depth)
            other = network.denoise_shallow(x, embedding, features.flip(-2), depth=depth)
            assert features.shape[1:] == network.features(DATA.height, DATA.width, depth=depth)
            assert torch.allclose(full, expected, atol=1e-5)
            assert torch.allclose(shallow, expected, atol=1e-5)
            assert not torch.allclose(other, expected, atol=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_shallow_step_runs_its_own_blocks_alone(depth: int) -> None:
    network = unet(None, blocks=3)
    ran: list[nn.Module] = []
    for part in network.modules():
        if isinstance(part, ResidualBlock):
            part.register_forward_hook(lambda block, *_: ran.append(block))
    features = torch.randn(2, *network.features(8, 4, depth=depth))
    with torch.no_grad():
        network.denoise_shallow(
            torch.randn(2, 2, 8, 4), network.embed(torch.tensor([3]))[0], features, depth=depth
        )
    assert len(ran) == 2 * depth


def test_rows_of_an_embedding_do_not_mix() -> None:
    network = unet(3)
    with torch.no_grad():
        rows = network.embed(torch.tensor([7]), torch.tensor([3, 0, 2]))
        each = [network.embed(torch.tensor([7]), torch.tensor([label])) for label in (3, 0, 2)]
    assert rows.shape == (3, network.embedding_size)
    assert torch.allclose(rows, torch.cat(each), atol=1e-5)


def test_the_names_of_the_weights_are_those_of_earlier_checkpoints() -> None:
    names = set(unet(3, blocks=1).state_dict())
    block = {f"middle_out.block.{part}.{kind}" for part in PARTS for kind in ("weight", "bias")}
    assert block | {"time.1.weight", "time.3.bias", "label.weight", "conv_in.weight", "norm_out.bias"} <= names
    assert {name.split(".")[0] for name in names} == {
        "time", "label", "conv_in", "down", "middle_in", "middle_out", "up", "norm_out", "conv_out",
    }  # fmt: skip


PARTS = ("norm_in", "conv_in", "scale_shift", "norm_out", "conv_out")


@conditional
def test_the_features_of_the_last_full_step_are_shared(classes: int | None) -> None:
    """With an interval beyond the last step, all but the first step are shallow; guidance has two sets of them."""
    generator = sampler(plan(unet(classes), classes, share_features=2))
    given: dict[str, Any] = {"label": [0, 1, 2], "guidance_scale": 2.0} if classes else {}
    exact = generator.sample(3, seed=0, num_inference_steps=4, **given).array
    for interval in (2, 3, 100):
        shared = generator.sample(3, seed=0, num_inference_steps=4, cache_interval=interval, **given)
        assert shared.settings["cache_interval"] == interval
        assert np.abs(shared.array - exact).max() > 1e-4
    one = generator.sample(3, seed=0, num_inference_steps=1, **given).array
    alone = generator.sample(3, seed=0, num_inference_steps=1, cache_interval=9, **given).array
    np.testing.assert_array_equal(alone, one)


def test_what_can_not_be_shared_is_refused() -> None:
    network = unet(None, blocks=2)
    with pytest.raises(InputError, match="expected share_features from 1 to 2, got 3"):
        plan(network, None, share_features=3)
    with pytest.raises(InputError, match="expected share_features from 1 to 2, got -1"):
        plan(network, None, share_features=-1)
    with pytest.raises(InputError, match="needs a denoiser with deep features"):
        plan(BlackBox(network), None, share_features=1)
    other = tiny_run("vae").build_family(DataInfo(name="x", channels=1, height=8, width=8, count=1))
    with pytest.raises(InputError, match="'vae' has no features to share"):
        other.sharing_plan(other.build_networks(), 1)
