"""One optimizer a phase, its learning rate as a function of the step, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gensdk_runtime.errors import TrainingError
from gensdk_training.family import Phase

Schedule = Literal["constant", "linear", "cosine", "late_linear"]


def learning_rate_factor(step: int, *, steps: int, schedule: Schedule, warmup: int) -> float:
    """The factor of the base learning rate at `step` (from 0) of `steps`: above 0, at most 1.

    Rises in a line over the first `warmup` steps; then stays, falls in a line towards 0 at the end, or follows
    half a cosine (Loshchilov & Hutter 2017, "SGDR", eq. 5 without restarts); "late_linear" stays for the first
    half and falls in a line over the second.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "late_linear":
        return min(1.0, 2.0 * (1.0 - done))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def make_optimizer(phase: Phase, networks: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """The optimizer of `phase` over the parameters of the networks that it trains.

    AdamW, which without weight decay is Adam; RMSProp (Tieleman & Hinton 2012, lecture 6.5); or plain gradient
    descent.
    """
    parameters = phase_parameters(phase, networks)
    if phase.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=phase.learning_rate, weight_decay=phase.weight_decay)
    if phase.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=phase.learning_rate, weight_decay=phase.weight_decay)
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.AdamW(
        parameters,
        lr=phase.learning_rate,
        betas=phase.betas,
        weight_decay=phase.weight_decay,
        fused=fused,
    )


def phase_parameters(phase: Phase, networks: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """The parameters that `phase` trains, in a fixed order."""
    return [parameter for name in phase.trains for parameter in networks[name].parameters()]


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = value


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's whole state as ``INDEX.KEY``, INDEX counting its parameters.

    Learning rates, betas and decay are not part of it: they follow from the config and the step.
    """
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, values in state.items() for key, value in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what :func:`optimizer_tensors` gave. Raises :class:`TrainingError` where it does not fit."""
    full = optimizer.state_dict()
    count = len(full["param_groups"][0]["params"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or int(index) >= count:
            raise TrainingError(
                f"optimizer state {name!r} belongs to no parameter; the checkpoint is of another model"
            )
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": full["param_groups"]})
