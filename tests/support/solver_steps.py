"""A solver's table walked in float64, by the formula of its module's docstring."""

from __future__ import annotations

from typing import Any

import numpy as np

from gensdk_runtime.programs.solvers import SolverTable


def walk(table: SolverTable, start: Any, told: Any, noise: Any) -> list[Any]:
    """The states after each step, where the denoiser told `told` [S, ...]."""
    sample, previous, states = start, np.zeros_like(start), []
    for i, row in enumerate(table.coefficients):
        sample, previous = step(row, sample, told[i], previous, noise[i])
        states.append(sample)
    return states


def step(row: Any, sample: Any, told: Any, previous: Any, noise: Any) -> tuple[Any, Any]:
    """The next sample and x_0, where the denoiser told `told`."""
    x, e, clip, a, b, c, d, s = row
    x0 = np.clip(x * sample + e * told, -clip, clip)
    return a * sample + b * x0 + c * told + d * previous + s * noise, x0
