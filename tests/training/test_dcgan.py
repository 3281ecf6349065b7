"""Laws of DCGAN: its losses, its networks' shape, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.families.dcgan import Dcgan, DcganConfig
from gensdk_training.family import Batch, DataInfo, freeze
from gensdk_training.networks.strided import halvings, widths


def _family(
    image: tuple[int, int, int] = (1, 8, 8), classes: int | None = None, **config: Any
) -> tuple[Dcgan, dict[str, nn.Module]]:
    channels, height, width = image
    data = DataInfo(name="x", channels=channels, height=height, width=width, count=100, num_classes=classes)
    small = {"latent": 6, "generator_channels": 4, "discriminator_channels": 4}
    settings = {**small, "conditional": classes is not None, **config}
    family = Dcgan(DcganConfig.from_dict(settings, what="config"), data)
    torch.manual_seed(0)
    return family, family.build_networks()


class Judge(nn.Module):
    """A discriminator that gives every image that is all ones (real) one logit, others another."""

    def __init__(self, real: float, fake: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([fake, real]))

    def forward(self, images: Tensor) -> Tensor:
        real: Tensor = (images == 1).flatten(1).all(1)
        return self.logits[real.long()] + 0 * images.flatten(1).sum(1)


@pytest.mark.parametrize(("real", "fake"), [(0.0, 0.0), (2.0, -1.0), (60.0, -60.0), (-60.0, 60.0)])
def test_losses_are_those_of_the_game(real: float, fake: float) -> None:
    """From logits, so that they stay finite where a sigmoid would round to 0 or 1."""
    d_real, d_fake = torch.sigmoid(torch.tensor([real, fake], dtype=torch.float64))
    batch = Batch(torch.ones(5, 1, 8, 8))
    for kind, expected in (("non_saturating", -torch.log(d_fake)), ("saturating", torch.log1p(-d_fake))):
        family, networks = _family(loss=kind)
        networks["discriminator"] = Judge(real, fake)
        loss = family.loss("generator", networks, batch).total
        assert loss.isfinite()
        if abs(fake) < 20:
            assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss = family.loss("discriminator", networks, batch).total
    assert loss.isfinite()
    assert loss.item() == pytest.approx(
        (-torch.log(d_real) - torch.log(torch.sigmoid(-torch.tensor(fake)))).item()
    )


def test_the_saturating_loss_loses_its_gradient_where_the_discriminator_wins() -> None:
    gradients = {}
    for kind in ("non_saturating", "saturating"):
        family, networks = _family(loss=kind)
        with torch.no_grad():  # D is sure that everything is fake
            networks["discriminator"].get_parameter("logit.bias").fill_(-15.0)
        freeze(networks, ("generator",))
        torch.manual_seed(3)
        loss = family.loss("generator", networks, Batch(torch.zeros(16, 1, 8, 8)))
        torch.autograd.backward(loss.total)
        parameters = networks["generator"].parameters()
        gradients[kind] = sum(p.grad.abs().sum().item() for p in parameters if p.grad is not None)
    assert 0 <= gradients["saturating"] < 1e-4 * gradients["non_saturating"]


def test_discriminator_steps_come_before_the_generator() -> None:
    family, _ = _family(discriminator_steps=3)
    assert [(phase.name, phase.repeat) for phase in family.phases()] == [("discriminator", 3), ("generator", 1)]


def test_the_papers_64x64_networks() -> None:
    """Channels 1024 .. 128 in the paper's figure are 512 .. 64 with ngf 64, over 4x4, 8x8, 16x16, 32x32."""
    family, networks = _family((3, 64, 64), latent=100, generator_channels=64, discriminator_channels=64)
    convolutions = [m for m in networks["generator"].modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [
        (100, 512),
        (512, 256),
        (256, 128),
        (128, 64),
        (64, 3),
    ]
    down = [m for m in networks["discriminator"].modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in down] == [
        (3, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1),
    ]
    norms = {name: _norms(network) for name, network in networks.items()}
    assert norms == {"generator": [512, 256, 128, 64], "discriminator": [128, 256, 512]}
    assert convolutions[1].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert family.config.batch_size == 64


def _norms(network: nn.Module) -> list[int]:
    return [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_each_norm_follows_its_convolution_so_that_it_folds() -> None:
    networks = _family((1, 28, 28))[1].values()
    leaves = [[m for m in network.modules() if not list(m.children())] for network in networks]
    before = [one for of in leaves for one, other in pairwise(of) if isinstance(other, nn.BatchNorm2d)]
    assert len(before) == sum(len(_norms(network)) for network in networks) > 0
    assert all(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is None for layer in before)


def test_spectral_normalization_bounds_the_discriminator() -> None:
    """Every convolution, as a matrix, has a largest singular value near 1, and there is no batch norm."""
    family, networks = _family(spectral_norm=True)
    discriminator = networks["discriminator"]
    assert not _norms(discriminator)
    for _ in range(30):
        family.loss("discriminator", networks, Batch(torch.zeros(4, 1, 8, 8)))  # each runs the power iteration
    weights = [m.weight for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert len(weights) == 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("image", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (4, 20, 12), (1, 64, 96)])
def test_sizes_that_halve_twice_fit(image: tuple[int, int, int], classes: int | None) -> None:
    family, networks = _family(image, classes)
    labels = (torch.tensor([2, 0, 1]),) if classes else ()
    images = networks["generator"](torch.randn(3, 6), *labels)
    assert images.shape == (3, *image)
    assert networks["discriminator"](images, *labels).shape == (3,)
    assert family.export_plan(networks).modules["generator"](
        torch.randn(1, 6), *(l[:1] for l in labels)
    ).shape == (
        1,
        *image,
    )


@pytest.mark.parametrize("size", [(25, 25), (6, 6), (10, 8), (7, 8), (1, 1), (136, 136)])
def test_sizes_that_do_not_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"got {size[0]}x{size[1]}"):
        _family((1, *size))


@pytest.mark.parametrize(
    ("size", "times"), [((8, 8), 2), ((12, 12), 2), ((16, 16), 2), ((28, 28), 2), ((32, 32), 3), ((128, 128), 5)]
)
def test_halvings(size: tuple[int, int], times: int) -> None:
    assert halvings(*size, family="test") == times
    assert widths(10, times)[:4] == [10, 20, 40, 80][:times]
    assert max(widths(10, 7)) == 80


def test_labels_reach_both_networks() -> None:
    _, networks = _family(classes=3)
    for network in networks.values():
        network.eval()
        for embedding in (m for m in network.modules() if isinstance(m, nn.Embedding)):
            nn.init.normal_(embedding.weight)
    labels = torch.tensor([0, 2])
    first, second = networks["generator"](torch.zeros(2, 6), labels)
    assert not torch.equal(first, second)
    logits = networks["discriminator"](torch.zeros(2, 1, 8, 8), labels)
    assert logits[0] != logits[1]


def test_the_generator_learns_from_the_discriminator() -> None:
    """A few rounds on images that are all alike bring the generator's mean near theirs."""
    family, networks = _family(spectral_norm=True, generator_learning_rate=3e-3, discriminator_learning_rate=3e-3)
    target = torch.linspace(-0.8, 0.8, 8).expand(32, 1, 8, 8)
    optimizers = {
        phase.name: torch.optim.Adam(networks[phase.name].parameters(), phase.learning_rate, phase.betas)
        for phase in family.phases()
    }
    before = _distance(networks, target)
    for _ in range(150):
        for phase in family.phases():
            freeze(networks, phase.trains)
            loss = family.loss(phase.name, networks, Batch(target))
            optimizers[phase.name].zero_grad()
            torch.autograd.backward(loss.total)
            optimizers[phase.name].step()
    assert _distance(networks, target) < 0.6 * before


def _distance(networks: Mapping[str, nn.Module], target: Tensor) -> float:
    with torch.no_grad():
        images = networks["generator"](torch.randn(32, 6))
    distance: float = (images.mean(0) - target[0]).abs().mean().item()
    return distance
