"""Optimizers of an input, in NumPy: one step at a time, each sample of a batch for itself.

They compute what ``torch.optim`` computes, step by step, so that what is optimized where PyTorch is missing is
what was tried where it is not. Sums run over one sample's own values in float64; so a sample's path does not
depend on the batch it is in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.noise import Float32
from gensdk_runtime.spec.settings import AscentSettings

EPSILON = 1e-8
HISTORY = 10
"""Pairs that L-BFGS remembers of each sample."""
CURVATURE = 1e-10
"""A pair with less curvature than this is forgotten: it would turn the approximation indefinite."""
FLAT = 1e-9
"""L-BFGS stands still where its direction promises less descent than this."""
STATIONARY = 1e-7
"""L-BFGS stands still where no value of the gradient is larger."""


class Optimizer(ABC):
    """Minimizes. Belongs to one batch, and counts its steps."""

    @abstractmethod
    def step(self, gradient: Float32, share: float = 1.0) -> Float32:
        """What to add to the variable, float32 [B, D], for its gradient float32 [B, D].

        `share` of the learning rate, in [0, 1], is what a schedule leaves of it in this step.
        """


class Sgd(Optimizer):
    """Gradient descent: ``v = momentum v + g``, ``x = x - learning_rate v`` (as ``torch.optim.SGD``)."""

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        self._learning_rate = np.float32(learning_rate)
        self._momentum = np.float32(momentum)
        self._velocity: Float32 | None = None

    def step(self, gradient: Float32, share: float = 1.0) -> Float32:
        """See :class:`Optimizer`."""
        if self._velocity is None:
            self._velocity = gradient.copy()
        else:
            self._velocity = np.asarray(self._momentum * self._velocity + gradient, np.float32)
        return np.asarray(-self._learning_rate * np.float32(share) * self._velocity, np.float32)


class Adam(Optimizer):
    """Adam with bias correction (Kingma & Ba 2015, algorithm 1; as ``torch.optim.Adam``)."""

    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self._learning_rate = learning_rate
        self._betas = beta1, beta2
        self._moments: tuple[Float32, Float32] | None = None
        self._steps = 0

    def step(self, gradient: Float32, share: float = 1.0) -> Float32:
        """See :class:`Optimizer`."""
        beta1, beta2 = self._betas
        if self._moments is None:
            self._moments = np.zeros_like(gradient), np.zeros_like(gradient)
        self._steps += 1
        m, v = self._moments
        m += np.float32(1 - beta1) * (gradient - m)
        v *= np.float32(beta2)
        v += np.float32(1 - beta2) * gradient * gradient
        rate = np.float32(share * self._learning_rate / (1 - beta1**self._steps))
        root = np.sqrt(v) / np.float32((1 - beta2**self._steps) ** 0.5) + np.float32(EPSILON)
        return np.asarray(-rate * m / root, np.float32)


class Lbfgs(Optimizer):
    """L-BFGS by the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4), with steps of fixed length.

    As ``torch.optim.LBFGS`` without line search, for each sample by itself: its own memory, its own curvature.
    It pays on smooth objectives; where the objective has kinks, as sums of absolute values do, take Adam.
    """

    def __init__(self, learning_rate: float, history: int = HISTORY) -> None:
        self._learning_rate = learning_rate
        self._history = history
        self._last: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def step(self, gradient: Float32, share: float = 1.0) -> Float32:
        """See :class:`Optimizer`."""
        g = gradient.astype(np.float64)
        if self._last is None:
            batch, size = g.shape
            self._s = np.zeros((self._history, batch, size))
            self._y = np.zeros((self._history, batch, size))
            self._rho = np.zeros((self._history, batch))
            self._scale = np.ones(batch)
            direction = -g
            rate = np.minimum(1.0, 1.0 / np.maximum(np.abs(g).sum(axis=1), 1e-300)) * self._learning_rate * share
        else:
            self._remember(self._last[1], g - self._last[0])
            direction = self._direction(g)
            rate = np.full(len(g), self._learning_rate * share)
        still = (_dot(g, direction) > -FLAT) | (np.abs(g).max(axis=1) <= STATIONARY)
        update = np.where(still[:, None], 0.0, rate[:, None] * direction)
        self._last = g, update
        return update.astype(np.float32)

    def _remember(self, s: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Keeps the pair of each sample that has enough curvature; the oldest goes."""
        curvature = _dot(y, s)
        kept = curvature > CURVATURE
        for memory, new in ((self._s, s), (self._y, y)):
            memory[:-1, kept] = memory[1:, kept]
            memory[-1, kept] = new[kept]
        self._rho[:-1, kept] = self._rho[1:, kept]
        self._rho[-1, kept] = 1.0 / curvature[kept]
        self._scale[kept] = curvature[kept] / _dot(y, y)[kept]

    def _direction(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        """``-H g``; a place of the memory that is still empty has rho 0 and changes nothing."""
        q, alphas = -g, np.zeros_like(self._rho)
        for i in reversed(range(self._history)):
            alphas[i] = self._rho[i] * _dot(self._s[i], q)
            q = q - alphas[i][:, None] * self._y[i]
        r: NDArray[np.float64] = q * self._scale[:, None]
        for i in range(self._history):
            beta = self._rho[i] * _dot(self._y[i], r)
            r = r + self._s[i] * (alphas[i] - beta)[:, None]
        return r


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inner product of each sample, [B]."""
    product: NDArray[np.float64] = (a * b).sum(axis=1)
    return product


def make_optimizer(settings: AscentSettings) -> Optimizer:
    """The optimizer that `settings` name, at its first step."""
    if settings.optimizer == "sgd":
        return Sgd(settings.learning_rate, settings.momentum)
    if settings.optimizer == "lbfgs":
        return Lbfgs(settings.learning_rate)
    return Adam(settings.learning_rate, settings.beta1, settings.beta2)
