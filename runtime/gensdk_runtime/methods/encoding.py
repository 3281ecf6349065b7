"""The way back of models that have one: images to latents and to classes, and through the latent to images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.conditions.base import Growth
from gensdk_runtime.errors import InputError
from gensdk_runtime.methods.inversion import invert
from gensdk_runtime.noise import Float32
from gensdk_runtime.plan.judging import CLASSIFYING, ENCODING, JUDGING
from gensdk_runtime.plan.sampling import Sampling
from gensdk_runtime.programs.base import Program
from gensdk_runtime.programs.feedforward import FeedforwardProgram
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.model import ModelSpec

ProgramT = TypeVar("ProgramT", bound=Program[Any])


def encode(sampling: Sampling, images: Any, label: Any, batch_size: int | None) -> Float32:
    """See :meth:`gensdk_runtime.generator.Generator.encode`."""
    model = sampling.model
    if inverts(model):
        starts = [0] * len(sampling.output.given(images))  # the place of an image plays no part
        sampling.checked({"label": label}, len(starts))
        return invert(sampling, images, {}, seed=starts, batch_size=batch_size).latents
    program = _require_encoder(sampling)
    pixels = sampling.output.given(images)
    asked = sampling.checked({"label": label}, len(pixels))
    for kind in program.encoder_conditions or ():
        if kind not in asked:
            raise InputError(f"the encoder of {model.name!r} is conditional: pass {kind}, one for each image")
    latents = np.empty((len(pixels), *(program.latent_shape or ())), np.float32)
    ENCODING.fill(latents, {**asked, "image": pixels}, sampling.executor, batch_size)
    return latents


def classify(sampling: Sampling, images: Any, batch_size: int | None) -> Float32:
    """See :meth:`gensdk_runtime.generator.Generator.classify`."""
    model, program = sampling.model, _program(sampling, FeedforwardProgram)
    if program is None or program.spec.classifier is None:
        raise InputError(f"model {model.name!r} has no classifier; a semi-supervised family (sgan) exports one")
    pixels = sampling.output.given(images)
    found = np.empty((len(pixels), program.num_logits), np.float32)
    CLASSIFYING.fill(found, {"image": pixels}, sampling.executor, batch_size)
    logits = found.astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Float32 = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def log_likelihood(
    sampling: Sampling, values: Any, conditions: Mapping[str, Any], lengths: Any, batch_size: int | None
) -> NDArray[np.float64]:
    """See :meth:`gensdk_runtime.generator.Generator.log_likelihood`; `conditions` by kind."""
    if isinstance(values, Samples):
        sampling.output.check_like(values.output)
        lengths = values.lengths if lengths is None else lengths
        conditions = {**values.conditions, **{kind: each for kind, each in conditions.items() if each is not None}}
        values = values.data
    program = sampling.executor.runners.steps.program
    judged = program.to_judge(sampling.output, values, lengths)
    asked = _decoding(sampling, conditions, len(judged.dimensions))
    nats = np.empty(len(judged.dimensions), np.float32)
    own = sampling.model.largest_tensor
    growth = Growth(judged.elements, own) if judged.elements > own else None
    JUDGING.fill(nats, {**asked, **judged.feeds}, sampling.executor, batch_size, growth)
    bits: NDArray[np.float64] = -nats.astype(np.float64) / (np.log(2.0) * judged.dimensions)
    return bits


def reconstruct(
    sampling: Sampling,
    images: Any,
    label: Any,
    *,
    mask: Any = None,
    num_iterations: int = 20,
    batch_size: int | None = None,
) -> Samples:
    """See :meth:`gensdk_runtime.generator.Generator.reconstruct`."""
    model = sampling.model
    if not inverts(model) and _require_encoder(sampling).starts:
        raise InputError(f"model {model.name!r} begins at noise; use sample(image=..., strength=...)")
    times = check_whole(num_iterations, "num_iterations", least=1, most=10_000)
    known = sampling.output.given(images)
    asked = _decoding(sampling, {"label": label}, len(known))
    numbers = asked.get("label")

    def again(present: Float32) -> Samples:
        latents = encode(sampling, present, numbers, batch_size)
        return sampling.sample(
            len(known), seed=0, conditions=asked, latents=latents, batch_size=batch_size, progress=False
        )

    if mask is None:
        return again(known)
    weights = sampling.output.mask(mask, len(known))
    return _completed(known, weights, sum(model.output.value_range) / 2, again, times)


def _completed(
    images: Float32, mask: Float32, middle: float, again: Callable[[Float32], Samples], times: int
) -> Samples:
    """``x <- m x + (1 - m) G(E(x))``, `times` times, from `middle` in the missing pixels; known ones stay.

    `images` [n, C, H, W]; `mask` [n, 1 or C, H, W], 1 where a pixel is known; `again`: ``x -> G(E(x))``.
    """
    known = mask * images
    present = known + (1 - mask) * np.float32(middle)
    for _ in range(times):
        samples = again(present)
        present = known + (1 - mask) * samples.array
    return replace(samples, data=np.where(mask == 1, images, present).astype(np.float32))


def _program(sampling: Sampling, kind: type[ProgramT]) -> ProgramT | None:
    """The program that has all of the model's graphs, where it is of this kind."""
    program = sampling.executor.runners.steps.program
    return program if isinstance(program, kind) else None


def inverts(model: ModelSpec) -> bool:
    """True where the way back to latents is an inversion, there being no encoder."""
    return model.inversion is not None and getattr(model.program, "encoder", None) is None


def _require_encoder(sampling: Sampling) -> Program[Any]:
    """The program of a model with an encoder; :class:`InputError` for another."""
    program: Program[Any] = sampling.executor.runners.steps.program
    if program.encoder_conditions is None:
        raise InputError(
            f"model {sampling.model.name!r} has no encoder; families ae, bigan and vae export one, and "
            "anogan, glo and gon an inversion"
        )
    return program


def _decoding(sampling: Sampling, conditions: Mapping[str, Any], n: int) -> dict[str, NDArray[Any]]:
    """What decoding needs; :class:`InputError` where a conditional model gets nothing."""
    asked = sampling.checked(conditions, n)
    for condition in sampling.conditions:
        if condition.kind not in asked:
            raise InputError(
                f"model {sampling.model.name!r} is conditional: pass {condition.kind}, one for each of the {n} "
                f"{sampling.output.plural}"
            )
    return asked
