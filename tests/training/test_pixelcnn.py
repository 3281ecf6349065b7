"""Laws of the gated PixelCNN: causal, normalized, and the cached graphs equal the naive full passes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.families.pixelcnn import PixelCnn, PixelCnnConfig, PixelCnnNetwork
from gensdk_training.family import Batch, DataInfo
from gensdk_training.networks.grey_levels import draw_level, level_of, value_of
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions

Sizes = tuple[int, int, int]


def _family(image: Sizes, classes: int | None = None, **config: int) -> PixelCnn:
    channels, height, width = image
    data = DataInfo(name="x", channels=channels, height=height, width=width, count=100, num_classes=classes)
    small = {"layers": 3, "channels": 6, "head_channels": 8, "levels": 5, **config}
    return PixelCnn(PixelCnnConfig.model_validate({**small, "conditional": classes is not None}), data)


def _network(family: PixelCnn, seed: int = 0) -> PixelCnnNetwork:
    torch.manual_seed(seed)
    network = family.build_networks()["pixelcnn"]
    assert isinstance(network, PixelCnnNetwork)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # distributions that are far from uniform, but not from the biases alone
        for head in network.heads:
            head.get_parameter("out.bias").zero_()
    return network.eval()


def _naive(network: PixelCnnNetwork, uniform: Tensor, levels: int, label: Tensor | None) -> Tensor:
    """One full pass for each value."""
    images = torch.zeros_like(uniform)
    batch, channels, height, width = uniform.shape
    for i, j, c in itertools.product(range(height), range(width), range(channels)):
        logits = network(images, label)[:, c, i, j]
        level = draw_level(logits, uniform[:, c, i, j].reshape(batch, 1))
        images[:, c, i, j] = value_of(level, levels)[:, 0]
    return images


def _cached(plan: ExportPlan, uniform: Tensor, label: Tensor | None) -> Tensor:
    """The loop that AutoregressiveSpec describes, over the plan's modules."""
    batch, channels, height, width = uniform.shape
    row_graph, pixel_graph = plan.model.graph("row"), plan.model.graph("pixel")
    rows = torch.zeros(batch, *_sizes(row_graph.inputs[1].shape[1:]))
    row, finished = torch.zeros(batch, channels, width), []
    labels = () if label is None else (label,)
    for i in range(height):
        context, rows = plan.modules["row"](row, rows, *labels)
        pixel, drawn = torch.zeros(batch, channels), []
        pixels = torch.zeros(batch, *_sizes(pixel_graph.inputs[3].shape[1:]))
        for j in range(width):
            pixel, pixels = plan.modules["pixel"](pixel, context[j], uniform[:, :, i, j], pixels)
            drawn.append(pixel)
        row = torch.stack(drawn, dim=-1)
        finished.append(row)
    return torch.stack(finished, dim=2)


def _sizes(axes: tuple[int | str, ...]) -> list[int]:
    return [axis for axis in axes if isinstance(axis, int)]


@pytest.mark.parametrize("classes", [None, 4])
@pytest.mark.parametrize(
    ("image", "config"),
    [
        ((1, 8, 8), {}),
        ((1, 5, 9), {"first_kernel": 3}),
        ((3, 6, 4), {"first_kernel": 5, "levels": 2}),
        ((3, 4, 4), {"levels": 256}),
        ((2, 7, 3), {"kernel": 5, "layers": 4}),
        ((1, 1, 6), {"kernel": 5}),
        ((4, 6, 1), {"layers": 2}),
    ],
)
def test_cached_equals_naive_pixel_for_pixel(image: Sizes, config: dict[str, int], classes: int | None) -> None:
    family = _family(image, classes, **config)
    network = _network(family)
    uniform = torch.rand(5, *image)
    label = torch.arange(5) % classes if classes else None
    with torch.no_grad():
        naive = _naive(network, uniform, family.config.levels, label)
        cached = _cached(family.export_plan({"pixelcnn": network}), uniform, label)
    assert torch.equal(naive, cached)
    assert naive.std() > 0.1


def test_the_runtime_draws_what_naive_passes_draw() -> None:
    """Generator.sample() with its own noise, batches and labels, against one full pass for each value."""
    family = _family((3, 4, 5), 3)
    network = _network(family)
    plan = family.export_plan({"pixelcnn": network})
    labels = [0, 1, 2, 1, 0]
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        samples = generator.sample(5, seed=3, label=labels, batch_size=2, progress=False)
        bits = generator.log_likelihood(samples.array, label=labels)
    keys = [noise.SampleKey(3, index) for index in range(5)]
    uniform = torch.from_numpy(noise.uniform(keys, noise.LATENT_STREAM, (4, 5, 3))).permute(0, 3, 1, 2)
    with torch.no_grad():
        naive = _naive(network, uniform, family.config.levels, torch.tensor(labels))
        loss = family.loss("likelihood", {"pixelcnn": network}, Batch(naive, torch.tensor(labels)))
    np.testing.assert_array_equal(samples.array, naive.numpy())
    assert bits.mean() == pytest.approx(loss.logs["bits_per_dim"].item(), rel=1e-5)


def test_labels_change_the_samples() -> None:
    family = _family((1, 6, 6), 3)
    plan = family.export_plan({"pixelcnn": _network(family)})
    uniform = torch.rand(1, 1, 6, 6).expand(2, -1, -1, -1)
    with torch.no_grad():
        first, second = _cached(plan, uniform, torch.tensor([0, 2]))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("image", [(1, 6, 7), (3, 5, 4)])
