"""By how much rounding alone moves a gradient.

A gradient is not continuous: where a feature is nearly zero, rounding puts it on either side of a ReLU's edge,
where two are nearly equal, either may be the largest, and the slope of an absolute value has a sign; then a part
of the gradient jumps, whoever computes it. So a backend can't be nearer to PyTorch than PyTorch is to itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.proof.golden import Trajectory
from gensdk_training.graphs.input_gradient import WithAutograd
from gensdk_training.plan import ExportPlan

JUMPS = 4.0
"""How many times as far as in the recorded calls a gradient may jump elsewhere, where others lie on an edge."""


def gradient_bounds(plan: ExportPlan, golden: Iterable[Trajectory], atol: float) -> dict[str, float]:
    """The gradient graphs of `plan` that need more than the scaled difference `atol`, and what they are allowed:
    :data:`JUMPS` times what float32 differs from float64 in the recorded calls."""
    calls = [call for run in golden for call in run.calls]
    allowed = {}
    for graph in plan.model.graphs:
        module = plan.modules[graph.name]
        if not isinstance(module, WithAutograd):
            continue
        double, worst = copy.deepcopy(module).double(), 0.0
        for call in calls:
            if call.graph != graph.name:
                continue
            given = [torch.from_numpy(call.feeds[spec.name]).double() for spec in graph.inputs]
            found = double(*given)
            exact = found if isinstance(found, tuple) else (found,)
            outputs = [call.outputs[spec.name] for spec in graph.outputs]
            worst = max(worst, *(scaled(a, b.detach().numpy()) for a, b in zip(outputs, exact, strict=True)))
        if JUMPS * worst > atol:
            allowed[graph.name] = JUMPS * worst
    return allowed


def scaled(found: Array, expected: Array) -> float:
    """The largest difference, in parts of the largest value, at least 1."""
    difference = np.abs(np.subtract(found, expected, dtype=np.float64)).max(initial=0.0)
    return float(difference / max(1.0, float(np.abs(expected).max(initial=0.0))))
