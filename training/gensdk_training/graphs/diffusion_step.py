"""The graphs of every diffusion model: guidance, the denoiser, and the solver's update in one module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gensdk_runtime.programs.solvers import NUM_COEFFICIENTS
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.fields import Role
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import ROWS, GraphSpec, TensorSpec
from gensdk_training.networks.denoiser import EmbeddingDenoiser, SharingDenoiser

Contexts = Mapping[str, tuple[int, ...]]
"""The shape of each context of one text, by name."""


class DiffusionStep(nn.Module):
    """One step of any solver whose update is linear in (x_t, x_0, eps, previous x_0, noise).

    The coefficients are those of :class:`gensdk_runtime.programs.solvers.SolverTable`, where the formula is
    derived. Each sample has its own time step, coefficients and guidance. `denoiser` maps (x [N, C, H, W],
    timestep float32 [N], label int64 [N] where the model is `conditional` on labels, and contexts [N, ...] where
    it is made from texts) to eps of x's shape.
    """

    def __init__(self, denoiser: nn.Module, *, conditional: bool) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditional = conditional

    def forward(
        self,
        sample: Tensor,
        previous_x0: Tensor,
        timestep: Tensor,
        noise: Tensor,
        coefficients: Tensor,
        *passes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (next sample, estimate of x_0), each [B, C, H, W]; shapes as in DiffusionSpec.

        `passes`: ``label`` where the model has classes, ``guidance_weights`` and contexts; none of a model that is
        asked for nothing.
        """
        if not passes:
            eps = self.denoiser(sample, timestep)
        else:
            label, (weights, *contexts) = passes[: self.conditional], passes[self.conditional :]
            repeated = for_each_pass(sample, weights), for_each_pass(timestep, weights)
            asked = [each.flatten(0, 1) for each in (*label, *contexts)]
            eps = guided(self.denoiser(*repeated, *asked), weights)
        return solver_update(sample, previous_x0, eps, noise, coefficients)


class EmbeddedStep(nn.Module):
    """As :class:`DiffusionStep`, given the embedding [B, F] or [G, B, F].

    `depth` > 0: with the deep features, for a :class:`ShallowStep` of that depth.
    """

    def __init__(self, denoiser: EmbeddingDenoiser, *, depth: int = 0) -> None:
        super().__init__()
        self.denoiser: nn.Module = _Full(denoiser)
        if depth > 0 and isinstance(denoiser, SharingDenoiser):
            self.denoiser = _Sharing(denoiser, depth)

    def forward(  # noqa: PLR0917 - the inputs of a graph are positional
        self,
        sample: Tensor,
        previous_x0: Tensor,
        embedding: Tensor,
        noise: Tensor,
        coefficients: Tensor,
        guidance_weights: Tensor | None = None,
        *contexts: Tensor,
    ) -> tuple[Tensor, ...]:
        """Returns (next sample, estimate of x_0), and deep features [B, ...] or [G, B, ...] where it has them."""
        if guidance_weights is None:
            eps, *features = self.denoiser(sample, embedding)
        else:
            asked = [each.flatten(0, 1) for each in (embedding, *contexts)]
            eps, *features = self.denoiser(for_each_pass(sample, embedding), *asked)
            eps = guided(eps, guidance_weights)
            features = [part.reshape(*embedding.shape[:2], *part.shape[1:]) for part in features]
        return (*solver_update(sample, previous_x0, eps, noise, coefficients), *features)


