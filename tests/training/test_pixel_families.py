"""Laws of families that draw pixel after pixel: causal, normalized, and the steps equal naive full passes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.family import Batch, DataInfo
from gensdk_training.networks.grey_levels import draw_level, level_of, value_of
from gensdk_training.pixel_family import PixelFamily, PixelNetwork
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import families
from gensdk_training.torch_backend import torch_sessions

Sizes = tuple[int, int, int]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {"pixelrnn, diagonal": ("pixelrnn", {"lstm": "diagonal"})}
"""Further settings of one family, which are put under the same laws."""
FAMILIES = [
    *(name for name, family in families().items() if issubclass(family, PixelFamily)),
    *VARIANTS,
]
SMALL: dict[str, dict[str, int]] = {
    "pixelcnn": {"layers": 3, "channels": 6},
    "pixelrnn": {"layers": 2, "channels": 5},
    "pixelrnn, diagonal": {"layers": 2, "channels": 5},
}
"""A family without an entry is tested as it comes."""

DEEP = {"pixelcnn": {"layers": 6}}
"""Layers that reach the whole of a small image."""


def _row_lstm_sees(config: Any, up: int, right: int, edge: int) -> bool:
    """The triangle of section 3.1, below it and to the left what layers and rows reach."""
    first, state = config.first_kernel // 2, config.state_kernel // 2
    left = first + config.layers * (config.kernel // 2) + up * state
    if not up:
        return -left <= right
    return -left <= right <= max(first + state * (up - 1), state * up - 1)


def _diagonal_lstm_sees(config: Any, up: int, right: int, edge: int) -> bool:
    """All but the last pixel of the row above, which the first convolution alone sees."""
    return up != 1 or right < edge or right <= config.first_kernel // 2


SEES: dict[str, Callable[[Any, int, int, int], bool]] = {
    "pixelcnn": lambda config, up, right, edge: True,
    "pixelrnn": _row_lstm_sees,
    "pixelrnn, diagonal": _diagonal_lstm_sees,
}
"""Whether a pixel that comes before is seen: `up` rows above and `right` columns to the right of the one that is
drawn; `edge`: those of the last column."""

pytestmark = pytest.mark.parametrize("name", FAMILIES)
"""Each law holds for each of them."""


def _family(name: str, image: Sizes, classes: int | None = None, **config: int) -> PixelFamily[Any]:
    channels, height, width = image
    data = DataInfo(name="x", channels=channels, height=height, width=width, count=100, num_classes=classes)
    base, varied = VARIANTS.get(name, (name, {}))
    settings = {"head_channels": 8, "levels": 5, **SMALL.get(name, {}), **varied, **config}
    if "lstm" in varied:
        settings.pop("kernel", None)  # it has none
    family = families()[base]
    made = family(family.Config.model_validate({**settings, "conditional": classes is not None}), data)
    assert isinstance(made, PixelFamily)
    return made


def _network(family: PixelFamily[Any], seed: int = 0) -> PixelNetwork:
    torch.manual_seed(seed)
    network = _only(family.build_networks())
    assert isinstance(network, PixelNetwork)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # distributions that are far from uniform, but not from the biases alone
        for head in network.heads:
            head.get_parameter("out.bias").zero_()
    return network.eval()


def _only(networks: Mapping[str, nn.Module]) -> nn.Module:
    (network,) = networks.values()
    return network


def _plan(family: PixelFamily[Any], network: PixelNetwork) -> ExportPlan:
    (name,) = family.ema_networks
    return family.export_plan({name: network})


@torch.no_grad()
def _naive(
    network: PixelNetwork, uniform: Tensor, levels: int, label: Tensor | None, given: Tensor | None = None
) -> Tensor:
    """One full pass for each value below the `given` rows."""
    images = torch.zeros_like(uniform)
    rows = 0 if given is None else given.shape[2]
    if given is not None:
        images[:, :, :rows] = given
    batch, channels, height, width = uniform.shape
    for i, j, c in itertools.product(range(rows, height), range(width), range(channels)):
        logits = network(images, label)[:, c, i, j]
        level = draw_level(logits, uniform[:, c, i, j].reshape(batch, 1))
        images[:, c, i, j] = value_of(level, levels)[:, 0]
    return images


def _uniforms(count: int, image: Sizes) -> Tensor:
    """The runtime's own [count, C, H, W], of seed 3."""
    keys = [noise.SampleKey(3, index) for index in range(count)]
    drawn = noise.uniform(keys, noise.LATENT_STREAM, (*image[1:], image[0]))
    return torch.from_numpy(drawn).permute(0, 3, 1, 2)


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
def test_cached_equals_naive_pixel_for_pixel(
    name: str, image: Sizes, config: dict[str, int], classes: int | None
) -> None:
    family = _family(name, image, classes, **config)
    network = _network(family)
    uniform = torch.rand(5, *image)
    label = torch.arange(5) % classes if classes else None
    with torch.no_grad():
        naive = _naive(network, uniform, family.config.levels, label)
        cached = _cached(_plan(family, network), uniform, label)
    assert torch.equal(naive, cached)
    assert naive.std() > 0.1


