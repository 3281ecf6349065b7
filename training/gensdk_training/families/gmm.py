"""GMM: a mixture of Gaussians over whole images, fitted by expectation maximization.

Papers: Dempster, Laird & Rubin 1977, "Maximum Likelihood from Incomplete Data via the EM Algorithm"; Cappé &
Moulines 2009, "On-line EM Algorithm for Latent Data Models" (arXiv 0712.4273), for batches; Tipping & Bishop
1999, "Mixtures of Probabilistic Principal Component Analysers", for the low rank; Richardson & Weiss 2018, "On
GANs and GMMs" (arXiv 1805.12462), for such mixtures as generative models of images.

Idea: ``p(x) = sum_m p(m) N(x; mu_m, Sigma_m)``. What is learnt are not these parameters but the sufficient
statistics ``s = E[r_m], E[r_m x], E[r_m x x^T]``, of which they are a function (the M step), r_m being p(m | x)
(the E step). So a step of EM is a step of gradient descent, ``s <- s - rate (s - s(batch))``, on ``||s -
s(batch)||^2 / 2``: with `learning_rate` 1 and a batch of all the data it is EM itself, whose likelihood never
falls, and with smaller ones it is that of Cappé & Moulines (eq. 10). All in float64, sums of densities as
log-sum-exp. No variance falls below `floor`: eigenvalues are clipped, which is the best there is under that
bound.

Networks: `mixture`. It starts from k-means.
Exports: ``mixture``: z of N(0, 1) and a uniform u to an image: u chooses the component, z the point in it,
``mu_m + Sigma_m^(1/2) z``. Values are clipped to [-1, 1], where images end and a Gaussian does not.

It does not: give its likelihood at run time, choose the number of components, take labels, or give sharp images of
large sizes: a full covariance has H W C squared values for each component.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.family import Batch, DataInfo, Family, FamilyConfig, Loss, Phase, network_of
from gensdk_training.graphs.latent_sampler import latent_graph
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

MAX_STATISTICS = 2**27
"""Values of all covariances together: one GiB."""
LOOKED_AT = 5000
"""Images that k-means starts from."""
EMPTY = 1e-12
"""The least weight of a component; one that no image belongs to stays a component."""

Covariance = Literal["full", "low_rank", "diagonal"]


class GmmConfig(FamilyConfig):
    """Settings of :class:`Gmm`.

    components: Gaussians in the mixture.
    covariance: Full matrices, variances alone, or rank directions with one variance in all others.
    rank: Directions of a low-rank covariance.
    floor: The least variance, for values in [-1, 1].
    learning_rate: How far a batch moves the statistics; 1 forgets all but the last batch: right for a batch_size
        of all the data, otherwise take 0.1 or so.
    """

    components: Annotated[int, Field(ge=1, le=4096)] = 30
    covariance: Covariance = "full"
    rank: Annotated[int, Field(ge=1, le=4096)] = 10
    floor: Annotated[float, Field(gt=0, le=1)] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 2048
    steps: Annotated[int, Field(ge=1)] = 100
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Mixture(nn.Module):
    """The statistics of M components in D dimensions: `weight` [M], `first` [M, D], and `second` [M, D, D] or,
    of a diagonal mixture, [M, D]; float64."""

    def __init__(self, config: GmmConfig, size: int) -> None:
        super().__init__()
        self.covariance = config.covariance
        self.rank = min(config.rank, size - 1)
        self.floor = config.floor
        count = config.components
        means = 0.3 * torch.randn(count, size, dtype=torch.float64).clamp(-2, 2)
        spread = 0.25 * torch.ones(count, size, dtype=torch.float64)
        weight = torch.full((count,), 1 / count, dtype=torch.float64)
        second = spread + means.square()
        if self.covariance != "diagonal":
            second = torch.diag_embed(spread) + means[:, :, None] * means[:, None, :]
        self.weight = nn.Parameter(weight)
        self.first = nn.Parameter(means / count)
        self.second = nn.Parameter(second / count)

    def statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """What the parameters would be for `x` [N, D], of which `shares` [N, M] belong to the components."""
        shares = shares / len(x)
        if self.covariance == "diagonal":
            second = shares.T @ x.square()
        else:  # one component at a time: [N, M, D] would be large
            second = torch.stack([(x * share[:, None]).T @ x for share in shares.T])
        return {"weight": shares.sum(dim=0), "first": shares.T @ x, "second": second}

    @property
    def log_weights(self) -> Tensor:
        """log p(m), [M]."""
        weight = self.weight.clamp_min(EMPTY)
        return torch.log(weight / weight.sum())

    @property
    def means(self) -> Tensor:
        """mu_m, [M, D]."""
        return self.first / self.weight.clamp_min(EMPTY)[:, None]

    def axes(self) -> tuple[Tensor, Tensor]:
        """The M step: the variances of each component [M, D], ascending along its axes [M, D, D] (columns).

        Diagonal components have the axes of the space, in its order; an empty tensor stands for them.
        """
        share, means = self.weight.clamp_min(EMPTY), self.means
        if self.covariance == "diagonal":
            variances = self.second / share[:, None] - means.square()
            return variances.clamp_min(self.floor), torch.empty(0, dtype=variances.dtype)
        covariances = self.second / share[:, None, None] - means[:, :, None] * means[:, None, :]
        variances, axes = torch.linalg.eigh(covariances)
        if self.covariance == "low_rank":  # Tipping & Bishop, eq. 8: the mean of what is left
            rest = variances[:, : -self.rank]
            variances = torch.cat((rest.mean(dim=1, keepdim=True).expand_as(rest), variances[:, -self.rank :]), 1)
        return variances.clamp_min(self.floor), axes

    def log_joint(self, x: Tensor) -> Tensor:
        """``log p(m) + log N(x; mu_m, Sigma_m)``, [N, M], of `x` [N, D]."""
        variances, axes = self.axes()
        constant = torch.log(2 * math.pi * variances).sum(dim=1)
        distances = []
        for index, mean in enumerate(self.means):
            along = x - mean if self.covariance == "diagonal" else (x - mean) @ axes[index]
            distances.append((along.square() / variances[index]).sum(dim=1))
        return self.log_weights - (constant + torch.stack(distances, dim=1)) / 2


class Components(nn.Module):
    """One point of each sample's component: ``mu_m + A_m z``, and with a low rank ``+ sigma_m z'``."""

    means: Tensor
    factors: Tensor
    sigmas: Tensor

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.covariance, self.rank = mixture.covariance, mixture.rank
        with torch.no_grad():
            variances, axes = mixture.axes()
            sigmas = torch.zeros(0, dtype=variances.dtype)
            if self.covariance == "low_rank":
                sigmas = variances[:, 0].sqrt()
                variances, axes = variances[:, -self.rank :] - variances[:, :1], axes[:, :, -self.rank :]
            factors = variances.sqrt()
            if (
                self.covariance != "diagonal"
            ):  # [M Q, D]: row q of component m is its axis q, as long as it is wide
                factors = (axes * factors[:, None, :]).transpose(1, 2).flatten(0, 1)
        for name, values in (("means", mixture.means), ("factors", factors), ("sigmas", sigmas)):
            self.register_buffer(name, values.detach().float().contiguous())

    def forward(self, z: Tensor, chosen: Tensor) -> Tensor:
        """`z` [B, Q] and `chosen` [B, M], one 1 in each row, to points [B, D]."""
        point = chosen @ self.means
        if self.covariance == "diagonal":
            return point + (chosen @ self.factors) * z
        inner = z[:, : self.rank] if self.covariance == "low_rank" else z
        # All components at once, those not chosen times zero: one product, and no matrix for each sample.
        point = point + (chosen[:, :, None] * inner[:, None, :]).flatten(1) @ self.factors
        if self.covariance == "low_rank":
            point = point + (chosen @ self.sigmas[:, None]) * z[:, self.rank :]
        return point


class MixtureSampler(nn.Module):
    """The exported module: z and a uniform to an image."""

    lower: Tensor
    upper: Tensor

    def __init__(self, mixture: Mixture, data: DataInfo) -> None:
        super().__init__()
        self.shape = data.image.shape
        self.components = Components(mixture)
        edges = torch.cumsum(mixture.log_weights.detach().exp(), dim=0).float()
        self.register_buffer("lower", torch.cat((edges.new_zeros(1), edges[:-1])))
        self.register_buffer("upper", torch.cat((edges[:-1], edges.new_full((1,), 2.0))))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """`z` [B, Q] standard normal and `u` [B, 1] uniform on [0, 1) to images [B, C, H, W] in [-1, 1]."""
        chosen = ((u >= self.lower) & (u < self.upper)).to(z.dtype)
        points: Tensor = self.components(z, chosen)
        return points.clamp(-1.0, 1.0).reshape(-1, *self.shape)


@register("gmm")
class Gmm(Family[GmmConfig]):
    """Gaussian mixture."""

    title = "Gaussian mixture by EM: full, low-rank or diagonal covariances"
    paper = "Dempster, Laird & Rubin (1977), Maximum Likelihood from Incomplete Data via the EM Algorithm"
    Config = GmmConfig
    ema_networks = ("mixture",)  # the mixture; by default its average is the last one

    def check(self) -> None:
        """Raises :class:`InputError` where the covariances would be too large."""
        config, size = self.config, self._size
        values = config.components * size * (1 if config.covariance == "diagonal" else size)
        if values > MAX_STATISTICS:
            raise InputError(
                f"{config.components} {config.covariance} covariances of images of {size} values have {values:,} "
                f"values, expected at most {MAX_STATISTICS:,}; set covariance=diagonal or resize the data"
            )
        if config.covariance == "low_rank" and size < 2:
            raise InputError("expected images of at least 2 values for covariance=low_rank, got 1; set full")

    @property
    def _size(self) -> int:
        return self.data.channels * self.data.height * self.data.width

    def build_networks(self) -> dict[str, nn.Module]:
        """`mixture`."""
        return {"mixture": Mixture(self.config, self._size)}

    @torch.no_grad()
    def look(self, networks: Mapping[str, nn.Module], spread: Callable[[int], Batch]) -> None:
        """Starts from the clusters that k-means finds."""
        from sklearn.cluster import KMeans

        mixture = _mixture(networks)
        x = spread(max(LOOKED_AT, self.config.components)).images.flatten(1).double()
        count = min(self.config.components, len(torch.unique(x, dim=0)))
        seed = int(torch.randint(2**31, ()))
        clusters = KMeans(count, n_init=1, max_iter=20, random_state=seed).fit_predict(x.cpu().numpy())
        shares = functional.one_hot(torch.as_tensor(clusters, dtype=torch.int64), self.config.components)
        for name, value in mixture.statistics(x, shares.to(x)).items():
            mixture.get_parameter(name).copy_(value)

    def phases(self) -> tuple[Phase, ...]:
        """One phase, of plain gradient descent."""
        return (Phase("em", ("mixture",), self.config.learning_rate, optimizer="sgd"),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """``-E log p(x)`` in nats an image; its gradient is the way to the statistics of the batch."""
        mixture = _mixture(networks)
        with torch.no_grad():
            x = batch.images.flatten(1).double()
            joint = mixture.log_joint(x)
            nats = -torch.logsumexp(joint, dim=1).mean()
            wanted = mixture.statistics(x, torch.softmax(joint, dim=1))
        distances = [(mixture.get_parameter(name) - value).square().sum() / 2 for name, value in wanted.items()]
        distance = torch.stack(distances).sum()
        return Loss(nats + distance - distance.detach(), {"distance": distance.detach()})

    @torch.no_grad()
    def negative_log_likelihood(self, networks: Mapping[str, nn.Module], batch: Batch) -> Tensor:
        """``-log p(x)`` of each image in nats, float64 [B], the density being one of values in [-1, 1]."""
        return -torch.logsumexp(_mixture(networks).log_joint(batch.images.flatten(1).double()), dim=1)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``mixture``; the choice of the component stays float32."""
        mixture = _mixture(networks)
        size = self._size + (mixture.rank if mixture.covariance == "low_rank" else 0)
        graph = latent_graph("mixture", self.data.image, latent=size, conditional=False)
        u = TensorSpec(name="u", dtype="float32", shape=("batch", 1), role="noise", distribution="uniform")
        model = ModelSpec(
            name=f"{self.data.name}-{self.name}",
            family=self.name,
            program=FeedforwardSpec(graph="mixture"),
            graphs=(GraphSpec(name="mixture", inputs=(*graph.inputs, u), outputs=graph.outputs),),
            output=self.data.image,
        )
        sampler = MixtureSampler(mixture, self.data).eval()
        return ExportPlan(model=model, modules={"mixture": sampler}, half={"mixture": ("components",)})


def _mixture(networks: Mapping[str, nn.Module]) -> Mixture:
    return network_of(networks, "mixture", Mixture)