def test_each_logit_depends_on_all_that_comes_before_and_on_nothing_else(image: Sizes) -> None:
    """No blind spot, no leak: the gradient of a logit is non-zero for exactly the values before it."""
    family = _family(image, layers=6)  # six layers of 3x3 reach the whole image
    network = _network(family)
    images = torch.rand(1, *image).requires_grad_()
    logits = network(images)[0].flatten(1, 2)
    channels, height, width = image
    assert logits.shape[:2] == (channels, height * width)
    for position in range(height * width):
        for channel in range(channels):
            (gradient,) = torch.autograd.grad(logits[channel, position].square().sum(), images, retain_graph=True)
            seen = (gradient[0].flatten(1).t() != 0).flatten()  # in the order of drawing
            here = position * channels + channel
            assert not seen[here:].any()
            assert seen[:here].float().mean() > 0.95 if here else True


@pytest.mark.parametrize(("image", "classes"), [((1, 2, 3), None), ((2, 1, 3), 2)])
def test_probabilities_of_all_images_sum_to_one(image: Sizes, classes: int | None) -> None:
    family = _family(image, classes, levels=3)
    plan = family.export_plan({"pixelcnn": _network(family)})
    every = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=math.prod(image))))
    images = every.reshape(-1, *image)
    label = () if classes is None else (torch.ones(len(images), dtype=torch.int64),)
    with torch.no_grad():
        log_p = plan.modules["likelihood"](images, *label)
    assert log_p.double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_samples_follow_the_likelihood() -> None:
    """The share of each image among many samples is its probability."""
    family = _family((1, 1, 3), levels=2)
    plan = family.export_plan({"pixelcnn": _network(family)})
    torch.manual_seed(1)
    count = 20_000
    with torch.no_grad():
        samples = _cached(plan, torch.rand(count, 1, 1, 3), None)
        images, counts = torch.unique(samples, dim=0, return_counts=True)
        p = plan.modules["likelihood"](images).exp()
    deviation = (counts / count - p) / (p * (1 - p) / count).sqrt()
    assert deviation.abs().max() < 4.5


def test_likelihood_quantizes_to_the_nearest_level() -> None:
    family = _family((1, 4, 4))
    likelihood = family.export_plan({"pixelcnn": _network(family)}).modules["likelihood"]
    images = value_of(torch.randint(5, (6, 1, 4, 4)).float(), 5)
    with torch.no_grad():
        near = images + torch.empty_like(images).uniform_(-0.24, 0.24)  # levels lie 0.5 apart
        assert torch.equal(likelihood(near.clamp(-1.5, 1.5)), likelihood(images))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_and_values_are_inverse(levels: int) -> None:
    level = torch.arange(levels, dtype=torch.float32)
    values = value_of(level, levels)
    assert torch.equal(level_of(values, levels), level)
    assert (values[0].item(), values[-1].item()) == pytest.approx((-1.0, 1.0))


def test_inverse_cdf_draws_each_level_with_its_probability_and_never_an_impossible_one() -> None:
    p = torch.tensor([0.0, 0.25, 0.5, 0.0, 0.25, 0.0])
    uniform = (torch.arange(4000, dtype=torch.float32) / 4000).unsqueeze(1)
    drawn = draw_level(p.log().clamp(min=-1e4).expand(4000, -1), uniform)
    counts = np.bincount(drawn[:, 0].numpy().astype(int), minlength=6)
    assert counts.tolist() == pytest.approx((p * 4000).tolist(), abs=1)
    last = draw_level(torch.zeros(1, 17), torch.tensor([[np.nextafter(np.float32(1), np.float32(0))]]))
    assert last.item() == 16


def test_graphs_follow_the_network_while_it_trains() -> None:
    family = _family((1, 4, 4))
    network = _network(family)
    plan = family.export_plan({"pixelcnn": network})
    uniform = torch.rand(3, 1, 4, 4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-0.5)
        assert torch.equal(_naive(network, uniform, 5, None), _cached(plan, uniform, None))


def test_learns_digits() -> None:
    """Below the entropy of independent pixels within a short run, on images it has not seen."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    images = torch.tensor(sklearn_datasets.load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    train, test = images[:1500], images[1500:]
    level = level_of(train, 17).long().flatten(1)
    p = torch.stack([(level == k).float().mean(0) for k in range(17)]).clamp(min=1e-9)
    independent = -(p * p.log2()).sum(0).mean().item()
    family = _family((1, 8, 8), levels=17, layers=2, channels=12, head_channels=32)
    torch.manual_seed(0)
    networks = family.build_networks()
    optimizer = torch.optim.Adam(networks["pixelcnn"].parameters(), lr=1e-2)
    for _ in range(55):
        loss = family.loss("likelihood", networks, Batch(train[torch.randint(len(train), (32,))]))
        optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        optimizer.step()
    with torch.no_grad():
        bits = family.loss("likelihood", networks, Batch(test)).logs["bits_per_dim"].item()
    assert bits < independent - 0.1


def test_refusals() -> None:
    data = DataInfo(name="x", channels=1, height=8, width=8, count=10)
    with pytest.raises(InputError, match="needs labels"):
        PixelCnn(PixelCnnConfig(conditional=True), data)
    with pytest.raises(InputError, match="middle pixel"):
        PixelCnnConfig.from_dict({"first_kernel": 4}, what="config")