def test_the_runtime_draws_what_naive_passes_draw(name: str) -> None:
    """Generator.sample() with its own noise, batches and labels, against one full pass for each value."""
    family = _family(name, (3, 4, 5), 3)
    network = _network(family)
    plan = _plan(family, network)
    labels = [0, 1, 2, 1, 0]
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        samples = generator.sample(5, seed=3, label=labels, batch_size=2, progress=False)
        bits = generator.log_likelihood(samples.array, label=labels)
    with torch.no_grad():
        naive = _naive(network, _uniforms(5, (3, 4, 5)), family.config.levels, torch.tensor(labels))
        loss = family.loss("likelihood", {family.ema_networks[0]: network}, Batch(naive, torch.tensor(labels)))
    np.testing.assert_array_equal(samples.array, naive.numpy())
    assert bits.mean() == pytest.approx(loss.logs["bits_per_dim"].item(), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_prefix_and_continuation_equal_the_whole(name: str, rows: int) -> None:
    """What follows given rows is what naive passes draw after them; of a sample's own, the sample."""
    family = _family(name, (3, 4, 5), 3)
    network, labels = _network(family), [0, 1, 2, 1, 0]
    plan = _plan(family, network)
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        whole = generator.sample(5, seed=3, label=labels, progress=False)
        other = generator.sample(5, seed=4, label=labels, progress=False).array[:, :, :rows]
        for given in (whole.array[:, :, :rows], other):
            continued = generator.sample(5, seed=3, label=labels, prefix=given, batch_size=2, progress=False)
            naive = _naive(network, _uniforms(5, (3, 4, 5)), 5, torch.tensor(labels), torch.from_numpy(given))
            np.testing.assert_array_equal(continued.array, naive.numpy())
            assert np.array_equal(continued.array, whole.array) == (given is not other)


def test_labels_change_the_samples(name: str) -> None:
    family = _family(name, (1, 6, 6), 3)
    plan = _plan(family, _network(family))
    uniform, label = torch.rand(40, 1, 6, 6), torch.zeros(40, dtype=torch.int64)
    with torch.no_grad():
        first, again, second = (_cached(plan, uniform, each) for each in (label, label, label + 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("image", [(1, 6, 7), (3, 5, 4)])
def test_each_logit_depends_on_what_comes_before_and_on_nothing_else(name: str, image: Sizes) -> None:
    """No leak, and of the past all that the family says: by the gradient of each logit."""
    family = _family(name, image, **DEEP.get(name, {}))
    images = torch.rand(1, *image).requires_grad_()
    logits = _network(family)(images)[0]
    places = list(itertools.product(*map(range, image)))
    assert places
    for channel, i, j in places:
        (gradient,) = torch.autograd.grad(logits[channel, i, j].square().sum(), images, retain_graph=True)
        expected = torch.zeros(image, dtype=torch.bool)
        expected[:channel, i, j] = True  # the lower channels of the pixel itself
        for row, column in itertools.product(range(image[1]), range(image[2])):
            before = (row, column) < (i, j)
            expected[:, row, column] |= before and SEES[name](family.config, i - row, column - j, image[2] - 1 - j)
        assert torch.equal(gradient[0] != 0, expected), (channel, i, j)


def test_a_label_reaches_every_logit(name: str) -> None:
    network = _network(_family(name, (1, 3, 3), 2))
    with torch.no_grad():
        first, second = network(torch.zeros(2, 1, 3, 3), torch.arange(2))
    assert (first - second).abs().amax(dim=-1).min() > 1e-4


@pytest.mark.parametrize(("image", "classes"), [((1, 2, 3), None), ((2, 1, 3), 2), ((1, 3, 2), 2)])
def test_probabilities_of_all_images_sum_to_one(name: str, image: Sizes, classes: int | None) -> None:
    family = _family(name, image, classes, levels=3)
    plan = _plan(family, _network(family))
    every = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=math.prod(image))))
    images = every.reshape(-1, *image)
    label = () if classes is None else (torch.ones(len(images), dtype=torch.int64),)
    with torch.no_grad():
        log_p = plan.modules["likelihood"](images, *label)
    assert log_p.double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_probabilities_of_all_binary_images_of_2x2_sum_to_one(name: str) -> None:
    plan = _plan(family := _family(name, (1, 2, 2), levels=2), _network(family))
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(16, 1, 2, 2)
    with torch.no_grad():
        p = plan.modules["likelihood"](images).double().exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert p.max() > 2 * p.min()


