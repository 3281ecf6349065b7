"""The gradient of an objective with respect to its input: what a model climbs that optimizes its input.

A live module computes it with autograd; :mod:`gensdk_export.rewrites.gradient` turns the same module into a graph
of standard operators. The weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.fields import Axis
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec


class WithAutograd(nn.Module):
    """A module that differentiates in its forward pass, with respect to inputs alone, by :class:`InputGradient`.

    The export writes down what autograd does there; other modules must not call it.
    """


class InputGradient(WithAutograd):
    """An `objective` and its gradient.

    ``objective(variable, *others)`` gives one number for each sample, [B], and must not mix samples: the gradient
    of their sum is then each sample's own.
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, variable: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        """`variable` [B, ...] to the objective [B] and its gradient [B, ...]; `others` are held fixed."""
        # The runtime's sessions run in inference mode, whose tensors autograd refuses: so clones.
        with torch.inference_mode(mode=False), torch.enable_grad():
            free = variable.detach().clone().requires_grad_()
            objective = self.objective(free, *(other.detach().clone() for other in others))
            (gradient,) = torch.autograd.grad(objective.sum(), free)
        return objective.detach(), gradient.detach()


def gradient_graph(name: str, variable: Sequence[Axis], others: Sequence[TensorSpec] = ()) -> GraphSpec:
    """The signature of :class:`InputGradient`: ``variable`` [B, *variable] and `others` to ``objective`` [B] and
    ``gradient`` [B, *variable]."""
    shape = ("batch", *variable)
    return GraphSpec(
        name=name,
        inputs=(TensorSpec(name="variable", dtype="float32", shape=shape, role="state"), *others),
        outputs=(
            TensorSpec(name="objective", dtype="float32", shape=("batch",), role="state"),
            TensorSpec(name="gradient", dtype="float32", shape=shape, role="state"),
        ),
    )


def target_input(image: ImageSpec, name: str = "target") -> TensorSpec:
    """The input that holds the image to be found again: float32 [B, C, H, W]."""
    shape = ("batch", *image.shape)
    return TensorSpec(name=name, dtype="float32", shape=shape, role="image", value_range=image.value_range)
