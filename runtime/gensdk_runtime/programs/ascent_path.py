"""The path of a batch whose variable is optimized: where it is, its best place, and which samples still move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Int64
from gensdk_runtime.programs.optimizers import make_optimizer
from gensdk_runtime.spec.model import AscentSpec, ModelSpec
from gensdk_runtime.spec.settings import AscentSettings


@dataclass(frozen=True)
class Ascended:
    """Where the steps led: `variable` float32 [B, ...], the `objective` [B] there (where the last variable is
    kept: one step before), and how many `steps` each sample took, int64 [B]."""

    variable: Float32
    objective: NDArray[np.float32]
    steps: Int64

    def first(self, count: int) -> Ascended:
        """Without what the batch was padded with."""
        return Ascended(self.variable[:count], self.objective[:count], self.steps[:count])


class Path:
    """The variable of a batch on its way, and for each sample its best place and whether it still moves."""

    def __init__(self, x: Float32, settings: AscentSettings, spec: AscentSpec, model: ModelSpec) -> None:
        self._settings, self._spec, self._range = settings, spec, model.output.value_range
        self._optimizer = make_optimizer(settings)
        self.x = self._projected(x)
        self.objective = np.zeros(len(x), np.float32)
        self.active = np.ones(len(x), bool)
        self._best, self._best_loss = self.x.copy(), np.full(len(x), np.inf)
        self._mark, self._stale = self._best_loss.copy(), np.zeros(len(x), np.int64)
        self._steps = np.zeros(len(x), np.int64)

    def note(self, objective: Float32) -> None:
        """What the objective [B] is at the present place; samples out of patience stop."""
        self.objective = np.where(self.active, objective, self.objective)
        loss = np.asarray(-objective if self._spec.maximize else objective, np.float64)
        better = self.active & (loss < self._best_loss)
        self._best_loss[better], self._best[better] = loss[better], self.x[better]
        with np.errstate(invalid="ignore"):
            improved = loss < self._mark - self._settings.tolerance * np.abs(self._mark)
        improved |= np.isinf(self._mark)
        self._mark = np.where(improved & self.active, loss, self._mark)
        self._stale = np.where(improved, 0, self._stale + 1)
        if self._settings.patience:
            self.active &= self._stale < self._settings.patience

    def move(self, gradient: Float32, step: int) -> None:
        """Step number `step`, from 0, of every sample that still moves."""
        rows = gradient.reshape(len(gradient), -1)
        if self._spec.normalize:
            mean = np.abs(rows).mean(axis=1, dtype=np.float64, keepdims=True)
            rows = (rows / (mean + 1e-8)).astype(np.float32)
        falls = self._settings.lr_schedule == "linear"
        share = 1.0 - step / self._settings.num_inference_steps if falls else 1.0
        update = self._optimizer.step(-rows if self._spec.maximize else rows, share)
        moved = self._projected(self.x + update.reshape(self.x.shape))
        self.x = np.where(_column(self.active, moved), moved, self.x)
        self._steps += self.active

    def end(self) -> Ascended:
        """What is kept."""
        if self._spec.keep == "last":
            return Ascended(self.x, self.objective, self._steps)
        best = np.asarray(-self._best_loss if self._spec.maximize else self._best_loss, np.float32)
        return Ascended(self._best, best, self._steps)

    def _projected(self, x: Float32) -> Float32:
        if self._spec.project == "range":
            low, high = self._range
            return np.clip(x, np.float32(low), np.float32(high))
        return x


def _column(values: NDArray[Any], like: Float32) -> NDArray[Any]:
    """One value for each sample [B] as a column beside `like` [B, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
