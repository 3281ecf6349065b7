"""The runtime's optimizers step as torch.optim does, and each sample goes its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gensdk_runtime.programs.optimizers import Adam, Lbfgs, Optimizer, Sgd, make_optimizer
from gensdk_runtime.spec.settings import AscentSettings

BATCH, SIZE, STEPS = 3, 5, 25

PAIRS: dict[str, tuple[Callable[[], Optimizer], Callable[[list[Tensor]], Any]]] = {
    "sgd": (lambda: Sgd(0.05), lambda x: torch.optim.SGD(x, lr=0.05)),
    "momentum": (lambda: Sgd(0.02, 0.9), lambda x: torch.optim.SGD(x, lr=0.02, momentum=0.9)),
    "adam": (lambda: Adam(0.1, 0.8, 0.99), lambda x: torch.optim.Adam(x, lr=0.1, betas=(0.8, 0.99))),
    "lbfgs": (lambda: Lbfgs(0.5), lambda x: torch.optim.LBFGS(x, lr=0.5, max_iter=1, history_size=10)),
}
every_pair = pytest.mark.parametrize("name", PAIRS)


def objective(x: Tensor) -> Tensor:
    """A curved valley whose axes differ by a factor of a hundred, and that no sample shares with another."""
    scales = torch.logspace(-1, 1, x.shape[-1])
    return (scales * (x - 1).square()).sum(dim=-1) + 0.1 * (x.sin() * x.roll(1, -1)).sum(dim=-1)


def gradient(x: np.ndarray) -> np.ndarray:
    free = torch.tensor(x, requires_grad=True)
    (found,) = torch.autograd.grad(objective(free).sum(), free)
    return found.numpy()


def path(optimizer: Optimizer, start: np.ndarray, steps: int = STEPS, *, falls: bool = False) -> list[np.ndarray]:
    x, places = start, []
    for step in range(steps):
        x = x + optimizer.step(gradient(x), 1 - step / steps if falls else 1.0)
        places.append(x)
    return places


def starts() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, SIZE)).astype(np.float32) * 2


@pytest.mark.parametrize("falls", [False, True])
@every_pair
def test_each_step_is_that_of_torch(name: str, falls: bool) -> None:
    ours, theirs = PAIRS[name]
    near = 2e-3 if name == "lbfgs" else 2e-4  # its memory is float64 here, float32 there
    found = path(ours(), starts(), falls=falls)
    assert len(found) == STEPS
    for row in range(BATCH):
        x = torch.tensor(starts()[row], requires_grad=True)
        optimizer = theirs([x])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1 - step / len(found) if falls else 1.0
        )

        def closure(x: Tensor = x, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = objective(x)
            torch.autograd.backward(loss)
            return loss

        for place in found:
            optimizer.step(closure)
            schedule.step()
            np.testing.assert_allclose(place[row], x.detach().numpy(), rtol=near, atol=near)


@every_pair
def test_a_batch_goes_as_its_samples_alone(name: str) -> None:
    ours, _ = PAIRS[name]
    together = np.stack(path(ours(), starts()))
    for row in range(BATCH):
        alone = np.stack(path(ours(), starts()[row : row + 1]))
        np.testing.assert_array_equal(together[:, row], alone[:, 0])


def test_lbfgs_pays_on_a_smooth_valley() -> None:
    def left(optimizer: Optimizer) -> float:
        return float(np.abs(gradient(path(optimizer, starts(), 30)[-1])).max())

    assert left(Lbfgs(1.0)) < 0.01 * left(Sgd(0.05))


def test_a_flat_place_is_left_alone() -> None:
    for name in ("sgd", "adam", "lbfgs"):
        optimizer = make_optimizer(AscentSettings(optimizer=name))
        for _ in range(3):
            np.testing.assert_array_equal(optimizer.step(np.zeros((2, 4), np.float32)), 0)
