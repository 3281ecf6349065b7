"""What the losses and constraints of GANs promise, each against a closed form or a case where it is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.data.load import load_data
from gensdk_training.family import Batch
from gensdk_training.losses.adversarial import critic_loss, generator_loss
from gensdk_training.losses.f_divergences import DIVERGENCES
from gensdk_training.losses.gradient_penalty import gradient_penalty
from gensdk_training.networks.gan_networks import MlpDiscriminator, packed
from gensdk_training.registry import AnyFamily, get_family
from gensdk_training.run import load_run, train
from support.tiny import tiny_points, tiny_run

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

CLOSED_FORMS = {
    "kl": (P * (P / Q).log()).sum(),
    "reverse_kl": (Q * (Q / P).log()).sum(),
    "pearson": ((P - Q).square() / Q).sum(),
    "jensen_shannon": (P * (2 * P / (P + Q)).log()).sum() + (Q * (2 * Q / (P + Q)).log()).sum(),
    "squared_hellinger": (P.sqrt() - Q.sqrt()).square().sum(),
    "total_variation": (P - Q).abs().sum() / 2,
}
every_divergence = pytest.mark.parametrize("name", DIVERGENCES)


def built(name: str, data: str = "8gaussians", **settings: Any) -> tuple[AnyFamily, Any]:
    family_class = get_family(name)
    info = load_data(data).info
    torch.manual_seed(0)
    family = family_class(family_class.Config.from_dict(settings, what="config"), info)
    return family, family.build_networks()


@every_divergence
def test_a_divergence_is_the_mean_of_its_f(name: str) -> None:
    torch.testing.assert_close((Q * DIVERGENCES[name].f(P / Q)).sum(), CLOSED_FORMS[name])


@every_divergence
def test_the_optimal_t_reaches_the_divergence_and_no_other_exceeds_it(name: str) -> None:
    found, ratio = DIVERGENCES[name], P / Q
    best = found.slope(ratio)
    assert ((best >= found.domain[0]) & (best <= found.domain[1])).all()
    reached = (P * best).sum() - (Q * found.conjugate(best)).sum()
    torch.testing.assert_close(reached, CLOSED_FORMS[name])
    for seed in range(50):
        raw = 2 * torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        other = found.activation(raw)
        assert (P * other).sum() - (Q * found.conjugate(other)).sum() <= CLOSED_FORMS[name] + 1e-9


@every_divergence
def test_the_stable_form_is_the_conjugate_of_the_activation(name: str) -> None:
    found, raw = DIVERGENCES[name], torch.linspace(-4, 4, 41, dtype=torch.float64)
    made = found.activation(raw)
    assert ((made >= found.domain[0]) & (made <= found.domain[1])).all()
    torch.testing.assert_close(found.conjugate_of_activation(raw), found.conjugate(made))
    assert (made.diff() > 0).all(), "a larger value always means more real"


@every_divergence
def test_a_network_learns_the_divergence_of_two_gaussians(name: str) -> None:
    """A raw value for each place of a grid, which holds all there is: ascent reaches the closed form."""
    places = torch.linspace(-5, 6, 200, dtype=torch.float64)
    densities = [torch.exp(-((places - mean) ** 2) / 2) for mean in (0.0, 1.0)]
    p, q = (density / density.sum() for density in densities)
    found = DIVERGENCES[name]
    raw = nn.Parameter(torch.zeros_like(places))
    optimizer = torch.optim.Adam([raw], lr=0.1)
    for _ in range(600):
        bound = (p * found.activation(raw)).sum() - (q * found.conjugate_of_activation(raw)).sum()
        optimizer.zero_grad()
        torch.autograd.backward(-bound)
        optimizer.step()
    expected = (q * found.f(p / q)).sum()
    assert 0.97 * expected < bound.detach() <= expected + 1e-9


def test_the_kl_of_two_gaussians_is_half_their_squared_distance() -> None:
    places = torch.linspace(-12, 13, 20001, dtype=torch.float64)
    p, q = (torch.exp(-((places - mean) ** 2) / 2) for mean in (0.0, 1.0))
    p, q = p / p.sum(), q / q.sum()
    torch.testing.assert_close((q * DIVERGENCES["kl"].f(p / q)).sum(), torch.tensor(0.5, dtype=torch.float64))


def test_the_jensen_shannon_bound_is_the_gan_up_to_a_constant() -> None:
    on_real, on_fake = torch.randn(7), torch.randn(5)
    game = critic_loss("non_saturating", on_real, on_fake)
    torch.testing.assert_close(2 * math.log(2) - DIVERGENCES["jensen_shannon"].bound(on_real, on_fake), game)


def test_the_optimal_discriminator_of_equal_distributions_loses_log_four() -> None:
    zeros = torch.zeros(9)
    torch.testing.assert_close(critic_loss("non_saturating", zeros, zeros), torch.tensor(math.log(4)))
    torch.testing.assert_close(critic_loss("lsgan", zeros + 0.5, zeros + 0.5), torch.tensor(0.5))
    torch.testing.assert_close(critic_loss("hinge", zeros, zeros), torch.tensor(2.0))
    torch.testing.assert_close(critic_loss("wasserstein", zeros + 3, zeros + 3), torch.tensor(0.0))


@pytest.mark.parametrize("logit", [-20.0, -5.0])
def test_the_saturating_gradient_vanishes_where_d_wins(logit: float) -> None:
    def gradient(objective: Any) -> float:
        on_fake = torch.full((3,), logit, requires_grad=True)
        (found,) = torch.autograd.grad(generator_loss(objective, on_fake), on_fake)
        assert (found < 0).all(), "a larger logit is better for G"
        return float(found.abs().sum())

    assert gradient("saturating") < 1.1 * math.exp(logit)
    assert gradient("non_saturating") == pytest.approx(1.0, rel=0.01)


def test_hinge_stops_where_a_sample_is_told_by_a_margin() -> None:
    on_real = torch.tensor([1.5, 0.5], requires_grad=True)
    on_fake = torch.tensor([-3.0, 0.0], requires_grad=True)
    real, fake = torch.autograd.grad(critic_loss("hinge", on_real, on_fake), (on_real, on_fake))
    assert real.tolist() == [0.0, -0.5]
    assert fake.tolist() == [0.0, 0.5]


def test_packing_one_is_the_plain_loss() -> None:
    family, networks = built("gan", hidden=[16], latent=4, packing=1)
    points = torch.randn(12, 2)
    torch.manual_seed(1)
    total = family.loss("discriminator", networks, Batch(points)).total
    torch.manual_seed(1)
    logits = [networks["discriminator"](each) for each in (points, networks["generator"](torch.randn(12, 4)))]
    plain = -torch.sigmoid(logits[0]).log().mean() - (1 - torch.sigmoid(logits[1])).log().mean()
    torch.testing.assert_close(total, plain)


@pytest.mark.parametrize("shape", [(6, 2), (6, 3, 4, 4)])
def test_packed_samples_lie_side_by_side_as_channels(shape: tuple[int, ...]) -> None:
    samples = torch.randn(*shape)
    together = packed(samples, 3)
    assert together.shape == (2, 3 * shape[1], *shape[2:])
    assert torch.equal(together[1], torch.cat(tuple(samples[3:6])))
    assert packed(samples, 1) is samples
    with pytest.raises(InputError, match="groups of 4"):
        packed(samples, 4)


def test_a_packed_discriminator_sees_whether_samples_vary() -> None:
    """One sample again and again: as single samples they are as real as those, as pairs they are told."""
    torch.manual_seed(0)
    data = load_data("8gaussians").info
    real = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    for packing, told in ((1, False), (2, True)):
        judge = MlpDiscriminator(data, hidden=(32,), packing=packing)
        optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)
        for _ in range(150):
            varied = real[torch.randint(2, (64,))]
            # Every pair is one point twice, and each of the two points as frequent as in the data.
            made = real[torch.randint(2, (32,))].repeat_interleave(2, dim=0)
            loss = critic_loss("non_saturating", judge(varied), judge(made))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        assert (float(loss.detach()) < math.log(4) - 0.2) is told


def test_packing_needs_a_batch_that_can_be_cut() -> None:
    with pytest.raises(InputError, match="multiple of packing 3, got 64"):
        built("gan", packing=3)


def test_clipping_keeps_every_weight_of_the_critic_inside(tmp_path: Any) -> None:
    for make, steps in ((tiny_run, 1), (tiny_points, 3)):
        config = make("wgan", steps=steps, config={"clip": 0.03})
        train(config, tmp_path / str(steps), progress=False, tensorboard=False)
        networks = load_run(tmp_path / str(steps), ema=False).networks
        largest = {
            name: max(float(p.detach().abs().max()) for p in net.parameters()) for name, net in networks.items()
        }
        assert largest["discriminator"] <= 0.03
        assert largest["generator"] > 0.03


def test_the_penalty_of_a_linear_critic_is_that_of_its_norm() -> None:
    real, fake = torch.randn(8, 1, 3, 3), torch.randn(8, 1, 3, 3)
    weight = torch.randn(9)

    def critic(samples: Tensor, scale: float) -> Tensor:
        return samples.flatten(1) @ (scale * weight / weight.norm())

    for scale in (0.0, 0.5, 1.0, 3.0):
        found = gradient_penalty(lambda samples, scale=scale: critic(samples, scale), real, fake)
        torch.testing.assert_close(found.detach(), torch.tensor((scale - 1) ** 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("data", "weight"), [("digits", 10.0), ("8gaussians", 0.1)])
def test_the_penalty_has_the_weight_of_its_data(data: str, weight: float) -> None:
    settings = {"architecture": "mlp", "hidden": [16], "latent": 4}
    info = load_data(data).info
    samples = torch.randn(8, *info.output.shape)
    totals = []
    for penalty in (None, 0.0, weight):
        family, networks = built("wgan_gp", data, **settings, penalty=penalty)
        torch.manual_seed(1)
        totals.append(float(family.loss("discriminator", networks, Batch(samples)).total.detach()))
    assert totals[0] == totals[2]
    assert totals[0] > totals[1]


@pytest.mark.parametrize(("data", "architecture"), [("8gaussians", "mlp"), ("digits", "conv")])
def test_every_layer_of_sngan_comes_to_norm_one(data: str, architecture: str) -> None:
    small = {"hidden": [16, 16]} if architecture == "mlp" else {"discriminator_channels": 8}
    family, networks = built("sngan", data, architecture=architecture, **small)
    discriminator = networks["discriminator"].train()
    samples = torch.randn(4, *family.data.output.shape)
    with torch.no_grad():
        for _ in range(30):  # each pass goes on where the last one ended
            discriminator(samples)
    layers = [part for part in discriminator.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert layers
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("data", ["8gaussians", "digits"])
def test_a_label_changes_what_both_networks_of_a_cgan_do(data: str) -> None:
    family, networks = built("cgan", data, hidden=[16], generator_channels=8, discriminator_channels=8)
    z, samples = torch.randn(4, family.config.latent), torch.randn(4, *family.data.output.shape)
    for network in networks.values():
        network.eval()
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    assert not torch.equal(networks["generator"](z, zeros), networks["generator"](z, ones))
    assert not torch.equal(networks["discriminator"](samples, zeros), networks["discriminator"](samples, ones))


def test_cgan_needs_labels_and_convolutions_need_images() -> None:
    unlabelled = load_data("8gaussians", labels="none").info
    with pytest.raises(InputError, match="cgan needs labels"):
        get_family("cgan")(get_family("cgan").Config(), unlabelled)
    with pytest.raises(InputError, match="set architecture=mlp"):
        built("wgan", architecture="conv")
    with pytest.raises(InputError, match="vae makes images"):
        built("vae")
