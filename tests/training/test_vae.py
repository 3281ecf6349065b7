"""Laws of the variational autoencoder: its bound, its likelihoods, its images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.data.load import load_data
from gensdk_training.families.vae import MeanImage, Vae, VaeConfig, mean_image
from gensdk_training.family import Batch, DataInfo


def _family(
    image: tuple[int, int, int] = (1, 8, 8), classes: int | None = None, **config: Any
) -> tuple[Vae, Mapping[str, nn.Module]]:
    channels, height, width = image
    data = DataInfo(name="x", channels=channels, height=height, width=width, count=100, num_classes=classes)
    settings = {"latent": 3, "hidden": [24], "channels": 8, "conditional": classes is not None, **config}
    family = Vae(VaeConfig.from_dict(settings, what="config"), data)
    torch.manual_seed(0)
    return family, family.build_networks()


class LinearGaussian(nn.Module):
    """Encoder and decoder of a model whose -log p(x) is known: x = w z + sigma e, one pixel, one z."""

    def __init__(self, w: float, sigma: float, *, decode: bool) -> None:
        super().__init__()
        self.w, self.sigma, self.decode = w, sigma, decode

    def forward(self, values: Tensor) -> Any:
        if self.decode:  # the family applies tanh to what comes out
            return torch.atanh((self.w * values).clamp(-0.999999, 0.999999)).reshape(-1, 1, 1, 1)
        x = values.flatten(1)
        variance = self.sigma**2 / (self.w**2 + self.sigma**2)
        mean = self.w * x / (self.w**2 + self.sigma**2)
        return mean, torch.full_like(mean, math.log(variance))


def test_the_bound_is_tight_where_the_posterior_is_exact() -> None:
    """With the true posterior IWAE equals -log p(x) for any draw, and the mean of -ELBO comes near it."""
    w, sigma = 0.1, 0.2
    family, _ = _family((1, 1, 1), latent=1, likelihood="gaussian", sigma=sigma)
    networks = {
        "encoder": LinearGaussian(w, sigma, decode=False),
        "decoder": LinearGaussian(w, sigma, decode=True),
    }
    batch = Batch(torch.linspace(-0.5, 0.5, 5).repeat(1000).reshape(-1, 1, 1, 1))
    variance = w**2 + sigma**2
    exact = batch.images.flatten().square() / (2 * variance) + math.log(2 * math.pi * variance) / 2
    torch.manual_seed(0)
    torch.testing.assert_close(family.negative_iwae(networks, batch, samples=2), exact, atol=1e-4, rtol=0)
    elbo = family.negative_elbo(networks, batch)
    torch.testing.assert_close(elbo.mean(), exact.mean(), atol=0.02, rtol=0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_more_codes_give_a_tighter_bound(likelihood: str) -> None:
    family, networks = _family(likelihood=likelihood)
    batch = Batch(torch.rand(64, 1, 8, 8) * 2 - 1)
    torch.manual_seed(0)
    with torch.no_grad():
        elbo = family.negative_elbo(networks, batch).mean()
        bounds = [family.negative_iwae(networks, batch, samples=k).mean() for k in (1, 8, 64)]
    assert bounds[0].item() == pytest.approx(elbo.item(), rel=0.05)
    assert bounds[0] > bounds[1] > bounds[2]


def test_bernoulli_nats_of_hard_targets_are_those_of_coin_flips() -> None:
    family, networks = _family()
    images = (torch.rand(4, 1, 8, 8) < 0.5).float() * 2 - 1
    with torch.no_grad():
        for parameter in networks["decoder"].parameters():
            parameter.zero_()
        for parameter in networks["encoder"].parameters():
            parameter.zero_()  # q = N(0, 1), so KL = 0
        nats = family.negative_elbo(networks, Batch(images))
    torch.testing.assert_close(nats, torch.full((4,), 64 * math.log(2)))


def test_beta_weighs_the_divergence() -> None:
    batch = Batch(torch.rand(8, 1, 8, 8) * 2 - 1)
    losses = {}
    for beta in (0.0, 1.0, 4.0):
        family, networks = _family(beta=beta)
        torch.manual_seed(1)
        losses[beta] = family.loss("elbo", networks, batch)
    kl = losses[1.0].logs["kl"]
    assert kl > 0
    torch.testing.assert_close(losses[4.0].total - losses[0.0].total, 4 * kl)
    torch.testing.assert_close(losses[1.0].total.detach(), losses[1.0].logs["reconstruction"] + kl)


def test_the_image_is_the_mean_of_the_likelihood() -> None:
    raw = torch.linspace(-9, 9, 50)
    torch.testing.assert_close(mean_image(raw, "bernoulli"), 2 * torch.sigmoid(raw) - 1)
    torch.testing.assert_close(mean_image(raw, "gaussian"), torch.tanh(raw))


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 48), (1, 8, 8), (2, 12, 20)])
@pytest.mark.parametrize("classes", [None, 3])
def test_convolutions_fit_every_size_that_halves_twice(image: tuple[int, int, int], classes: int | None) -> None:
    family, networks = _family(image, classes, architecture="conv")
    label = None if classes is None else torch.tensor([0, 2])
    loss = family.loss("elbo", networks, Batch(torch.zeros(2, *image), label))
    assert loss.total.isfinite()
    images = family.export_plan(networks).modules["decoder"](torch.randn(2, 3), *([label] if classes else []))
    assert images.shape == (2, *image)


@pytest.mark.parametrize("size", [(25, 25), (6, 8), (34, 34), (80, 84)])
def test_convolutions_refuse_other_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="halved at least twice"):
        _family((1, *size), architecture="conv")
    _family((1, *size))  # linear layers take any


def test_labels_change_the_image() -> None:
    family, networks = _family(classes=4)
    decoder = family.export_plan(networks).modules["decoder"]
    z = torch.zeros(2, 3)
    first, second = decoder(z, torch.tensor([0, 3]))
    assert not torch.equal(first, second)


def test_learns_digits() -> None:
    """The bound on unseen digits falls well below that of the best independent pixels."""
    train, test = (_digits(split) for split in ("train", "test"))
    family, networks = _family(latent=8, hidden=[128])
    mean = ((train.images + 1) / 2).mean(0, keepdim=True).clamp(1e-3, 1 - 1e-3)
    target = (test.images + 1) / 2
    independent = -(target * mean.log() + (1 - target) * (1 - mean).log()).flatten(1).sum(1).mean().item()
    parameters = [p for network in networks.values() for p in network.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(250):
        index = torch.randint(len(train.images), (64,))
        loss = family.loss("elbo", networks, Batch(train.images[index]))
        optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        optimizer.step()
    with torch.no_grad():
        nats = family.negative_elbo(networks, test).mean().item()
        images = MeanImage(networks["decoder"], "bernoulli")(torch.randn(16, 8))
    assert nats < independent - 2
    assert np.std(images.numpy(), axis=0).mean() > 0.1, "codes make different images"


def _digits(split: Any) -> Batch:
    data = load_data("digits", split=split)
    assert isinstance(data, ArrayDataset)
    return Batch(torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 127.5 - 1)
