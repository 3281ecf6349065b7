"""Several processes, one model: the same weights everywhere, gradients averaged.

The networks are not wrapped in DistributedDataParallel: it hooks into one forward and one backward, while a
GAN runs its networks several times a step and a gradient penalty differentiates twice. Averaging the finished
gradients in one flat buffer costs one collective a phase and works for every loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor, nn

from gensdk_runtime.errors import GensdkError


def on_first(accelerator: Accelerator, work: Callable[[], str | None]) -> str | None:
    """Does `work` in the first process only; its result, or the :class:`GensdkError` it raises, comes to all.

    The others wait meanwhile. Without this, an error of the first process would leave them waiting for ever.
    """
    if accelerator.num_processes == 1:
        return work()
    outcome: list[str | GensdkError | None] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [work()]
        except GensdkError as failure:
            outcome = [failure]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], GensdkError):
        raise outcome[0]
    return outcome[0]


def average_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Replaces each gradient by its mean over the processes; returns the mean of `loss` (a scalar).

    The loss travels in the same buffer, so that a loss that is not finite stops all processes in the same step.
    """
    loss = loss.detach().float()
    if accelerator.num_processes == 1:
        return loss
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([loss.reshape(1), *(g.reshape(-1).float() for g in gradients)])
    flat = accelerator.reduce(flat, reduction="mean")
    for parameter, part in zip(parameters, _unflatten(flat[1:], gradients), strict=True):
        parameter.grad = part
    mean: Tensor = flat[0]
    return mean


@torch.no_grad()
def broadcast_networks(accelerator: Accelerator, networks: Mapping[str, nn.Module]) -> None:
    """Makes all processes start from the parameters and buffers of the first."""
    if accelerator.num_processes > 1:
        tensors = [tensor for network in networks.values() for tensor in network.state_dict().values()]
        for tensor in tensors:
            tensor.copy_(broadcast(tensor.contiguous()))


@torch.no_grad()
def synchronize_buffers(accelerator: Accelerator, networks: Mapping[str, nn.Module]) -> None:
    """Gives all processes the mean of their batch-norm statistics, and the first one's other float buffers.

    Constants such as masks are among the latter: a mean of three equal numbers may round.
    """
    if accelerator.num_processes == 1:
        return
    statistics = {id(tensor): tensor for tensor in _batch_norm_statistics(networks)}
    others = [
        buffer
        for network in networks.values()
        for buffer in network.buffers()
        if buffer.is_floating_point() and id(buffer) not in statistics
    ]
    if statistics:
        tensors = list(statistics.values())
        flat = accelerator.reduce(_flatten(tensors), reduction="mean")
        _copy_all(tensors, flat)
    if others:
        _copy_all(others, broadcast(_flatten(others)))


def _batch_norm_statistics(networks: Mapping[str, nn.Module]) -> Iterable[Tensor]:
    for network in networks.values():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                yield module.running_mean
                if module.running_var is not None:
                    yield module.running_var


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1).float() for tensor in tensors])


def _unflatten(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, like, strict=True)]


def _copy_all(tensors: Sequence[Tensor], flat: Tensor) -> None:
    for tensor, part in zip(tensors, _unflatten(flat, tensors), strict=True):
        tensor.copy_(part)
