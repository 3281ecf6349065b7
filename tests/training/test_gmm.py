"""Laws of the Gaussian mixture: EM's likelihood, its densities, and that its graph draws from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.data.load import load_data
from gensdk_training.families.gmm import Gmm, GmmConfig, Mixture
from gensdk_training.family import Batch, DataInfo
from gensdk_training.optim import make_optimizer
from gensdk_training.torch_backend import torch_sessions

COVARIANCES = ("full", "low_rank", "diagonal")
every_covariance = pytest.mark.parametrize("covariance", COVARIANCES)


def _digits(count: int) -> Tensor:
    data = load_data("digits")
    assert isinstance(data, ArrayDataset)
    return torch.from_numpy(data.images[:count]).permute(0, 3, 1, 2).float() / 127.5 - 1


def _family(covariance: str, size: tuple[int, int] = (8, 8), **config: Any) -> tuple[Gmm, dict[str, Any]]:
    data = DataInfo(name="x", channels=1, height=size[0], width=size[1], count=1)
    settings = {"components": 4, "rank": 2, "covariance": covariance, **config}
    family = Gmm(GmmConfig.from_dict(settings, what="config"), data)
    torch.manual_seed(0)
    return family, family.build_networks()


def _step(family: Gmm, networks: dict[str, Any], images: Tensor) -> float:
    """One step of the family's own optimizer; the loss before it."""
    (phase,) = family.phases()
    optimizer = make_optimizer(phase, networks)
    loss = family.loss(phase.name, networks, Batch(images)).total
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


@every_covariance
@pytest.mark.parametrize("start", ["random", "clusters"])
def test_the_likelihood_never_falls(covariance: str, start: str) -> None:
    family, networks = _family(covariance)
    images = _digits(200)
    if start == "clusters":
        family.look(networks, lambda count: Batch(images[:count]))
    losses = [_step(family, networks, images) for _ in range(15)]
    assert np.diff(losses).max() <= 1e-8 * abs(losses[0])
    assert start == "clusters" or losses[-1] < losses[0]  # clusters of many dimensions can be a fixed point


@every_covariance
def test_a_step_at_rate_one_is_a_step_of_em(covariance: str) -> None:
    family, networks = _family(covariance)
    mixture, images = networks["mixture"], _digits(100)
    x = images.flatten(1).double()
    with torch.no_grad():
        wanted = mixture.statistics(x, torch.softmax(mixture.log_joint(x), dim=1))
    _step(family, networks, images)
    assert set(wanted) == {"weight", "first", "second"}
    for name, value in wanted.items():
        torch.testing.assert_close(mixture.get_parameter(name).detach(), value, rtol=1e-12, atol=1e-14)


def _reference(mixture: Mixture) -> Any:
    """The same mixture, by torch.distributions."""
    variances, axes = mixture.axes()
    weights = Categorical(probs=mixture.log_weights.exp())
    if mixture.covariance == "diagonal":
        return MixtureSameFamily(weights, Independent(Normal(mixture.means, variances.sqrt()), 1))
    covariances = (axes * variances[:, None, :]) @ axes.transpose(1, 2)
    return MixtureSameFamily(weights, MultivariateNormal(mixture.means, covariances))


@every_covariance
def test_densities_are_those_of_the_mixture(covariance: str) -> None:
    family, networks = _family(covariance, floor=0.05)
    images = _digits(60)
    for _ in range(3):
        _step(family, networks, images)
    expected = -_reference(networks["mixture"]).log_prob(images.flatten(1).double()).detach()
    torch.testing.assert_close(family.negative_log_likelihood(networks, Batch(images)), expected)
    assert torch.isfinite(family.negative_log_likelihood(networks, Batch(torch.full((1, 1, 8, 8), 1e4)))).all()


@every_covariance
def test_the_graph_draws_from_the_mixture(covariance: str) -> None:
    """Mean and covariance of 20,000 samples, in three dimensions and far inside the range of images."""
    family, networks = _family(covariance, size=(1, 3), components=3)
    mixture = networks["mixture"]
    random = np.random.default_rng(0)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[0.2, 0, -0.2], [-0.3, 0.1, 0.2], [0.1, -0.3, 0.3]], dtype=torch.float64)
    turned = torch.from_numpy(0.06 * random.normal(size=(3, 3, 3)))
    second = turned @ turned.transpose(1, 2) + means[:, :, None] * means[:, None, :]
    if covariance == "diagonal":
        second = torch.diagonal(second, dim1=1, dim2=2)
    with torch.no_grad():
        mixture.weight.copy_(shares)
        mixture.first.copy_(shares[:, None] * means)
        mixture.second.copy_(shares.reshape(-1, *[1] * (second.dim() - 1)) * second)
    plan = family.export_plan(networks)
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        points = generator.sample(20_000, seed=0, progress=False).array.reshape(-1, 3).astype(np.float64)
    assert np.abs(points).max() < 1, "nothing was clipped"
    reference = _reference(mixture)
    np.testing.assert_allclose(points.mean(axis=0), reference.mean.detach().numpy(), atol=0.008)
    variances, axes = mixture.axes()
    inner = torch.diag_embed(variances) if covariance == "diagonal" else axes * variances[:, None, :] @ axes.mT
    whole = torch.einsum("m,mij->ij", shares, inner.detach() + means[:, :, None] * means[:, None, :])
    expected = whole - torch.outer(shares @ means, shares @ means)
    np.testing.assert_allclose(np.cov(points.T), expected.numpy(), atol=0.003)


def test_batches_at_a_small_rate_come_near_em() -> None:
    images = _digits(600)
    whole, batched = _family("diagonal"), _family("diagonal", learning_rate=0.1)
    for family, networks in (whole, batched):
        family.look(networks, lambda count: Batch(images[:count]))
    for _ in range(20):
        _step(*whole, images)
    for step in range(120):
        torch.manual_seed(step)
        _step(*batched, images[torch.randperm(600)[:100]])
    exact, near = (
        float(family.negative_log_likelihood(networks, Batch(images)).mean())
        for family, networks in (whole, batched)
    )
    start = _family("diagonal")
    assert abs(near - exact) < 0.1 * abs(
        float(start[0].negative_log_likelihood(start[1], Batch(images)).mean()) - exact
    )


def test_data_that_gives_no_clusters_still_starts() -> None:
    family, networks = _family("full")
    family.look(networks, lambda count: Batch(torch.zeros(5, 1, 8, 8)))
    losses = [_step(family, networks, torch.zeros(5, 1, 8, 8)) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert family.export_plan(networks).modules["mixture"](torch.zeros(2, 64), torch.rand(2, 1)).isfinite().all()


def test_covariances_too_large_are_told_before_they_are_made() -> None:
    data = DataInfo(name="x", channels=3, height=64, width=64, count=1)
    with pytest.raises(InputError, match="set covariance=diagonal"):
        Gmm(GmmConfig(), data)
    Gmm(GmmConfig(covariance="diagonal"), data)
