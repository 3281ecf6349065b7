"""Two distances between distributions as a GAN sees them: Jensen-Shannon by a discriminator, and Wasserstein.

Goodfellow et al. (2014), theorem 1: with the best D, ``E log D(x) + E log(1 - D(G(z))) = 2 JS - 2 log 2``. So any
D gives a lower bound of JS. Arjovsky & Bottou (2017), theorem 2.1, and Arjovsky, Chintala & Bottou (2017), example
1: for supports that don't meet JS is log 2 however far apart they are, and its gradient is 0, while the
Wasserstein distance still tells how far.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import check_pair, distance_blocks

LARGEST_ASSIGNMENT = 4096
"""Points a side that an exact assignment takes: its time grows with their cube."""


def jensen_shannon_of_logits(on_real: NDArray[np.floating], on_fake: NDArray[np.floating]) -> float:
    """The estimate in nats, 0 .. log 2, from a discriminator's logits on real and on fake samples it was not
    trained on: ``log 2 + (E log D(x) + E log(1 - D(G(z)))) / 2``."""
    real, fake = np.asarray(on_real, np.float64), np.asarray(on_fake, np.float64)
    if not real.size or not fake.size or not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise InputError("expected finite logits of real and of fake samples, got none, NaN or infinity")
    # -log D = log(1 + exp(-logit))
    crossing = np.logaddexp(0.0, -real).mean() + np.logaddexp(0.0, fake).mean()
    return float(np.clip(math.log(2.0) - crossing / 2, 0.0, math.log(2.0)))


def jensen_shannon_estimate(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, steps: int = 500, hidden: int = 64, seed: int = 0
) -> float:
    """JS in nats between samples `real` [n, F] and `fake` [m, F]: a small D is trained on one half of each and
    asked about the other, so that what it learns by heart does not count. Leaves the global random state as it
    was."""
    a, b = check_pair(real, fake, at_least=4)
    scale = np.concatenate((a, b)).std(axis=0) + 1e-12
    middle = np.concatenate((a, b)).mean(axis=0)
    parts = [torch.from_numpy(((x - middle) / scale).astype(np.float32)) for x in (a, b)]
    training, asked = [x[::2] for x in parts], [x[1::2] for x in parts]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(a.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(steps):
            loss = _game(network(training[0]), network(training[1]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.inference_mode():
        on_real, on_fake = (network(x).numpy()[:, 0] for x in asked)
    return jensen_shannon_of_logits(on_real, on_fake)


def _game(on_real: Tensor, on_fake: Tensor) -> Tensor:
    return -functional.logsigmoid(on_real).mean() - functional.logsigmoid(-on_fake).mean()


def wasserstein_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The exact W_1 (Euclidean) between equally many samples `a` and `b` [n, F], by their best assignment.

    Raises :class:`InputError` for sets of different size, or of more than 4096 samples.
    """
    first, second = check_pair(a, b, at_least=1)
    if len(first) != len(second) or len(first) > LARGEST_ASSIGNMENT:
        raise InputError(
            f"expected equally many samples, at most {LARGEST_ASSIGNMENT}, got {len(first)} and {len(second)}"
        )
    cost = np.sqrt(np.concatenate([block for _, block in distance_blocks(first, second)]))
    return float(cost[linear_sum_assignment(cost)].mean())