def test_samples_follow_the_likelihood(name: str) -> None:
    """The share of each image among many samples is its probability."""
    family = _family(name, (1, 1, 3), levels=2)
    plan = _plan(family, _network(family))
    torch.manual_seed(1)
    count = 20_000
    with torch.no_grad():
        samples = _cached(plan, torch.rand(count, 1, 1, 3), None)
        images, counts = torch.unique(samples, dim=0, return_counts=True)
        p = plan.modules["likelihood"](images).exp()
    deviation = (counts / count - p) / (p * (1 - p) / count).sqrt()
    assert deviation.abs().max() < 4.5


def test_likelihood_quantizes_to_the_nearest_level(name: str) -> None:
    family = _family(name, (1, 4, 4))
    likelihood = _plan(family, _network(family)).modules["likelihood"]
    images = value_of(torch.randint(5, (6, 1, 4, 4)).float(), 5)
    with torch.no_grad():
        near = images + torch.empty_like(images).uniform_(-0.24, 0.24)  # levels lie 0.5 apart
        assert torch.equal(likelihood(near.clamp(-1.5, 1.5)), likelihood(images))


def test_graphs_follow_the_network_while_it_trains(name: str) -> None:
    family = _family(name, (1, 4, 4))
    network = _network(family)
    plan = _plan(family, network)
    uniform = torch.rand(3, 1, 4, 4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-0.5)
        assert torch.equal(_naive(network, uniform, 5, None), _cached(plan, uniform, None))


def test_learns_digits(name: str) -> None:
    """Below the entropy of independent pixels within a short run, on images it has not seen."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    images = torch.tensor(sklearn_datasets.load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    train, test = images[:1500], images[1500:]
    level = level_of(train, 17).long().flatten(1)
    p = torch.stack([(level == k).float().mean(0) for k in range(17)]).clamp(min=1e-9)
    independent = -(p * p.log2()).sum(0).mean().item()
    family = _family(name, (1, 8, 8), levels=17, layers=2, channels=12, head_channels=32)
    torch.manual_seed(0)
    networks = family.build_networks()
    optimizer = torch.optim.Adam(_only(networks).parameters(), lr=1e-2)
    for _ in range(55):
        loss = family.loss("likelihood", networks, Batch(train[torch.randint(len(train), (32,))]))
        optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        optimizer.step()
    with torch.no_grad():
        bits = family.loss("likelihood", networks, Batch(test)).logs["bits_per_dim"].item()
    assert bits < independent - 0.1


def test_refusals(name: str) -> None:
    family = families()[VARIANTS.get(name, (name, {}))[0]]
    data = DataInfo(name="x", channels=1, height=8, width=8, count=10)
    with pytest.raises(InputError, match="needs labels"):
        family(family.Config.model_validate({"conditional": True}), data)
    with pytest.raises(InputError, match="middle pixel"):
        family.Config.from_dict({"first_kernel": 4}, what="config")