class ShallowStep(nn.Module):
    """As :class:`EmbeddedStep`, with the deep features of an earlier step."""

    def __init__(self, denoiser: SharingDenoiser, *, depth: int) -> None:
        super().__init__()
        self.denoiser = _Shallow(denoiser, depth)

    def forward(  # noqa: PLR0917 - the inputs of a graph are positional
        self,
        sample: Tensor,
        previous_x0: Tensor,
        embedding: Tensor,
        noise: Tensor,
        coefficients: Tensor,
        deep_features: Tensor,
        guidance_weights: Tensor | None = None,
        *contexts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (next sample, estimate of x_0), each [B, C, H, W]."""
        if guidance_weights is None:
            eps = self.denoiser(sample, embedding, deep_features)
        else:
            asked = [each.flatten(0, 1) for each in (embedding, deep_features, *contexts)]
            eps = self.denoiser(for_each_pass(sample, embedding), *asked)
            eps = guided(eps, guidance_weights)
        return solver_update(sample, previous_x0, eps, noise, coefficients)


class TimeEmbedding(nn.Module):
    """What of a denoiser depends on time and label alone."""

    def __init__(self, denoiser: EmbeddingDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """Float32 [R], and int64 [R] where the model has classes, to float32 [R, F]."""
        return self.denoiser.embed(timestep, label)


class _Full(nn.Module):
    """One way to call a denoiser, as a module of its own: what half precision is bounded by."""

    def __init__(self, denoiser: EmbeddingDenoiser) -> None:
        super().__init__()
        self.network = denoiser

    def forward(self, x: Tensor, embedding: Tensor, *contexts: Tensor) -> tuple[Tensor, ...]:
        return (self.network.denoise(x, embedding, *contexts),)


class _Sharing(nn.Module):
    def __init__(self, denoiser: SharingDenoiser, depth: int) -> None:
        super().__init__()
        self.network = denoiser
        self.depth = depth

    def forward(self, x: Tensor, embedding: Tensor, *contexts: Tensor) -> tuple[Tensor, ...]:
        return self.network.denoise_sharing(x, embedding, *contexts, depth=self.depth)


class _Shallow(nn.Module):
    def __init__(self, denoiser: SharingDenoiser, depth: int) -> None:
        super().__init__()
        self.network = denoiser
        self.depth = depth

    def forward(self, x: Tensor, embedding: Tensor, deep_features: Tensor, *contexts: Tensor) -> Tensor:
        return self.network.denoise_shallow(x, embedding, deep_features, *contexts, depth=self.depth)


def for_each_pass(sample: Tensor, passes: Tensor) -> Tensor:
    """`sample` [B, ...] repeated to [G * B, ...], for `passes` [G, B, ...]."""
    repeated = sample.unsqueeze(0).expand(passes.shape[0], *([-1] * sample.dim()))
    return repeated.reshape(-1, *sample.shape[1:])


def guided(eps: Tensor, weights: Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): G passes [G * B, ...], summed with weights [G, B]."""
    passes = eps.reshape(*weights.shape, *eps.shape[1:])
    return (weights.reshape(*weights.shape, *([1] * (eps.dim() - 1))) * passes).sum(0)


def solver_update(
    sample: Tensor, previous_x0: Tensor, eps: Tensor, noise: Tensor, coefficients: Tensor
) -> tuple[Tensor, Tensor]:
    """(next sample, estimate of x_0), each [B, C, ...], with a row of `coefficients` [B, 8] for each sample; see
    :mod:`gensdk_runtime.programs.solvers`."""
    x, e, clip, a, b, c, d, s = columns(coefficients, sample)
    x0 = torch.minimum(torch.maximum(x * sample + e * eps, -clip), clip)
    return a * sample + b * x0 + c * eps + d * previous_x0 + s * noise, x0


def columns(coefficients: Tensor, sample: Tensor) -> tuple[Tensor, ...]:
    """Each column of `coefficients` [B, 8], shaped [B, 1, ...] to stand beside `sample` [B, C, ...]."""
    rows = coefficients.reshape(-1, NUM_COEFFICIENTS, *[1] * (sample.dim() - 2))
    return torch.split(rows, 1, dim=1)


def embedding_graph(size: int, *, conditional: bool, name: str = "embedding") -> GraphSpec:
    """The signature of :class:`TimeEmbedding` for embeddings of `size` values."""
    inputs = [_floats("timestep", "timestep", ROWS)]
    if conditional:
        inputs.append(TensorSpec(name="label", dtype="int64", shape=(ROWS,), role="condition"))
    output = _floats("embedding", "coefficient", ROWS, size)
    return GraphSpec(name=name, inputs=tuple(inputs), outputs=(output,))


def context_graph(prompt: PromptSpec, contexts: Contexts, name: str = "text_encoder") -> GraphSpec:
    """The signature of a text's encoder: ``prompt`` to each of `contexts`."""
    tokens = TensorSpec(name="prompt", dtype="int64", shape=("batch", prompt.length), role="condition")
    made = (_floats(each, "context", "batch", *shape) for each, shape in contexts.items())
    return GraphSpec(name=name, inputs=(tokens,), outputs=tuple(made))


@dataclass(frozen=True)
class Asked:
    """What the denoiser of a model is told of a sample: its class where it is `conditional` on labels, and
    `contexts`, by name the shape of what one text becomes."""

    conditional: bool = False
    contexts: Contexts = field(default_factory=dict)

    @property
    def passes(self) -> tuple[str, ...]:
        """The axes in front of what differs from pass to pass."""
        return ("guidance", "batch") if self.conditional or self.contexts else ("batch",)


UNASKED = Asked()


def step_graph(
    image: ImageSpec,
    *,
    asked: Asked = UNASKED,
    name: str = "step",
    embedding: int | None = None,
    takes: tuple[int, ...] | None = None,
    gives: tuple[int, ...] | None = None,
) -> GraphSpec:
    """The signature of a step over images of this size: of :class:`DiffusionStep`, or with `embedding` (its size)
    of :class:`EmbeddedStep`.

    `takes` and `gives`: the shape of one sample's deep features, for a step that has them as input or output.
    """
    passes = asked.passes
    sample = _floats("sample", "state", "batch", *image.shape)
    inputs = [sample, sample.model_copy(update={"name": "previous_x0"})]
    if embedding is None:
        inputs.append(_floats("timestep", "timestep", "batch"))
    else:
        inputs.append(_floats("embedding", "coefficient", *passes, embedding))
    inputs += [
        sample.model_copy(update={"name": "noise", "role": "noise", "distribution": "normal"}),
        _floats("coefficients", "coefficient", "batch", NUM_COEFFICIENTS),
    ]
    if takes is not None:
        inputs.append(_floats("deep_features", "state", *passes, *takes))
    if asked.conditional and embedding is None:
        inputs.append(TensorSpec(name="label", dtype="int64", shape=passes, role="condition"))
    if len(passes) > 1:
        inputs.append(_floats("guidance_weights", "coefficient", *passes))
    inputs += [_floats(each, "context", *passes, *shape) for each, shape in asked.contexts.items()]
    outputs = [
        sample.model_copy(update={"name": "next_sample"}),
        sample.model_copy(update={"name": "next_previous_x0", "role": "image", "value_range": image.value_range}),
    ]
    if gives is not None:
        outputs.append(_floats("deep_features", "state", *passes, *gives))
    return GraphSpec(name=name, inputs=tuple(inputs), outputs=tuple(outputs))


def _floats(name: str, role: Role, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, role=role)
