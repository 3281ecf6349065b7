"""The graphs of SequenceSpec around a network's own: the draw of one token, and the signatures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gensdk_runtime.spec.fields import Dtype, Role
from gensdk_runtime.spec.kinds import OutputSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

STEP, LIKELIHOOD, DECODE = "step", "likelihood", "decode"
MOST_SORTED = 3840
"""Tokens that TensorRT sorts at most. The likeliest so many take part where top_k or top_p cut; where those have
less than the share top_p, nothing is cut."""


LARGEST_UNIFORM = 1 - 2**-23
"""Of float32 the largest number whose product with a sum is always below that sum."""


def draw_token(logits: Tensor, uniform: Tensor, temperature: Tensor) -> Tensor:
    """Draws int64 [B, 1] by the inverse CDF of ``softmax(logits / temperature)``, from `logits` [B, V], `uniform`
    [B, 1] and `temperature` [B], all float32; -1 where logits are NaN or infinite."""
    return _drawn(torch.softmax(logits / temperature.unsqueeze(1), dim=1), uniform)


def _drawn(shares: Tensor, uniform: Tensor) -> Tensor:
    """The first token at which the shares [B, V] up to it are more than the share `uniform` of all of them, as
    int64 [B, 1]: one whose own share is not 0, wherever rounding has put the sum of all."""
    upto = torch.cumsum(shares, dim=1)
    total = upto[:, -1:]
    before = (upto <= total * torch.clamp(uniform, max=LARGEST_UNIFORM)).to(shares.dtype)
    drawn = before.sum(dim=1, keepdim=True)
    return torch.where(total > 0, drawn, -1.0).to(torch.int64)


def draw_among(logits: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """As :func:`draw_token`, among the `top_k` int64 [B] likeliest tokens, and the likeliest that have the share
    `top_p` [B] together (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", eq. 2).

    Tokens that are as likely as the least likely one that is kept are kept too.
    """
    shares = torch.softmax(logits / temperature.unsqueeze(1), dim=1)
    # Sorting takes longer than a network of text: it is done only where something is cut.
    whole = (top_p >= 1.0).all() & (top_k >= shares.shape[1]).all()
    given = (shares, top_k, top_p)
    if torch.compiler.is_compiling():
        least: Tensor = torch.cond(whole, _no_least, _least_kept, given)
    else:
        least = _no_least(*given) if bool(whole) else _least_kept(*given)
    return _drawn(torch.where(shares >= least, shares, torch.zeros_like(shares)), uniform)


def draw_among_few(logits: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """As :func:`draw_among`, of tokens that are so few that a branch around the sorting would take longer."""
    shares = torch.softmax(logits / temperature.unsqueeze(1), dim=1)
    least = _least_kept(shares, top_k, top_p)
    return _drawn(torch.where(shares >= least, shares, torch.zeros_like(shares)), uniform)


def _no_least(shares: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """As :func:`_least_kept`, where nothing is cut. (A branch that gave `shares` back would be no valid ONNX.)"""
    return torch.zeros_like(shares[:, :1])


def _least_kept(shares: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The share [B, 1] of the least likely token that is kept; 0 where all are."""
    best, _ = torch.topk(shares, min(shares.shape[1], MOST_SORTED), dim=1)
    before = torch.cumsum(best, dim=1) - best
    nucleus = torch.clamp((before < top_p.unsqueeze(1)).sum(dim=1), min=1)
    whole = (top_p >= 1.0) | (nucleus == best.shape[1])
    last = torch.gather(best, 1, (nucleus - 1).unsqueeze(1))
    least_p = torch.where(whole.unsqueeze(1), torch.zeros_like(last), last)
    place = torch.clamp(top_k, 1, best.shape[1]) - 1
    least_k = torch.gather(best, 1, place.unsqueeze(1))
    least_k = torch.where((top_k > best.shape[1]).unsqueeze(1), torch.zeros_like(last), least_k)
    return torch.maximum(least_p, least_k)


def step_graph(
    spec: SequenceSpec, states: Sequence[TensorSpec], *, conditions: Sequence[TensorSpec] = (), cuts: bool
) -> GraphSpec:
    """The signature of the step graph; `cuts`: it takes ``top_k`` and ``top_p``."""
    element = ("batch", spec.channels)
    options = [tensor("temperature", "batch", role="coefficient")]
    if cuts:
        options += [
            tensor("top_k", "batch", role="coefficient", dtype="int64"),
            tensor("top_p", "batch", role="coefficient"),
        ]
    uniform = TensorSpec(name="uniform", dtype="float32", shape=element, role="noise", distribution="uniform")
    back = [state.model_copy(update={"name": f"next_{state.name}"}) for state in states]
    return GraphSpec(
        name=spec.step_graph,
        inputs=(
            tensor("token", *element, role="state", dtype="int64"),
            tensor("position", 1, role="timestep", dtype="int64"),
            uniform,
            *options,
            *states,
            *conditions,
        ),
        outputs=(tensor("next_token", *element, role="state", dtype="int64"), *back),
    )


def likelihood_graph(
    spec: SequenceSpec, output: OutputSpec, *, conditions: Sequence[TensorSpec] = ()
) -> GraphSpec:
    """The signature of the likelihood graph, over whole samples of the model's output."""
    return GraphSpec(
        name=spec.likelihood_graph,
        inputs=(
            tensor(output.tensor, "batch", *output.shape, role=output.role, dtype=output.dtype),
            tensor("lengths", "batch", role="condition", dtype="int64"),
            *conditions,
        ),
        outputs=(tensor("log_likelihood", "batch", role="coefficient"),),
    )


def decode_graph(spec: SequenceSpec, output: OutputSpec) -> GraphSpec:
    """The signature of the graph that turns tokens into what they stand for, an element each."""
    shape: list[int | str] = [*output.shape]
    shape[spec.axis] = "elements"
    return GraphSpec(
        name=spec.decode_graph or DECODE,
        inputs=(tensor("tokens", "batch", "elements", spec.channels, role="state", dtype="int64"),),
        outputs=(tensor(output.tensor, "batch", *shape, role=output.role, dtype=output.dtype),),
    )


def tensor(name: str, *shape: int | str, role: Role, dtype: Dtype = "float32") -> TensorSpec:
    """A tensor of a signature."""
    return TensorSpec(name=name, dtype=dtype, shape=shape, role=role)
